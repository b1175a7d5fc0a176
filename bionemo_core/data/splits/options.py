"""The options of a split, which are checked against each other before anything is read."""

import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from bionemo_core.data.splits.indices import (
    FRACTIONS,
    SIZES,
    WINDOW,
    SizeKeys,
    SplitIndices,
    fraction_to_size,
    read_clusters,
    split_at_random,
    split_by_clusters,
    split_families,
    split_groups,
)
from bionemo_core.data.splits.labels import (
    DESCRIPTION,
    parse_split_header,
    parse_split_name,
    split_by_column,
    split_by_file,
    split_columns,
)
from bionemo_core.data.store.record_store import PreparedStore
from bionemo_core.errors import ConfigError

log = logging.getLogger("bionemo")


@dataclass(frozen=True)
class SplitOptions:
    """The options that split the records of one source; the names are the keys of the data components."""

    val_fraction: float | None = None
    test_fraction: float | None = None
    val_size: int | None = None
    test_size: int | None = None
    clusters: str | None = None
    clusters_column: str | None = None
    """A stored column with the cluster of each record; it replaces the table of `clusters`."""
    split_column: str | None = None
    split_headers: bool = False
    split_file: str | None = None
    id_column: str | None = None
    split_seed: int = 0

    default_fraction: ClassVar[float] = 0.01

    def check(self, own: Collection[str]) -> None:
        """Check that the options do not contradict each other.

        Args:
            own: the splits, `val` or `test`, that have their own files.

        Raises:
            ConfigError: two options contradict each other.
        """
        ways = [key for key in ("clusters", "split_column", "split_headers", "split_file") if getattr(self, key)]
        if ways == ["split_column", "split_file"] or ways == ["split_headers", "split_file"]:
            ways = ["split_file"]
        if len(ways) > 1:
            raise ConfigError(f"{_keys(ways)}: are different ways to split. Keep one of them.")
        sizes = [f"{split}_{kind}" for split in ("val", "test") for kind in ("fraction", "size")]
        given = [key for key in sizes if getattr(self, key) is not None]
        others = [*given, *(f"{split}_path" for split in own), *(["split_seed"] if self.split_seed else [])]
        if ways and ways != ["clusters"] and others:
            raise ConfigError(f"data.{ways[0]}: already decides the split of each record. Remove {_keys(others)}.")
        for split in ("val", "test"):
            own_sizes = [key for key in given if key.startswith(split)]
            if len(own_sizes) > 1:
                raise ConfigError(f"{_keys(own_sizes)}: both set the size of the {split} split. Keep one of them.")
            if own_sizes and split in own:
                raise ConfigError(f"data.{split}_path: is the whole {split} split. Remove {_keys(own_sizes)}.")
        if ways == ["clusters"] and {"val", "test"} <= set(own):
            raise ConfigError(
                "data.clusters: has no effect beside data.val_path and data.test_path. Remove one of the three."
            )

    def columns(self, format_name: str) -> tuple[str, ...]:
        """Return the columns that must be stored for the split.

        Raises:
            ConfigError: files of this format have no such columns.
        """
        if self.split_file is not None:
            return ()
        return split_columns(format_name, self.split_column, self.split_headers)

    def indices(self, store: PreparedStore, own: Collection[str] = (), *, windowed: bool = False) -> SplitIndices:
        """Split the records of `store`.

        Args:
            store: the records.
            own: the splits that have their own files; no record goes to them.
            windowed: whether long records were cut into windows; the windows of a record stay together.

        Raises:
            ConfigError: the options contradict each other, or nothing is left to train on.
            DataError: a file cannot be read, or a record has no valid split.
        """
        self.check(own)
        if self.split_file is not None:
            return split_by_file(store, Path(self.split_file), self.split_column, self.id_column)
        if self.split_column is not None:
            return split_by_column(store, self.split_column, parse_split_name, "data.split_column")
        if self.split_headers:
            return split_by_column(store, DESCRIPTION, parse_split_header, "data.split_headers")
        val_size, test_size = (0 if split in own else self._size(len(store), split) for split in ("val", "test"))
        keys = self._size_keys
        if self.clusters_column is not None:
            families = [store.column(row, self.clusters_column) for row in range(len(store))]
            return split_families(families, val_size, test_size, self.split_seed, f"{self.clusters_column}s", keys)
        if self.clusters is not None:
            clusters = read_clusters(Path(self.clusters).expanduser())
            return split_by_clusters(store.ids(), clusters, val_size, test_size, self.split_seed, keys)
        if windowed:
            return split_groups(_group_windows(store), val_size, test_size, self.split_seed, "records", keys)
        return split_at_random(len(store), val_size, test_size, self.split_seed, keys)

    def warn_of_shared_clusters(
        self, store: PreparedStore, parts: SplitIndices, own: Mapping[str, PreparedStore]
    ) -> None:
        """Warn of clusters that separate files share with training, because nothing is moved between files."""
        column = self.clusters_column
        if column is None or not own:
            return
        train_clusters = {store.column(row, column) for row in parts.train.tolist()}
        for split, other in own.items():
            clusters = {other.column(row, column) for row in range(len(other))}
            if shared := len(clusters & train_clusters):
                log.warning(
                    "data.%s_path: %d of its %d %ss are in training too, because separate files are not split. To keep "
                    "clusters together, leave the key out.",
                    split,
                    shared,
                    len(clusters),
                    column,
                )

    @property
    def _size_keys(self) -> SizeKeys:
        """The keys that decide the sizes of the splits."""
        val = SIZES[0] if self.val_size is not None else FRACTIONS[0]
        return val, SIZES[1] if self.test_size is not None else FRACTIONS[1]

    def _size(self, num_records: int, split: str) -> int:
        size: int | None = getattr(self, f"{split}_size")
        if size is not None:
            return size
        fraction: float | None = getattr(self, f"{split}_fraction")
        return fraction_to_size(
            num_records, self.default_fraction if fraction is None else fraction, f"data.{split}_fraction"
        )


def _keys(names: Collection[str]) -> str:
    return " and ".join(f"data.{name}" for name in names)


def _group_windows(store: PreparedStore) -> "np.ndarray[tuple[int], np.dtype[np.int64]]":
    """Return the number of the record that each row was cut from, shape [rows]; windows of a record are neighbours."""
    groups = np.zeros(len(store), dtype=np.int64)
    previous, number = None, -1
    for row in range(len(store)):
        name = WINDOW.sub("", store.id(row))
        number += name != previous
        groups[row], previous = number, name
    return groups
