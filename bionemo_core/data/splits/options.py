"""The options of a split as the data components have them, checked against each other before anything is read."""

import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from bionemo_core.data.splits.indices import (
    WINDOW,
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
    """How the records of one source are split; the names are those of the components' keys."""

    val_fraction: float | None = None
    test_fraction: float | None = None
    val_size: int | None = None
    test_size: int | None = None
    clusters: str | None = None
    clusters_column: str | None = None
    """A stored column that holds the cluster of each record; `clusters` then names no table."""
    split_column: str | None = None
    split_headers: bool = False
    split_file: str | None = None
    id_column: str | None = None
    split_seed: int = 0

    default_fraction: ClassVar[float] = 0.01

    def check(self, own: Collection[str]) -> None:
        """Accept options that say one thing.

        Args:
            own: the splits, `val` and `test`, that have files of their own.

        Raises:
            ConfigError: two of them contradict each other.
        """
        ways = [key for key in ("clusters", "split_column", "split_headers", "split_file") if getattr(self, key)]
        if ways == ["split_column", "split_file"] or ways == ["split_headers", "split_file"]:
            ways = ["split_file"]
        if len(ways) > 1:
            raise ConfigError(f"{_keys(ways)}: are different ways to split. Keep one.")
        sizes = [f"{split}_{kind}" for split in ("val", "test") for kind in ("fraction", "size")]
        given = [key for key in sizes if getattr(self, key) is not None]
        if ways and ways != ["clusters"] and (given or own):
            others = [*given, *(f"{split}_path" for split in own)]
            raise ConfigError(f"data.{ways[0]}: says where each record goes already. Leave out {_keys(others)}.")
        for split in ("val", "test"):
            both = [key for key in given if key.startswith(split)]
            if len(both) > 1:
                raise ConfigError(f"{_keys(both)}: both say how much {split} gets. Keep one.")
            if both and split in own:
                raise ConfigError(f"data.{split}_path: is all of the {split} split. Leave out {_keys(both)}.")
        if ways == ["clusters"] and {"val", "test"} <= set(own):
            raise ConfigError(
                "data.clusters: nothing is split, val_path and test_path are given. Leave one of them out."
            )

    def columns(self, format_name: str) -> tuple[str, ...]:
        """The columns that must be stored so that the records can say their split.

        Raises:
            ConfigError: files of this format have none such.
        """
        if self.split_file is not None:
            return ()
        return split_columns(format_name, self.split_column, self.split_headers)

    def indices(self, store: PreparedStore, own: Collection[str] = (), *, windowed: bool = False) -> SplitIndices:
        """Which records of `store` go where.

        Args:
            store: the records.
            own: the splits that have files of their own; nothing is split off for them.
            windowed: long records were cut; their windows then stay together.

        Raises:
            ConfigError: the options contradict each other, or nothing is left to train on.
            DataError: a file or a record does not say a split that can be used.
        """
        self.check(own)
        if self.split_file is not None:
            return split_by_file(store, Path(self.split_file), self.split_column, self.id_column)
        if self.split_column is not None:
            return split_by_column(store, self.split_column, parse_split_name, "data.split_column")
        if self.split_headers:
            return split_by_column(store, DESCRIPTION, parse_split_header, "data.split_headers")
        val_size, test_size = (0 if split in own else self._size(len(store), split) for split in ("val", "test"))
        if self.clusters_column is not None:
            families = [store.column(row, self.clusters_column) for row in range(len(store))]
            return split_families(families, val_size, test_size, self.split_seed, f"{self.clusters_column}s")
        if self.clusters is not None:
            clusters = read_clusters(Path(self.clusters).expanduser())
            return split_by_clusters(store.ids(), clusters, val_size, test_size, self.split_seed)
        if windowed:
            return split_groups(_records_of_windows(store), val_size, test_size, self.split_seed, "records")
        return split_at_random(len(store), val_size, test_size, self.split_seed)

    def warn_of_shared_clusters(
        self, store: PreparedStore, parts: SplitIndices, own: Mapping[str, PreparedStore]
    ) -> None:
        """Warn of clusters that files of their own have in common with what trains: nothing moves these apart."""
        column = self.clusters_column
        if column is None or not own:
            return
        trained = {store.column(row, column) for row in parts.train.tolist()}
        for split, other in own.items():
            found = {other.column(row, column) for row in range(len(other))}
            if shared := len(found & trained):
                log.warning(
                    "data.%s_path: %d of its %d %ss are in training too; what is split keeps them together, files of "
                    "their own stay as they are.",
                    split,
                    shared,
                    len(found),
                    column,
                )

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


def _records_of_windows(store: PreparedStore) -> "np.ndarray[tuple[int], np.dtype[np.int64]]":
    """The number of the record that each row was cut from; its windows are neighbours. Shape [rows]."""
    groups = np.zeros(len(store), dtype=np.int64)
    previous, number = None, -1
    for row in range(len(store)):
        name = WINDOW.sub("", store.id(row))
        number += name != previous
        groups[row], previous = number, name
    return groups
