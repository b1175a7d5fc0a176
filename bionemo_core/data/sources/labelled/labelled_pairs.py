"""The data component for labelled pairs of sequences, such as two proteins that may bind each other.

No `from __future__ import annotations` and no unions but `Optional` here: the configuration reads these signatures.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any, Optional

from bionemo_core.data.sources.labelled.labelled_tables import TARGET, check_target_columns
from bionemo_core.protocols import BuildContext, DataSplits, Tokenizer
from bionemo_core.ranges import Count, Natural, Share


# Long: a signature that is its keys, and their help.
def labelled_pairs(
    dataset_path: str,
    first_column: str = "first",
    second_column: str = "second",
    target_column: Optional[str] = "target",
    id_column: Optional[str] = None,
    data_sep: Optional[str] = None,
    header_lines: Count = 1,
    val_fraction: Share = 0.15,
    test_fraction: Share = 0.15,
    clusters: Optional[str] = None,
    split_column: Optional[str] = None,
    target_columns: Optional[list[str]] = None,
    split_seed: Natural = 0,
    on_invalid: str = "skip",
    canonicalize: bool = True,
    *,
    tokenizer: Tokenizer,
    context: BuildContext,
) -> DataSplits:
    """Read pairs of sequences with labels from one table, CSV or Parquet, and split it.

    Args:
        dataset_path: the table.
        first_column: the column of the first sequence of a pair.
        second_column: the column of the second sequence.
        target_column: the column of the label: a number or a class; null: all pairs belong together, as for
            task.kind=pair_matching.
        id_column: the column of the id; null: `id` if there is one, else `file:line`.
        data_sep: one character that separates columns; null: a tab in a .tsv file, else a comma.
        header_lines: lines at the top of the file; the last has the names of the columns.
        val_fraction: the share of the pairs for validation, if no column names the split.
        test_fraction: the share of the pairs for testing, if no column names the split.
        clusters: keep pairs in one split whose first sequences are relatives: `identical` for equal ones, a family of
            the tokenizer such as `scaffold`, or a table `cluster_id<TAB>member_id` of the ids; null: at random.
        split_column: the column with train, val (valid, validation) or test.
        target_columns: several columns of labels, in place of `target_column`: numbers, or yes and no; an empty cell
            is a missing label.
        split_seed: the seed of the split; independent of the run's seed.
        on_invalid: action for a letter outside the tokenizer's alphabet: skip the pair, error, or unk to keep it.
        canonicalize: convert texts such as SMILES to their canonical form.

    Raises:
        ConfigError: a range or an option is not valid.
        DataError: the file is missing or is not a table with these columns.
    """
    from bionemo_core.data.labelled_records import TARGET_SEPARATOR, TOGETHER, LabelledRecords
    from bionemo_core.data.readers import decode_text
    from bionemo_core.data.readers.key_names import LABELLED_PAIR_KEYS
    from bionemo_core.data.sources.labelled.cleaner import Cleaner
    from bionemo_core.data.sources.labelled.labelled_source import labelled_source
    from bionemo_core.data.splits.table import TableSplit

    check_target_columns(target_columns, target_column or TARGET, None)
    names = tuple(target_columns or ([target_column] if target_column else []))
    labels = dict.fromkeys(names, "data.target_columns" if target_columns else "data.target_column")
    keys = {second_column: "data.second_column", **labels}
    if split_column:
        keys[split_column] = "data.split_column"
    path = Path(dataset_path).expanduser()
    layout = {"separator": data_sep, "header_lines": header_lines}
    source = labelled_source([path], first_column, id_column or "", keys, layout, LABELLED_PAIR_KEYS)
    where = f"{source.kind}: {path}"
    clean = Cleaner(tokenizer, on_invalid, where, canonicalize)
    clean_second = Cleaner(getattr(tokenizer, "second_tokenizer", tokenizer), on_invalid, where, canonicalize)
    rows: list[tuple[str, bytes, str, str]] = []
    seconds: list[bytes] = []
    words: list[bytes] = []
    for record in source.records(path):
        name = decode_text(record.id)
        if record.problem:
            clean.reject(record.problem, name)
            continue
        values: dict[str, Any] = dict(zip(source.columns, record.columns, strict=True))
        label = [decode_text(values[column]).strip() for column in names] or [TOGETHER]
        if not any(label):
            clean.reject("no label", name)
            continue
        first = clean(name, record.sequence)
        second = None if first is None else clean_second(name, values[second_column].strip())
        if first is not None and second is not None:
            rows.append((name, first, TARGET_SEPARATOR.join(label), ""))
            seconds.append(second)
            words += [values[split_column]] if split_column else []
    clean.add(clean_second, "second sequence: ")
    clean.report(len(rows))
    records = replace(LabelledRecords.of(rows, where, tuple(target_columns or ())), seconds=tuple(seconds))
    split = TableSplit(val_fraction, test_fraction, clusters or None, split_column or None, split_seed)
    split.check(of_folders=False)
    return split.of(records, words, tokenizer)
