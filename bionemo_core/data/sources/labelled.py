"""Data components with labels: v1's tables, and the FASTA files of the FLIP benchmark.

No `from __future__ import annotations` and no unions but `Optional` here: the configuration reads these signatures.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Optional

from bionemo_core.errors import ConfigError, DataError
from bionemo_core.plurals import format_count
from bionemo_core.protocols import BuildContext, DataSplits, Tokenizer
from bionemo_core.ranges import Count, Natural, Share

if TYPE_CHECKING:
    from bionemo_core.data.labelled_records import LabelledRecords

TARGET = "target"
"""The column of the label if none is named."""


# Long: a signature that is its keys, and their help.
def labelled_csv(
    dataset_path: str,
    train: str = "x000",
    val: str = "x000",
    test: str = "x000",
    sequence_column: str = "sequence",
    target_column: str = TARGET,
    mask_column: Optional[str] = None,
    id_column: Optional[str] = None,
    data_sep: str = ",",
    header_lines: Count = 1,
    val_fraction: Share = 0.15,
    test_fraction: Share = 0.15,
    clusters: Optional[str] = None,
    split_column: Optional[str] = None,
    validation_column: Optional[str] = None,
    target_columns: Optional[list[str]] = None,
    split_seed: Natural = 0,
    on_invalid: str = "skip",
    canonicalize: bool = True,
    *,
    tokenizer: Tokenizer,
    context: BuildContext,
) -> DataSplits:
    """Read labelled sequences from tables: `<dataset_path>/{train,val,test}/x000.csv`, or one file that is split.

    A file that ends in `.parquet` or `.sdf` is read as such; the columns of an SD file are its properties.

    Args:
        dataset_path: the folder with `train`, `val` and `test`, or one file.
        train: the training shards, `x000` or `x[000..003]`.
        val: the validation shards; empty: none.
        test: the test shards; empty: none.
        sequence_column: the name of the column of the sequence.
        target_column: the column of the label: a number, a class, or one letter per residue.
        mask_column: the column of a string of 0 and 1, one per residue; null: every label counts.
        id_column: the column of the id; null: `id` if there is one, else `file:line`.
        data_sep: one character that separates columns.
        header_lines: lines at the top of each file; the last has the names of the columns.
        val_fraction: the share of one table for validation, if no column names the split.
        test_fraction: the share of one table for testing, if no column names the split.
        clusters: keep relatives in one split: a table `cluster_id<TAB>member_id`, `identical` for equal sequences, or
            a family of the tokenizer such as `scaffold` for molecules; null: split rows at random.
        split_column: the column of one table with train, val (valid, validation) or test.
        validation_column: with `split_column`, training rows with True in this column validate, as in FLIP's tables.
        target_columns: several columns of labels of the whole sequence, in place of `target_column`: numbers, or yes
            and no; an empty cell is a missing label.
        split_seed: the seed of the split; independent of the run's seed.
        on_invalid: action for a letter outside the tokenizer's alphabet: skip the record, error, or unk to keep it.
        canonicalize: convert texts such as SMILES to their canonical form; set false for labels of single tokens.

    Raises:
        ConfigError: a range or an option is not valid.
        DataError: a file is missing or is not a table with these columns.
    """
    from bionemo_core.data.labelled_records import LabelledSplits
    from bionemo_core.data.sources.shard_ranges import expand_range
    from bionemo_core.data.splits.shared import warn_of_shared_sequences
    from bionemo_core.data.splits.table import TableSplit

    if validation_column and not split_column:
        raise ConfigError("data.validation_column: divides the training rows of data.split_column. Set that too.")
    check_target_columns(target_columns, target_column, mask_column)
    columns = _Columns(
        sequence_column,
        target_column,
        mask_column or "",
        id_column or "",
        split_column or "",
        validation_column or "",
        tuple(target_columns or ()),
    )
    layout = {"separator": data_sep, "header_lines": header_lines}

    def read_table(paths: list[Path]) -> "tuple[LabelledRecords, list[bytes]]":
        return _read_table(paths, columns, layout, on_invalid, canonicalize, tokenizer)

    root = Path(dataset_path).expanduser()
    split = TableSplit(val_fraction, test_fraction, clusters or None, split_column or None, split_seed)
    split.check(root.is_dir())
    if root.is_dir():
        parts: dict[str, Any] = {}
        for name, shards in (("train", train), ("val", val), ("test", test)):
            paths = expand_range(root / name, shards, f"data.{name}") if shards else []
            parts[name] = read_table(paths)[0] if paths else None
        if parts["train"] is None:
            raise ConfigError("data.train: got '', expected shards. Give a range such as x000.")
        warn_of_shared_sequences(parts, "Remove them from one of the files.")
        return LabelledSplits.from_parts(**parts)
    records, words = read_table([root])
    return split.of(records, words, tokenizer)


# Long: a signature that is its keys, and their help.
def flip_fasta(
    sequences: str,
    labels: Optional[str] = None,
    mask: Optional[str] = None,
    target: str = "TARGET",
    on_invalid: str = "skip",
    *,
    tokenizer: Tokenizer,
    context: BuildContext,
) -> DataSplits:
    """Read FASTA files of the FLIP benchmark; `SET=` and `VALIDATION=` in a header name the split.

    Args:
        sequences: the sequences; without `labels`, their headers have `TARGET=`, `SET=` and `VALIDATION=`.
        labels: a FASTA file with one letter per residue, and `SET=` and `VALIDATION=` in its headers.
        mask: a FASTA file with 1 or 0 per residue: whether its label counts.
        target: the attribute of a header with the label, if `labels` is not given.
        on_invalid: action for a letter outside the tokenizer's alphabet: skip the record, error, or unk to keep it.

    Raises:
        DataError: a file cannot be read, an attribute is missing, or lengths differ.
    """
    from bionemo_core.data.labelled_records import LabelledRecords, LabelledSplits
    from bionemo_core.data.readers import decode_text
    from bionemo_core.data.splits.shared import warn_of_shared_sequences

    where = f"flip: {sequences}"
    texts = _read_fasta(sequences)
    answers = _read_fasta(labels) if labels else {}
    masks = {name: text.decode() for name, (_, text) in _read_fasta(mask).items()} if mask else {}
    rows: dict[str, list[tuple[str, bytes, str, str]]] = {"train": [], "val": [], "test": []}
    problems: list[str] = []
    clean = Cleaner(tokenizer, on_invalid, where)
    for name, (header, text) in texts.items():
        if labels and name not in answers:
            clean.reject("no label", name)
            continue
        if labels:
            header, letters = answers[name]
            label = decode_text(letters)
        else:
            label = _parse_attribute(header, target, name, where)
        if mask and name not in masks:
            clean.reject("no mask", name)
            continue
        split = _parse_split(header, name, where)
        sequence = clean(name, text)
        if sequence is not None:
            problems += _length_problems(name, sequence, label if labels else "", masks.get(name, ""))
            rows[split].append((name, sequence, label, masks.get(name, "")))
    if problems:
        more = f"; and {len(problems) - 10} more" if len(problems) > 10 else ""
        raise DataError(f"{where}: {'; '.join(problems[:10])}{more}. Correct the files.")
    for name in answers:
        if name not in texts:
            clean.reject("a label without a sequence", name)
    clean.report(sum(map(len, rows.values())))
    made = {split: LabelledRecords.of(some, where) if some else None for split, some in rows.items()}
    if made["train"] is None:
        raise DataError(f"{where}: no record has SET=train, expected at least one. Check the headers.")
    warn_of_shared_sequences(made, "Change SET= in their headers.")
    return LabelledSplits.from_parts(made["train"], made["val"], made["test"])


def _read_fasta(path: str) -> dict[str, tuple[str, bytes]]:
    """Read the header and the sequence of each record, by its id.

    Raises:
        DataError: the file cannot be read, or an id occurs twice.
    """
    from bionemo_core.data.readers import FastaSource, decode_text

    records: dict[str, tuple[str, bytes]] = {}
    source = FastaSource(Path(path).expanduser(), columns=("description",))
    for record in source.records(source.paths[0]):
        name = decode_text(record.id)
        if name in records:
            raise DataError(f"flip: {path}:{record.line}: id {name!r} occurs twice. Remove one of the records.")
        header = decode_text(record.columns[0]) if record.columns else ""
        records[name] = (header, b"".join(record.sequence.split()))
    return records


def _parse_attribute(header: str, key: str, name: str, where: str) -> str:
    for word in header.split():
        found, separator, value = word.partition("=")
        if separator and found.upper() == key.upper():
            return value
    raise DataError(f"{where}: the header of {name!r} has no {key}=..., it has {header[:80]!r}.")


def _parse_split(header: str, name: str, where: str) -> str:
    split = _parse_attribute(header, "SET", name, where).lower()
    if split not in ("train", "test"):
        raise DataError(f"{where}: {name!r} has SET={split}, expected train or test.")
    validation = split == "train" and _parse_attribute(header, "VALIDATION", name, where).lower() == "true"
    return "val" if validation else split


class _Columns(NamedTuple):
    """The names of the columns of a table; empty: there is none."""

    sequence: str
    target: str
    mask: str
    id: str
    split: str
    validation: str
    targets: tuple[str, ...] = ()
    """Several columns of labels, in place of `target`."""

    @property
    def labels(self) -> tuple[str, ...]:
        """Return the columns of labels."""
        return self.targets or (self.target,)

    @property
    def keys(self) -> dict[str, str]:
        """Return the key that named each column besides those of the sequence and the id."""
        labels = dict.fromkeys(self.labels, "data.target_columns" if self.targets else "data.target_column")
        others = (
            (self.mask, "data.mask_column"),
            (self.split, "data.split_column"),
            (self.validation, "data.validation_column"),
        )
        return {**{name: key for name, key in others if name}, **labels}


def check_target_columns(columns: Optional[list[str]], column: str, mask_column: Optional[str]) -> None:
    """Check `data.target_columns`.

    Raises:
        ConfigError: it is empty, names a column twice, or stands beside one column or a mask of residues.
    """
    if columns is None:
        return
    if not columns or len(set(columns)) < len(columns):
        raise ConfigError(f"data.target_columns: got {columns}, expected the names of different columns.")
    if column != TARGET:
        raise ConfigError("data.target_column and data.target_columns are both given. Keep one of them.")
    if mask_column:
        raise ConfigError(
            "data.mask_column: is for labels of residues, but data.target_columns has labels of whole sequences. Leave "
            "one of them out."
        )


def _read_table(
    paths: list[Path],
    columns: _Columns,
    layout: dict[str, Any],
    on_invalid: str,
    canonicalize: bool,
    tokenizer: Tokenizer,
) -> "tuple[LabelledRecords, list[bytes]]":
    """Read the used rows, and the value of the split column in each, if one is named."""
    from bionemo_core.data.labelled_records import TARGET_SEPARATOR, LabelledRecords
    from bionemo_core.data.readers import decode_text
    from bionemo_core.data.sources.labelled_source import labelled_source

    source = labelled_source(paths, columns.sequence, columns.id, columns.keys, layout)
    where = f"{source.kind}: {paths[0]}"
    clean = Cleaner(tokenizer, on_invalid, where, canonicalize)
    rows, split_words = [], []
    for path in paths:
        for record in source.records(path):
            name = decode_text(record.id)
            if record.problem:
                clean.reject(record.problem, name)
                continue
            values = dict(zip(source.columns, record.columns, strict=True))
            words = [decode_text(values[column]).strip() for column in columns.labels]
            if not any(words):
                clean.reject("no label", name)
                continue
            sequence = clean(name, record.sequence)
            mask = decode_text(values.get(columns.mask, b"")).strip()
            if sequence is not None:
                rows.append((name, sequence, TARGET_SEPARATOR.join(words), mask))
                split_words += [_split_word(values, columns)] if columns.split else []
    clean.report(len(rows))
    return LabelledRecords.of(rows, where, columns.targets), split_words


def _split_word(values: dict[str, bytes], columns: _Columns) -> bytes:
    """Return the name of the split; a training row is for validation if the table says so in a column of its own."""
    word = values[columns.split]
    of_training = word.strip().lower() == b"train"
    return b"val" if of_training and values.get(columns.validation, b"").strip().lower() == b"true" else word


def _length_problems(name: str, sequence: bytes, label: str, mask: str) -> list[str]:
    return [
        f"{name!r} has {format_count(len(sequence), 'residue')} and {format_count(len(text), what)}"
        for what, text in (("label", label), ("mask letter", mask))
        if text and len(text) != len(sequence)
    ]


class Cleaner:
    """The filter of labelled sequences for one tokenizer; it counts the rejected ones."""

    def __init__(self, tokenizer: Tokenizer, on_invalid: str, where: str, canonicalize: bool = False) -> None:
        from bionemo_core.data.store.text_filter import filter_for

        tokenizer = getattr(tokenizer, "first_tokenizer", tokenizer)  # of pairs
        self._rules = filter_for(tokenizer, on_invalid, canonicalize=canonicalize, key="data.on_invalid")
        self._where = where
        self._rejected: dict[str, list[str]] = {}

    def __call__(self, name: str, sequence: bytes) -> Optional[bytes]:
        """Return the sequence as the tokenizer reads it; None if it is rejected.

        Raises:
            DataError: the rules treat the record as an error.
        """
        from bionemo_core.data.readers import Record

        result = self._rules.apply(Record(name.encode("latin-1"), sequence, 0))
        if result.fatal:
            raise DataError(f"{self._where} record {name!r}{result.detail}")
        if not result.sequences:
            self.reject(result.reason, name)
            return None
        return result.sequences[0]

    def reject(self, reason: str, name: str) -> None:
        """Count a rejected record."""
        self._rejected.setdefault(reason, []).append(name)

    def add(self, other: "Cleaner", prefix: str) -> None:
        """Count what another filter rejected, with a prefix before its reasons."""
        for reason, names in other._rejected.items():
            self._rejected.setdefault(f"{prefix}{reason}", []).extend(names)

    def report(self, used: int) -> None:
        """Log how many records were used and rejected."""
        import logging

        rejected = sum(map(len, self._rejected.values()))
        reasons = ", ".join(f"{reason} {len(names):,} (first: {names[0]})" for reason, names in self._rejected.items())
        level = logging.WARNING if rejected else logging.INFO
        logging.getLogger("bionemo").log(
            level,
            "%s: read %d = used %d + rejected %d%s",
            self._where,
            used + rejected,
            used,
            rejected,
            f" ({reasons})" if reasons else "",
        )
