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
    """Proteins of files of any format that is read, or of v1's folder of shards.

    Give `path`, which is split unless other files are named; or `dataset_path`, a folder with `train`, `val` and
    `test`.

    Args:
        path: the proteins to train on, and to split where no other file is named: a file, a range such as
            `x[000..049].csv`, a pattern with `*`, an http(s) or ftp address, or a list of these.
        val_path: files of their own for validation; nothing is then split off for it.
        test_path: the same for testing.
        dataset_path: v1's layout, `<dataset_path>/{train,val,test}/x000.csv`.
        train: the shards of `dataset_path` to train on: `x000`, `x[000..049]`, `x_OP_000..049_CL_` and so on.
        val: the shards to validate on; empty: none.
        test: the shards to test on; empty: none.
        format: fasta, fastq, pdb, mmcif, genbank, embl, uniprot, csv, tsv or parquet; null: as the extension tells.
        data_col: the column of a CSV or TSV file that holds the sequence, counted from 0.
        column: that column by its name in the header; overrides `data_col`. `sequence` where neither is given.
        id_column: the column of the ids, in a table or in split_file; null: file and line, in split_file the first.
        header_lines: lines to leave out at the top of every CSV or TSV file; null: one.
        data_sep: what separates the columns of a CSV file, one character; null: a comma.
        val_fraction: the share of records that validation gets; null: 0.01 unless another option decides.
        test_fraction: the same for testing.
        val_size: what validation gets as a number of records.
        test_size: the same for testing.
        clusters: a table `cluster_id<TAB>member_id`; a cluster then lies wholly in one split.
        split_column: a column that says train, val (valid, validation) or test for each record.
        split_headers: headers say it, as FLIP's do: `SET=train VALIDATION=False`.
        split_file: another file says it for the same ids: FASTA with such headers, or a table with split_column.
        split_seed: decides which records or clusters go where; independent of the run's seed.
        on_invalid: what to do with a residue outside the tokenizer's alphabet: skip the record, error or unk.
        min_length: shorter sequences are rejected, in residues.
        max_length: longer sequences are treated as on_long says; null keeps them all (training truncates).
        on_long: what to do with more than max_length residues: drop, truncate, window or keep.
        window_overlap: residues that neighbouring windows share.
        on_duplicate_id: what to do with the id of an earlier record: drop, error or keep.
        deduplicate: keep one of several identical sequences.
        lower_case: what lower-case residues are: upper to read them as others, reject, or keep as soft-masked.
        on_stop: what to do with `*`: strip it from the end and reject it inside, or reject both.
        on_gap: what to do with `-` and `.` where the alphabet lacks them: reject or strip.

    Raises:
        ConfigError: an option is out of its range or contradicts another one, or nothing is left to train on.
        DataError: a file is missing or cannot be read, or on_invalid=error met such a record.
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
