"""The keys by which a user sets the options of a reader: data sources and tasks name them differently."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from bionemo_core.plugins.did_you_mean import did_you_mean

_SHOWN_NAMES, _SHOWN_LETTERS = 20, 40


class KeyNames(NamedTuple):
    """The names for messages; an empty one means that there is no such key, so no message advises to set it."""

    column: str = "data.column"
    """The key for the name of the sequence column."""
    number: str = "data.data_col"
    """The key for the number of the sequence column."""
    separator: str = "data.data_sep"
    header_lines: str = "data.header_lines"
    format: str = "data.format"
    id_column: str = "data.id_column"
    further: Mapping[str, str] = MappingProxyType({})
    """The key that named each further column."""

    @property
    def of_column(self) -> str:
        """How to choose the sequence column: `data.column, or by number with data.data_col`."""
        return f"{self.column}, or by number with {self.number}" if self.number else self.column

    def advise(self, wanted: str, key: str, names: Sequence[str]) -> str:
        """Return what a header has, and how to name one of its columns; for a column that it lacks.

        Args:
            wanted: the column that the header lacks, or has more than once.
            key: the key that names it; empty: there is none.
            names: the columns of the header.
        """
        cut = [name if len(name) <= _SHOWN_LETTERS else f"{name[:_SHOWN_LETTERS]}..." for name in names[:_SHOWN_NAMES]]
        more = f" and {len(names) - _SHOWN_NAMES} more" if len(names) > _SHOWN_NAMES else ""
        if wanted in names:
            return f"has {', '.join(cut)}{more}. Give each column a name of its own in the file."
        close = did_you_mean(wanted, names)
        return f"has {', '.join(cut) or 'nothing'}{more}.{close}" + (f" Name one of these with {key}." if key else "")


DATA_KEYS = KeyNames()
LABELLED_KEYS = KeyNames("data.sequence_column", "", format="")
LABELLED_PAIR_KEYS = KeyNames("data.first_column", "", format="")
TASK_KEYS = KeyNames(
    "task.sequence_column", "", "task.separator", "task.header_lines", "task.format", id_column="task.id_column"
)
VARIANT_KEYS = KeyNames("task.variant_column", "", "task.separator", "task.header_lines", "", id_column="")
SPLIT_FILE_KEYS = KeyNames("data.split_column", "", "", "", "")
REFERENCE_KEYS = KeyNames("", "", "", "", "", id_column="")
"""Of ProteinGym's reference table, whose columns have the names of its publishers."""
PAIR_KEYS = KeyNames("data.source_column", "")
REACTION_KEYS = KeyNames("data.reaction_column", "")
