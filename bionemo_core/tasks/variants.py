"""Reading a table of variants and their wild type for `task=predict`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from bionemo_core.data.readers import CsvSource, FastaSource, Record
from bionemo_core.data.readers.key_names import VARIANT_KEYS
from bionemo_core.data.readers.tables import read_column_names
from bionemo_core.errors import ConfigError, DataError
from bionemo_core.inference.scoring import Mutation, read_variant
from bionemo_core.protocols import Tokenizer
from bionemo_core.tasks.input_file import layout_options
from bionemo_core.tasks.settings import Predict

ON_INVALID = ("error", "skip")
REJECTED = "rejected"
"""The column with the reason for a record without a prediction."""
_LISTED = 10
"""Rows that cannot be scored that a message lists."""


@dataclass(frozen=True)
class VariantRow:
    """One row of the table."""

    text: str
    mutations: list[Mutation]
    reason: str
    """Why it cannot be scored; empty if it can."""
    columns: tuple[str, ...]
    """The values of the other columns."""
    line: int


@dataclass(frozen=True)
class VariantTable:
    """All rows of a table of variants, in its order."""

    rows: list[VariantRow]
    other_columns: list[str]

    @property
    def scored(self) -> list[VariantRow]:
        """The rows that can be scored."""
        return [row for row in self.rows if not row.reason]

    @property
    def left_out(self) -> str:
        """How many rows have no score; empty if all have one."""
        count = sum(bool(row.reason) for row in self.rows)
        return f"{count:,} rows have no score; see the column {REJECTED}" if count else ""


def read_variants(task: Predict, wild_type: str, tokenizer: Tokenizer) -> VariantTable:
    """Read the column `task.variant_column` of `task.variants`, and its other columns as they are.

    Raises:
        ConfigError: `task.on_invalid` is neither error nor skip.
        DataError: the file cannot be read, no row can be scored, or `task.on_invalid=error` and a row cannot be.
    """
    if task.on_invalid not in ON_INVALID:
        raise ConfigError(
            f"task.on_invalid: got {task.on_invalid!r}; a variant can be scored or not, so expected one of "
            f"{', '.join(ON_INVALID)}."
        )
    path = Path(str(task.variants)).expanduser()
    layout = layout_options(task, "csv")
    others = [name for name in read_column_names(path, "csv", **layout) if name != task.variant_column]
    source = CsvSource(path, column=task.variant_column, columns=others, keys=VARIANT_KEYS, **layout)
    table = VariantTable([_read_row(record, task, wild_type, tokenizer) for record in source.records(path)], others)
    bad = [row for row in table.rows if row.reason]
    if bad and (task.on_invalid == "error" or not table.scored):
        listed = "\n".join(f"  {task.variants}:{row.line}: {row.reason}" for row in bad[:_LISTED])
        more = f"\n  and {len(bad) - _LISTED:,} more rows" if len(bad) > _LISTED else ""
        advice = "\nKeep such rows without a score with task.on_invalid=skip." if table.scored else ""
        raise DataError(f"{len(bad):,} of {len(table.rows):,} variants cannot be scored:\n{listed}{more}{advice}")
    return table


def _read_row(record: Record, task: Predict, wild_type: str, tokenizer: Tokenizer) -> VariantRow:
    text, mutations, reason = record.sequence.decode("latin-1").strip(), list[Mutation](), ""
    try:
        if record.problem:
            raise DataError(f"{record.problem}.")
        mutations = read_variant(text, wild_type, task.first_position)
        _check_letters(text, mutations, tokenizer)
    except DataError as error:
        reason = str(error)
    columns = tuple(value.decode("utf-8", errors="replace") for value in record.columns)
    return VariantRow(text, mutations, reason, columns, record.line)


def read_wild_type(given: str) -> str:
    """Return the wild type, in upper case: the first record of the FASTA file `given`, or `given` itself.

    Raises:
        ConfigError: it is neither a file nor a sequence.
        DataError: the file has no records.
    """
    path = Path(given).expanduser()
    if not path.is_file():
        if not given.isalpha():
            raise ConfigError(f"task.wild_type={given[:60]}: expected a file or a sequence of residues.")
        return given.upper()
    record = next(iter(FastaSource(path).records(path)), None)
    if record is None:
        raise DataError(f"fasta: {path}: the file has no records.")
    return b"".join(record.sequence.split()).decode("latin-1").upper()


def _check_letters(text: str, mutations: list[Mutation], tokenizer: Tokenizer) -> None:
    for mutation in mutations:
        if int(tokenizer.encode(mutation.mutant)[0]) == tokenizer.unk_id:
            raise DataError(f"variant {text!r}: the model does not know the residue {mutation.mutant!r}.")
