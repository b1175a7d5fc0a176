"""Reading a table of variants and their wild type for `task=predict`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from bionemo_core.data.mutations import Mutation, compare, mutate, read_variant
from bionemo_core.data.readers import CsvSource, FastaSource, Record, decode_text, split_extension
from bionemo_core.data.readers.key_names import REFERENCE_KEYS, VARIANT_KEYS
from bionemo_core.data.readers.tables import match_column, read_column_names
from bionemo_core.errors import ConfigError, DataError
from bionemo_core.inference.scoring import (
    LIKELIHOODS,
    MASKED,
    PSEUDO_LIKELIHOOD,
    MaskedScorer,
    check_method,
    pair_windows,
)
from bionemo_core.plurals import format_count
from bionemo_core.protocols import Tokenizer
from bionemo_core.tasks.input_file import layout_options
from bionemo_core.tasks.settings import Predict

ON_INVALID = ("error", "skip")
REJECTED = "rejected"
"""The column with the reason for a record without a prediction."""
MUTATED_SEQUENCE = "mutated_sequence"
"""ProteinGym's column of whole sequences, which its files of insertions and deletions have alone."""
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
    strategy: str
    """How they are scored: `task.scoring`, or what suits all of them."""

    @property
    def scored(self) -> list[VariantRow]:
        """The rows that can be scored."""
        return [row for row in self.rows if not row.reason]

    @property
    def left_out(self) -> str:
        """How many rows have no score; empty if all have one."""
        count = sum(bool(row.reason) for row in self.rows)
        return f"{format_count(count, 'row has', 'rows have')} no score; see the column {REJECTED}" if count else ""


def read_variants(task: Predict, wild_type: str, tokenizer: Tokenizer, max_residues: int) -> VariantTable:
    """Read the column `task.variant_column` of `task.variants`, and its other columns as they are.

    A table without that column may have `mutated_sequence`: the whole sequence of each variant.

    Raises:
        ConfigError: `task.on_invalid` is neither error nor skip, or `task.scoring` is unknown.
        DataError: the file cannot be read, no row can be scored, or `task.on_invalid=error` and a row cannot be.
    """
    if task.on_invalid not in ON_INVALID:
        raise ConfigError(
            f"task.on_invalid: got {task.on_invalid!r}, expected one of {', '.join(ON_INVALID)}, because a variant "
            "can be scored or not."
        )
    path = Path(str(task.variants)).expanduser()
    layout = layout_options(task, "csv")
    names = read_column_names(path, "csv", **layout)
    default = task.variant_column == Predict.variant_column and not match_column(names, task.variant_column)
    column = MUTATED_SEQUENCE if default and MUTATED_SEQUENCE in names else task.variant_column
    own = match_column(names, column)[:1]
    others = [name for number, name in enumerate(names) if number not in own]
    source = CsvSource(path, column=column, columns=others, keys=VARIANT_KEYS, **layout)

    def read(text: str) -> list[Mutation]:
        if column == MUTATED_SEQUENCE:
            return _read_sequence(text, wild_type)
        return read_variant(text, wild_type, task.first_position)

    rows = [_read_row(record, read, tokenizer) for record in source.records(path)]
    strategy = _choose_strategy(task.scoring, rows)
    limit = max_residues if task.on_long == "error" else 0
    rows = [row if row.reason else _check_fit(row, wild_type, strategy, max_residues, limit) for row in rows]
    table = VariantTable(rows, others, strategy)
    bad = [row for row in table.rows if row.reason]
    if bad and (task.on_invalid == "error" or not table.scored):
        listed = "\n".join(f"  {task.variants}:{row.line}: {row.reason}" for row in bad[:_LISTED])
        more = f"\n  and {format_count(len(bad) - _LISTED, 'more row')}" if len(bad) > _LISTED else ""
        advice = "\nKeep such rows without a score with task.on_invalid=skip." if table.scored else ""
        raise DataError(
            f"{len(bad):,} of {format_count(len(table.rows), 'variant')} cannot be scored:\n{listed}{more}{advice}"
        )
    return table


def read_given_variants(
    texts: Sequence[str],
    wild_type: str,
    scorer: MaskedScorer,
    *,
    first_position: int,
    scoring: str | None,
    window: bool,
) -> tuple[list[list[Mutation]], str]:
    """Return the mutations of each variant of a list, and the strategy that scores them all.

    Raises:
        DataError: a variant cannot be scored; the message gives its number.
    """

    def read(text: str) -> list[Mutation]:
        return read_variant(text, wild_type, first_position)

    records = (Record(b"", text.encode("utf-8", errors="replace"), line) for line, text in enumerate(texts, start=1))
    rows = [_read_row(record, read, scorer.tokenizer) for record in records]
    strategy = _choose_strategy(scoring, rows)
    most = scorer.max_residues
    checked = (row if row.reason else _check_fit(row, wild_type, strategy, most, 0 if window else most) for row in rows)
    for row in checked:
        if row.reason:
            raise DataError(f"variants: number {row.line}: {row.reason}")
    return [row.mutations for row in rows], strategy


def _read_row(record: Record, read: Callable[[str], list[Mutation]], tokenizer: Tokenizer) -> VariantRow:
    text, mutations, reason = record.sequence.decode("utf-8", errors="replace").strip(), list[Mutation](), ""
    try:
        if record.problem:
            raise DataError(f"{record.problem}.")
        mutations = read(text)
        _check_letters(text, mutations, tokenizer)
    except DataError as error:
        reason = str(error)
    columns = tuple(map(decode_text, record.columns))
    return VariantRow(text, mutations, reason, columns, record.line)


def _read_sequence(text: str, wild_type: str) -> list[Mutation]:
    if not text.isalpha():
        raise DataError(f"sequence {text[:20]!r}: expected the letters of residues.")
    return compare(text.upper(), wild_type)


def _choose_strategy(given: str | None, rows: list[VariantRow]) -> str:
    if given is not None:
        return check_method(given)
    substitutions = all(one.is_substitution for row in rows for one in row.mutations)
    return MASKED if substitutions else PSEUDO_LIKELIHOOD


def _check_fit(row: VariantRow, wild_type: str, strategy: str, max_residues: int, limit: int) -> VariantRow:
    """Return the row, with a reason if the strategy cannot score it; `limit` 0: any length has a window."""
    try:
        if strategy not in LIKELIHOODS:
            if not all(one.is_substitution for one in row.mutations):
                raise DataError(
                    f"variant {row.text!r}: an insertion or deletion has no marginals. Set "
                    f"task.scoring={PSEUDO_LIKELIHOOD}."
                )
            return row
        length = len(mutate(wild_type, row.mutations))
        if not length:
            raise DataError(f"variant {row.text!r}: no residue is left.")
        if limit and length > limit:
            raise DataError(
                f"variant {row.text[:40]!r}: has {length:,} residues, but the model takes {limit:,}. Set "
                "task.on_long=window to score it by a window around the mutation."
            )
        pair_windows(row.mutations, wild_type, max_residues)
    except DataError as error:
        return replace(row, reason=str(error))
    return row


def read_wild_type(given: str, variants: str | None = None) -> str:
    """Return the wild type, in upper case: from a file, or `given` itself.

    The file is FASTA, whose first record counts, or ProteinGym's reference table, whose row has the name of the file
    `variants` as its `DMS_id` or `DMS_filename`.

    Raises:
        ConfigError: it is neither a file nor a sequence.
        DataError: the file has no records, or no row of that name.
    """
    path = Path(given).expanduser()
    if not path.is_file():
        if not given.isalpha():
            raise ConfigError(f"task.wild_type={given[:60]}: expected a file or a sequence of residues.")
        return given.upper()
    if split_extension(path.name)[1] == ".csv":
        return _read_reference(path, variants)
    record = next(iter(FastaSource(path).records(path)), None)
    if record is None:
        raise DataError(f"fasta: {path}: the file has no records.")
    return b"".join(record.sequence.split()).decode("latin-1").upper()


def _read_reference(path: Path, variants: str | None) -> str:
    if variants is None:
        raise ConfigError(f"task.wild_type={path}: a table of assays has many proteins. Give one sequence instead.")
    names = [name for name in ("DMS_filename",) if name in read_column_names(path, "csv")]
    assay = Path(variants).name
    for record in CsvSource(path, "target_seq", id_column="DMS_id", columns=names, keys=REFERENCE_KEYS).records(path):
        texts = [*map(decode_text, (record.id, *record.columns))]
        if assay in (f"{texts[0]}.csv", *texts):
            return record.sequence.decode("latin-1").upper()
    raise DataError(
        f"task.wild_type={path}: no row has the DMS_id {Path(assay).stem!r}, the name of task.variants. Give the file "
        "its published name, or the sequence itself."
    )


def _check_letters(text: str, mutations: list[Mutation], tokenizer: Tokenizer) -> None:
    for letter in "".join(mutation.mutant for mutation in mutations):
        if int(tokenizer.encode(letter)[0]) == tokenizer.unk_id:
            raise DataError(f"variant {text[:40]!r}: the model does not know the residue {letter!r}.")
