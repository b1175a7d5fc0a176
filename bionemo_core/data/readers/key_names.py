"""The keys by which a user sets the options of a reader: data sources and tasks name them differently."""

from typing import NamedTuple


class KeyNames(NamedTuple):
    """The names for messages; an empty one means that there is no such key, so no message advises to set it."""

    column: str = "data.column"
    """The key for the name of the sequence column."""
    number: str = "data.data_col"
    """The key for the number of the sequence column."""
    separator: str = "data.data_sep"
    header_lines: str = "data.header_lines"
    format: str = "data.format"

    @property
    def of_column(self) -> str:
        """How to choose the sequence column: `data.column, or by number with data.data_col`."""
        return f"{self.column}, or by number with {self.number}" if self.number else self.column


DATA_KEYS = KeyNames()
LABELLED_KEYS = KeyNames("data.sequence_column, and the labels with data.target_column", "", format="")
TASK_KEYS = KeyNames("task.sequence_column", "", "task.separator", "task.header_lines", "task.format")
VARIANT_KEYS = KeyNames("task.variant_column", "", "task.separator", "task.header_lines", "")
