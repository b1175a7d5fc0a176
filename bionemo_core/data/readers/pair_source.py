"""A reader of pairs: two columns of a table become one text, the source and the target with a tab between."""

from collections.abc import Iterator
from pathlib import Path

from bionemo_core.data.pair_records import PAIR_SEPARATOR
from bionemo_core.data.readers.records import Record, Source


class PairSource:
    """The rows of a table with the source in the sequence column and the target in the first of the others."""

    def __init__(self, table: Source) -> None:
        """Take the reader of the table."""
        self._table = table
        self.kind = table.kind
        self.paths = table.paths
        self.columns = table.columns[1:]

    @property
    def options(self) -> dict[str, object]:
        """Return the options of the table and the name of the target column."""
        return {**self._table.options, "target": self._table.columns[0]}

    def records(self, path: Path) -> Iterator[Record]:
        """Yield the pairs of one file.

        Raises:
            DataError: the file cannot be read, or lacks a column.
        """
        for record in self._table.records(path):
            target, *others = record.columns or (b"",)
            sides = record.sequence.strip(), target.strip()
            problem = record.problem
            if not problem and any(PAIR_SEPARATOR in side for side in sides):
                problem = "a tab within a text"
            yield record._replace(sequence=PAIR_SEPARATOR.join(sides), columns=tuple(others), problem=problem)
