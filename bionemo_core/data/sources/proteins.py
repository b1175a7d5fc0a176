"""The data components of proteins in files: `fasta`, `csv` and `records` are one function with other defaults.

No `from __future__ import annotations` here: the configuration reads these signatures. Numpy and pyarrow are imported
in the bodies, because listing the components must stay quick.
"""

from dataclasses import asdict

from bionemo_core.data.sources.source_keys import FilterOptions, FormatOptions, PathOptions, SplitKeys
from bionemo_core.plugins.configure import NO_VALUE, configure
from bionemo_core.protocols import BuildContext, DataSplits, Tokenizer


def proteins(
    paths: PathOptions,
    reading: FormatOptions,
    split: SplitKeys,
    filters: FilterOptions,
    *,
    tokenizer: Tokenizer,
    context: BuildContext,
) -> DataSplits:
    """Read proteins from files of any supported format, or from v1's folder of shards.

    Give `path`, which is split unless separate files are named, or `dataset_path`, a folder with `train`, `val` and
    `test`.

    Raises:
        ConfigError: an option is out of its range or contradicts another one, or nothing is left to train on.
        DataError: a file is missing or cannot be read, or on_invalid=error found an invalid record.
    """
    from bionemo_core.data.sources.input_files import FileOptions, NamedFiles, prepare_splits
    from bionemo_core.data.splits.options import SplitOptions
    from bionemo_core.data.store.residue_filter import ResidueFilter

    shards = {"train": paths.train, "val": paths.val, "test": paths.test}
    named = NamedFiles.of(paths.path, paths.val_path, paths.test_path, paths.dataset_path, shards)
    files = FileOptions(**asdict(reading), ids_elsewhere=bool(split.split_file))
    split_options = SplitOptions(**asdict(split), id_column=reading.id_column)
    return prepare_splits(named, files, ResidueFilter.of(tokenizer, **asdict(filters)), split_options, context)


_NOT_OF_FASTA = ("dataset_path", "train", "val", "test", "format", "data_col", "column", "header_lines", "data_sep")

records = configure(proteins)
csv = configure(proteins, format="csv", data_col=3)  # input_files.V1_COLUMN; its modules are imported late
fasta = configure(proteins, path=NO_VALUE, format="fasta", fixed=_NOT_OF_FASTA, not_null=("path",))
