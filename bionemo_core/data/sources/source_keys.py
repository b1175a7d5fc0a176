"""The keys that data components share, a dataclass for each question; what uses them imports numpy and pyarrow later.

No `from __future__ import annotations` and no unions but `Optional` here: the configuration reads these annotations.
"""

from dataclasses import dataclass
from typing import Any, Optional

from bionemo_core.ranges import Count, Natural, Share


@dataclass(frozen=True)
class PathOptions:
    """Which files.

    Args:
        path: the proteins to train on, and to split if no other files are named: a file, a range such as
            `x[000..049].csv`, a pattern with `*`, an http(s) or ftp address, or a list of these.
        train: the training shards of `dataset_path`, such as `x000`, `x[000..049]` or `x_OP_000..049_CL_`.
    """

    path: Optional[Any] = None
    val_path: Optional[Any] = None  # separate validation files, instead of a part of `path`
    test_path: Optional[Any] = None  # separate test files, instead of a part of `path`
    dataset_path: Optional[str] = None  # v1's layout, `<dataset_path>/{train,val,test}/x000.csv`
    train: str = "x[000..049]"
    val: str = "x[000..049]"  # the validation shards; empty: none
    test: str = "x[000..049]"  # the test shards; empty: none


@dataclass(frozen=True)
class FormatOptions:
    """How to read the files.

    Args:
        format: fasta, fastq, pdb, mmcif, genbank, embl, uniprot, csv, tsv or parquet; null: by the extension.
        column: the name of that column in the header; overrides `data_col`; null without `data_col`: sequence.
        id_column: the column of the ids in a table or in split_file; null: file and line, in split_file the first.
    """

    format: Optional[str] = None
    data_col: Optional[Natural] = None  # the column of the sequence in a CSV or TSV file, counted from 0
    column: Optional[str] = None
    id_column: Optional[str] = None
    header_lines: Optional[Natural] = None  # lines to skip at the top of every CSV or TSV file; null: one
    data_sep: Optional[str] = None  # one character that separates the columns; null: a tab in TSV, else a comma


@dataclass(frozen=True)
class SplitKeys:
    """How the records are split.

    Args:
        split_file: a separate file with the splits of the same ids: FASTA with such headers, or a table with
            split_column.
    """

    val_fraction: Optional[Share] = None  # the share for validation; null: 0.01 unless another option decides
    test_fraction: Optional[Share] = None  # the share for testing; null: 0.01 unless another option decides
    val_size: Optional[Natural] = None  # the number of validation records, instead of a fraction
    test_size: Optional[Natural] = None  # the number of test records, instead of a fraction
    clusters: Optional[str] = None  # a table `cluster_id<TAB>member_id`; the members of a cluster stay in one split
    split_column: Optional[str] = None  # the column with train, val (valid, validation) or test for each record
    split_headers: bool = False  # split by the FASTA headers, written as in FLIP: `SET=train VALIDATION=False`
    split_file: Optional[str] = None
    split_seed: Natural = 0  # the seed of the split; independent of the run's seed


@dataclass(frozen=True)
class FilterOptions:
    """Which sequences of residues are used, and how they are cleaned.

    Args:
        on_invalid: action for a residue outside the tokenizer's alphabet: skip the record, error, or unk to keep it.
        max_length: apply on_long to longer sequences, in residues; null: keep them all (training truncates).
    """

    on_invalid: str = "skip"
    min_length: Count = 1  # reject shorter sequences, in residues
    max_length: Optional[Count] = None
    on_long: str = "drop"  # action for more than max_length residues: drop, truncate, window or keep
    window_overlap: Natural = 0  # the residues that neighbouring windows share
    on_duplicate_id: str = "drop"  # action for a record that repeats an earlier id: drop, error or keep
    deduplicate: bool = False  # keep one of several identical sequences
    lower_case: str = "upper"  # action for lower-case residues: upper to convert them, reject, or keep as soft-masked
    on_stop: str = "strip"  # action for `*`: strip it at the end and reject it inside, or reject both
    on_gap: str = "reject"  # action for `-` and `.` if the alphabet lacks them: reject or strip


@dataclass(frozen=True)
class PairTables:
    """Which tables, and where in them the pairs are.

    Args:
        dataset_path: v1's layout, `<dataset_path>/{train,val,test}/x000.csv`, in place of `path`.
        train: the training shards of `dataset_path`, such as `x000`, `x[000..049]` or `x_OP_000..049_CL_`.
        path: the pairs to train on, and to split if no other files are named: a CSV, TSV or Parquet file, a range such
            as `x[000..049].csv`, a pattern with `*`, an http(s) or ftp address, or a list of these.
        reaction_column: a column of reaction SMILES, `reactants>reagents>product`, in place of the other two; atom maps
            are left out.
        id_column: the column of the ids in a table or in split_file; null: file and line, in split_file the first.
    """

    path: Optional[Any] = None
    val_path: Optional[Any] = None  # separate validation files, instead of a part of `path`
    test_path: Optional[Any] = None  # separate test files, instead of a part of `path`
    dataset_path: Optional[str] = None
    train: str = "x[000..049]"
    val: str = "x[000..049]"  # the validation shards; empty: none
    test: str = "x[000..049]"  # the test shards; empty: none
    source_column: Optional[str] = None  # the column of the texts that the model reads; null: source
    target_column: Optional[str] = None  # the column of the texts that the model writes; null: target
    source_col: Optional[Natural] = None  # the number of that source column, counted from 0, in place of its name
    target_col: Optional[Natural] = None  # the number of that target column, counted from 0, in place of its name
    reaction_column: Optional[str] = None
    direction: Optional[str] = None  # with reaction_column: backward (null), product to reactants; or forward
    reagents: bool = False  # with direction=forward: the source has the reagents too
    format: Optional[str] = None  # csv, tsv or parquet; null: by the extension
    id_column: Optional[str] = None
    header_lines: Optional[Count] = None  # lines at the top of a CSV or TSV file; the last has the names; null: one
    data_sep: Optional[str] = None  # one character that separates the columns; null: a tab in TSV, else a comma


@dataclass(frozen=True)
class PairRules:
    """Which pairs are used.

    Args:
        on_invalid: action for a text with a token that the tokenizer lacks, one that is no molecule, or a reaction that
            is none: skip the pair, error, or unk to keep the token.
        on_duplicate_id: action for a pair that repeats an earlier id: drop, error or keep; null: drop.
    """

    canonicalize: bool = True  # convert texts to their canonical form, if they have one, as SMILES do
    on_invalid: str = "skip"
    max_length: Optional[Count] = None  # reject pairs with a longer text, in tokens; null: keep them (training cuts)
    deduplicate: bool = False  # keep one of several identical pairs
    on_duplicate_id: Optional[str] = None
