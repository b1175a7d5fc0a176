"""The data component `pairs`: sources and targets from tables, and reactions from a column of reaction SMILES.

No `from __future__ import annotations` and no unions but `Optional` here: the configuration reads these signatures.
Numpy and pyarrow are imported in the bodies, because listing the components must stay quick.
"""

from dataclasses import asdict

from bionemo_core.data.sources.source_keys import PairRules, PairTables, SplitKeys
from bionemo_core.protocols import BuildContext, DataSplits, Tokenizer


def pairs(
    tables: PairTables, rules: PairRules, split: SplitKeys, *, tokenizer: Tokenizer, context: BuildContext
) -> DataSplits:
    """Read pairs of texts from CSV, TSV or Parquet tables, for a model that reads the one and writes the other.

    Raises:
        ConfigError: an option is out of its range or contradicts another one, or nothing is left to train on.
        DataError: a file is missing or cannot be read, or on_invalid=error found an invalid record.
    """
    from bionemo_core.data.pair_records import pair_splits
    from bionemo_core.data.sources.input_files import NamedFiles, prepare_splits
    from bionemo_core.data.sources.pair_files import pair_files, pair_filter
    from bionemo_core.data.splits.options import SplitOptions

    shards = {"train": tables.train, "val": tables.val, "test": tables.test}
    named = NamedFiles.of(tables.path, tables.val_path, tables.test_path, tables.dataset_path, shards)
    files = pair_files(tables, ids_elsewhere=bool(split.split_file))
    split_options = SplitOptions(**asdict(split), id_column=tables.id_column)
    return pair_splits(prepare_splits(named, files, pair_filter(tables, rules, tokenizer), split_options, context))
