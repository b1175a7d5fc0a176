"""The data component for labelled sequences in tables, as v1 has them.

No `from __future__ import annotations` and no unions but `Optional` here: the configuration reads these signatures.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Optional

from bionemo_core.errors import ConfigError
from bionemo_core.protocols import BuildContext, DataSplits, Tokenizer
from bionemo_core.ranges import Count, Natural, Share

if TYPE_CHECKING:
    from bionemo_core.data.labelled_records import LabelledRecords

TARGET = "target"
"""The column of the label if none is named."""
_ONE_SHARD = "x000"
"""The default of the keys of shards."""


# Long: a signature that is its keys, and their help.
def labelled_csv(
    dataset_path: str,
    train: str = _ONE_SHARD,
    val: str = _ONE_SHARD,
    test: str = _ONE_SHARD,
    sequence_column: str = "sequence",
    target_column: str = TARGET,
    mask_column: Optional[str] = None,
    id_column: Optional[str] = None,
    data_sep: Optional[str] = None,
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
        data_sep: one character that separates columns; null: a tab in a .tsv file, else a comma.
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
    if unread := [key for key, text in {"train": train, "val": val, "test": test}.items() if text != _ONE_SHARD]:
        raise ConfigError(
            f"data.{unread[0]}: names shards of a folder, and data.dataset_path is one file. Leave it out; the "
            "shares of the splits are data.val_fraction and data.test_fraction."
        )
    records, words = read_table([root])
    return split.of(records, words, tokenizer)


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
    from bionemo_core.data.sources.labelled.cleaner import Cleaner
    from bionemo_core.data.sources.labelled.labelled_source import labelled_source

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
