"""The records of each split: at random, or by whole clusters of related sequences."""

import re
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bionemo_core.data.batches.rng import RecordRng
from bionemo_core.data.readers import open_bytes
from bionemo_core.data.store.record_store import PreparedStore, Subset
from bionemo_core.errors import ConfigError, DataError
from bionemo_core.io.hashing import fingerprint_of, hash_bytes
from bionemo_core.plurals import format_count
from bionemo_core.protocols import DataSplits

CLUSTER_HEADER = ("cluster_id", "member_id")
TRAIN, VAL, TEST = 0, 1, 2
SizeKeys = tuple[str, str]
"""The user's keys for the sizes of the validation and the test split, for messages."""
SIZES: SizeKeys = ("data.val_size", "data.test_size")
FRACTIONS: SizeKeys = ("data.val_fraction", "data.test_fraction")
WINDOW = re.compile(r"/\d+\Z")
"""The suffix that the id of a window has after the record's id."""


@dataclass(frozen=True)
class SplitIndices:
    """The records of each split, ascending, shape [records]; every record is in exactly one split."""

    train: NDArray[np.int64]
    val: NDArray[np.int64]
    test: NDArray[np.int64]

    @classmethod
    def from_split_ids(cls, split_ids: NDArray[np.int8]) -> "SplitIndices":
        """Make the split from a number for each record: 0 train, 1 validation, 2 test; shape [records]."""
        train, val, test = (np.flatnonzero(split_ids == split) for split in (TRAIN, VAL, TEST))
        return cls(train, val, test)

    def of(
        self, store: PreparedStore, val: PreparedStore | None = None, test: PreparedStore | None = None
    ) -> DataSplits:
        """Return the splits of `store`; `val` and `test`, if given, are whole splits from other files."""
        facts = {
            "stores": [other.fingerprint if other else None for other in (store, val, test)],
            "indices": [hash_bytes(part.astype("<i8").tobytes()) for part in (self.val, self.test)],
        }
        return DataSplits(
            train=Subset(store, self.train) if len(self.train) < len(store) else store,
            val=val or (Subset(store, self.val) if self.val.size else None),
            test=test or (Subset(store, self.test) if self.test.size else None),
            fingerprint=fingerprint_of(facts),
        )


def fraction_to_size(num_records: int, fraction: float, key: str) -> int:
    """Return the number of records in a fraction, at least 1 unless it is 0.

    Raises:
        ConfigError: the fraction is not in [0, 1).
    """
    if not 0 <= fraction < 1:
        raise ConfigError(f"{key}: {fraction} is not a fraction. Give a number from 0 up to, but not including, 1.")
    return max(1, round(fraction * num_records)) if fraction else 0


def _check_sizes(num_records: int, val_size: int, test_size: int, keys: SizeKeys) -> None:
    if val_size < 0 or test_size < 0 or val_size + test_size >= num_records:
        used = [key for key, size in zip(keys, (val_size, test_size), strict=True) if size]
        advice = f"Lower {' and '.join(used)} (0: none), or give more data." if used else "Give more data."
        raise ConfigError(
            f"data: {val_size} validation and {format_count(test_size, 'test sequence')} leave nothing of "
            f"{num_records} to train on. {advice}"
        )


def split_at_random(num_records: int, val_size: int, test_size: int, seed: int, keys: SizeKeys = SIZES) -> SplitIndices:
    """Split at random into the given sizes; the seed alone decides.

    Raises:
        ConfigError: nothing is left to train on.
    """
    _check_sizes(num_records, val_size, test_size, keys)
    shuffled = np.argsort(RecordRng(seed, 0, 0, "split").words(num_records), kind="stable")
    val, test, train = np.split(shuffled, [val_size, val_size + test_size])
    return SplitIndices(np.sort(train), np.sort(val), np.sort(test))


def read_clusters(path: Path) -> dict[str, str]:
    """Read the cluster of each member from a table `cluster_id<TAB>member_id`, with or without a header row.

    Raises:
        DataError: the file cannot be read, a row does not have two fields, or a member is in two clusters.
    """
    cluster_of: dict[str, str] = {}
    with open_bytes(path, "clusters") as stream:
        for number, line in enumerate(stream, start=1):
            fields = line.decode("utf-8-sig", errors="replace").split()
            if not fields or (number == 1 and tuple(fields) == CLUSTER_HEADER):
                continue
            if len(fields) != 2:
                raise DataError(
                    f"clusters: {path}:{number}: has {format_count(len(fields), 'field')}, "
                    "expected cluster_id<TAB>member_id."
                )
            cluster, member = fields
            if cluster_of.setdefault(member, cluster) != cluster:
                raise DataError(
                    f"clusters: {path}:{number}: {member!r} is in {cluster_of[member]!r} and in {cluster!r}. "
                    "Give each sequence one cluster, so that a split can keep relatives together."
                )
    if not cluster_of:
        raise DataError(f"clusters: {path}: has no rows, expected cluster_id<TAB>member_id.")
    return cluster_of


def split_by_clusters(
    ids: Sequence[str], cluster_of: Mapping[str, str], val_size: int, test_size: int, seed: int, keys: SizeKeys = SIZES
) -> SplitIndices:
    """Split records so that every cluster is in one split.

    Raises:
        ConfigError: nothing is left to train on.
        DataError: a record has no cluster, or no cluster is small enough for a split.
    """
    families = [_find_cluster(name, cluster_of) for name in ids]
    return split_families(families, val_size, test_size, seed, "clusters", keys)


def split_families(
    families: Sequence[Hashable], val_size: int, test_size: int, seed: int, what: str, keys: SizeKeys = SIZES
) -> SplitIndices:
    """Split records so that equal values of `families` are in one split, as `split_groups` does.

    Raises:
        ConfigError: nothing is left to train on.
        DataError: no family is small enough for a split.
    """
    numbers: dict[Hashable, int] = {}
    groups = np.array([numbers.setdefault(family, len(numbers)) for family in families])
    return split_groups(groups, val_size, test_size, seed, what, keys)


def split_groups(
    groups: NDArray[np.integer], val_size: int, test_size: int, seed: int, what: str, keys: SizeKeys = SIZES
) -> SplitIndices:
    """Split records so that every group is in one split.

    Groups are assigned in a random order. A group that would overfill a split goes to training, so that a large group
    never makes up a whole validation set. A split is therefore at most as large as asked for.

    Args:
        groups: the number of each record's group, from 0, shape [records].
        val_size: records to validate on.
        test_size: records to test on.
        seed: decides which groups go where.
        what: the name of the groups, for messages.
        keys: the user's keys for the two sizes, for messages.

    Raises:
        ConfigError: nothing is left to train on.
        DataError: no group is small enough for a split.
    """
    _check_sizes(len(groups), val_size, test_size, keys)
    sizes = np.bincount(groups)
    split_ids = np.zeros(len(sizes), dtype=np.int8)
    wanted = {VAL: val_size, TEST: test_size}
    assigned = {VAL: 0, TEST: 0}
    for group in np.argsort(RecordRng(seed, 0, 0, "cluster split").words(len(sizes)), kind="stable"):
        for split in (VAL, TEST):
            if assigned[split] + sizes[group] <= wanted[split]:
                split_ids[group] = split
                assigned[split] += int(sizes[group])
                break
        if assigned == wanted:
            break
    if wanted[TEST] and not assigned[TEST]:  # the few small groups were all taken to validate on
        spare = [group for group in np.flatnonzero(split_ids == VAL) if sizes[group] <= wanted[TEST]]
        if spare and sizes[spare[-1]] < assigned[VAL]:
            split_ids[spare[-1]] = TEST
            assigned = {VAL: assigned[VAL] - int(sizes[spare[-1]]), TEST: int(sizes[spare[-1]])}
    for split, name, key in ((VAL, "validation", keys[0]), (TEST, "test", keys[-1])):
        if wanted[split] and not assigned[split]:
            smallest = sizes[split_ids == TRAIN].min()
            raise DataError(
                f"{what}: none of the {len(sizes)} fits into the {format_count(wanted[split], 'sequence')} of "
                f"{name}; the smallest that is left has {smallest}. Raise {key}, or make smaller {what}."
            )
    return SplitIndices.from_split_ids(split_ids[groups])


def _find_cluster(name: str, cluster_of: Mapping[str, str]) -> str:
    """Find the cluster of a record by its id, or by the accession in `sp|P12345|NAME`, as mmseqs2 writes it."""
    cluster = cluster_of.get(name)
    if cluster is None and name.count("|") == 2:
        cluster = cluster_of.get(name.split("|")[1])
    if cluster is None and (record := WINDOW.sub("", name)) != name:
        return _find_cluster(record, cluster_of)
    if cluster is None:
        raise DataError(
            f"clusters: sequence {name!r} is in no cluster. Cluster the file that data.path names; "
            "a sequence without a cluster could be a relative of any other."
        )
    return cluster
