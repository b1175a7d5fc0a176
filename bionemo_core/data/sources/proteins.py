"""The data component `records`, which also serves `csv` with other defaults.

No `from __future__ import annotations` and no unions but `Optional` here: the configuration reads these signatures.
Numpy and pyarrow are imported in the bodies, because listing the components must stay quick.
"""

from typing import Any, Optional

from bionemo_core.protocols import BuildContext, DataSplits, Tokenizer


def records(
    path: Optional[Any] = None,
    val_path: Optional[Any] = None,
    test_path: Optional[Any] = None,
    dataset_path: Optional[str] = None,
    train: str = "x[000..049]",
    val: str = "x[000..049]",
    test: str = "x[000..049]",
    format: Optional[str] = None,
    data_col: Optional[int] = None,
    column: Optional[str] = None,
    id_column: Optional[str] = None,
    header_lines: Optional[int] = None,
    data_sep: Optional[str] = None,
    val_fraction: Optional[float] = None,
    test_fraction: Optional[float] = None,
    val_size: Optional[int] = None,
    test_size: Optional[int] = None,
    clusters: Optional[str] = None,
    split_column: Optional[str] = None,
    split_headers: bool = False,
    split_file: Optional[str] = None,
    split_seed: int = 0,
    on_invalid: str = "skip",
    min_length: int = 1,
    max_length: Optional[int] = None,
    on_long: str = "drop",
    window_overlap: int = 0,
    on_duplicate_id: str = "drop",
    deduplicate: bool = False,
    lower_case: str = "upper",
    on_stop: str = "strip",
    on_gap: str = "reject",
    *,
    tokenizer: Tokenizer,
    context: BuildContext,
) -> DataSplits:
    """Read proteins from files of any supported format, or from v1's folder of shards.

    Give `path`, which is split unless separate files are named, or `dataset_path`, a folder with `train`, `val` and
    `test`.

    Args:
        path: the proteins to train on, and to split if no other files are named: a file, a range such as
            `x[000..049].csv`, a pattern with `*`, an http(s) or ftp address, or a list of these.
        val_path: separate validation files, instead of a part of `path`.
        test_path: separate test files, instead of a part of `path`.
        dataset_path: v1's layout, `<dataset_path>/{train,val,test}/x000.csv`.
        train: the training shards of `dataset_path`, such as `x000`, `x[000..049]` or `x_OP_000..049_CL_`.
        val: the validation shards; empty: none.
        test: the test shards; empty: none.
        format: fasta, fastq, pdb, mmcif, genbank, embl, uniprot, csv, tsv or parquet; null: by the extension.
        data_col: the column of the sequence in a CSV or TSV file, counted from 0.
        column: the name of that column in the header; overrides `data_col`; null without `data_col`: sequence.
        id_column: the column of the ids in a table or in split_file; null: file and line, in split_file the first.
        header_lines: lines to skip at the top of every CSV or TSV file; null: one.
        data_sep: one character that separates the columns of a CSV file; null: a comma.
        val_fraction: the share of records for validation; null: 0.01 unless another option decides.
        test_fraction: the share of records for testing; null: 0.01 unless another option decides.
        val_size: the number of validation records, instead of a fraction.
        test_size: the number of test records, instead of a fraction.
        clusters: a table `cluster_id<TAB>member_id`; the members of a cluster stay in one split.
        split_column: the column with train, val (valid, validation) or test for each record.
        split_headers: split by the FASTA headers, written as in FLIP: `SET=train VALIDATION=False`.
        split_file: a separate file with the splits of the same ids: FASTA with such headers, or a table with
            split_column.
        split_seed: the seed of the split; independent of the run's seed.
        on_invalid: action for a residue outside the tokenizer's alphabet: skip the record, error, or unk to keep it.
        min_length: reject shorter sequences, in residues.
        max_length: apply on_long to longer sequences, in residues; null: keep them all (training truncates).
        on_long: action for more than max_length residues: drop, truncate, window or keep.
        window_overlap: the residues that neighbouring windows share.
        on_duplicate_id: action for a record that repeats an earlier id: drop, error or keep.
        deduplicate: keep one of several identical sequences.
        lower_case: action for lower-case residues: upper to convert them, reject, or keep as soft-masked.
        on_stop: action for `*`: strip it at the end and reject it inside, or reject both.
        on_gap: action for `-` and `.` if the alphabet lacks them: reject or strip.

    Raises:
        ConfigError: an option is out of its range or contradicts another one, or nothing is left to train on.
        DataError: a file is missing or cannot be read, or on_invalid=error found an invalid record.
    """
    from bionemo_core.data.sources.input_files import FileOptions, NamedFiles, prepare_splits
    from bionemo_core.data.splits.options import SplitOptions
    from bionemo_core.data.store.residue_filter import ResidueFilter

    rules = ResidueFilter.of(
        tokenizer,
        on_invalid=on_invalid,
        min_length=min_length,
        max_length=max_length,
        on_long=on_long,
        window_overlap=window_overlap,
        on_duplicate_id=on_duplicate_id,
        deduplicate=deduplicate,
        lower_case=lower_case,
        on_stop=on_stop,
        on_gap=on_gap,
    )
    split_options = SplitOptions(
        val_fraction=val_fraction,
        test_fraction=test_fraction,
        val_size=val_size,
        test_size=test_size,
        clusters=clusters,
        split_column=split_column,
        split_headers=split_headers,
        split_file=split_file,
        split_seed=split_seed,
        id_column=id_column,
    )
    files = FileOptions(format, data_col, column, id_column, header_lines, data_sep, bool(split_file))
    named = NamedFiles.of(path, val_path, test_path, dataset_path, {"train": train, "val": val, "test": test})
    return prepare_splits(named, files, rules, split_options, context)
