"""The split of one table of labelled sequences: at random, by a column, or by families of relatives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bionemo_core.data.labelled_records import LabelledRecords, LabelledSplits
from bionemo_core.data.splits.indices import (
    FRACTIONS,
    SplitIndices,
    fraction_to_size,
    read_clusters,
    split_at_random,
    split_by_clusters,
    split_families,
)
from bionemo_core.data.splits.labels import parse_split_name, split_by_values
from bionemo_core.data.splits.shared import warn_of_shared_sequences
from bionemo_core.errors import ConfigError
from bionemo_core.protocols import Family, Tokenizer

IDENTICAL = "identical"
"""The family of records with the same sequence."""
_OF_RANDOM_SPLITS = {"val_fraction": 0.15, "test_fraction": 0.15, "split_seed": 0}
"""The defaults of the keys that nothing reads if the table or its folders decide the splits."""
_KEEP_TOGETHER = "Keep equal sequences in one split with data.clusters=identical."


@dataclass(frozen=True)
class TableSplit:
    """The options of the split; the names are the component's keys."""

    val_fraction: float
    test_fraction: float
    clusters: str | None
    split_column: str | None
    split_seed: int

    def check(self, of_folders: bool) -> None:
        """Check that the options do not contradict each other.

        Raises:
            ConfigError: two ways to split are given, one although each split has a folder (`of_folders`), or sizes of
                splits that are decided already.
        """
        ways = [f"data.{key}" for key in ("clusters", "split_column") if getattr(self, key) is not None]
        if ways and of_folders:
            raise ConfigError(
                f"{ways[0]}: data.dataset_path has a folder for each split. Remove the key, or name one table."
            )
        if len(ways) > 1:
            raise ConfigError(f"{' and '.join(ways)}: are different ways to split. Keep one of them.")
        if of_folders or self.split_column is not None:
            decided = "each split has a folder" if of_folders else "data.split_column decides the splits"
            given = {key: getattr(self, key) for key in _OF_RANDOM_SPLITS}
            changed = [key for key, value in given.items() if value != _OF_RANDOM_SPLITS[key]]
            # A share of 0 says of folders that there is no such split, which is true.
            if unread := [key for key in changed if given[key] or not of_folders]:
                raise ConfigError(f"data.{unread[0]}: has no effect, because {decided}. Leave it out.")

    def of(self, records: LabelledRecords, words: Sequence[bytes], tokenizer: Tokenizer) -> LabelledSplits:
        """Split the rows of a table.

        Args:
            records: the rows.
            words: the value of `split_column` in each row, if a column is named.
            tokenizer: may define families of relatives.

        Raises:
            ConfigError: nothing is left to train on, or `clusters` is neither a family nor a table.
            DataError: a row has no split or no cluster.
        """
        parts = self._indices(records, words, tokenizer)
        val, test = (records.select(rows) if rows.size else None for rows in (parts.val, parts.test))
        splits = LabelledSplits.from_parts(records.select(parts.train), val, test)
        at_random = self.clusters is None and self.split_column is None
        warn_of_shared_sequences(splits.parts(), _KEEP_TOGETHER if at_random else "Change the table of the split.")
        return splits

    def _indices(self, records: LabelledRecords, words: Sequence[bytes], tokenizer: Tokenizer) -> SplitIndices:
        if self.split_column is not None:
            return split_by_values(zip(records.ids, words, strict=True), parse_split_name, "data.split_column")
        val_size = fraction_to_size(len(records), self.val_fraction, FRACTIONS[0])
        test_size = fraction_to_size(len(records), self.test_fraction, FRACTIONS[1])
        if self.clusters is None:
            return split_at_random(len(records), val_size, test_size, self.split_seed, FRACTIONS)
        families: Mapping[str, Family] = {**getattr(tokenizer, "families", {}), IDENTICAL: bytes}
        if (family := families.get(self.clusters)) is not None:
            labels = [family(sequence) for sequence in records.sequences]
            return split_families(labels, val_size, test_size, self.split_seed, f"{self.clusters}s", FRACTIONS)
        path = Path(self.clusters).expanduser()
        if not path.is_file():
            known = f", or one of: {', '.join(families)}"
            raise ConfigError(
                f"data.clusters: {self.clusters}: there is no such file. Give a table of clusters{known}."
            )
        return split_by_clusters(records.ids, read_clusters(path), val_size, test_size, self.split_seed, FRACTIONS)
