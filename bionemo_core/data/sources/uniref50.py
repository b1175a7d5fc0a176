"""The data component `uniref50`.

No `from __future__ import annotations` and no unions but `Optional` here: the configuration reads these signatures.
Numpy and pyarrow are imported in the bodies, because listing the components must stay quick.
"""

from dataclasses import asdict
from pathlib import Path
from typing import Optional

from bionemo_core.data.sources.source_keys import FilterOptions
from bionemo_core.errors import DataError
from bionemo_core.plugins.configure import configure
from bionemo_core.protocols import BuildContext, DataSplits, Tokenizer
from bionemo_core.ranges import Count, Natural

URL = "https://ftp.uniprot.org/pub/databases/uniprot/uniref/uniref50/uniref50.fasta.gz"


# Long: a signature that is its keys, and their help.
def read_uniref50(
    path: Optional[str] = None,
    url: str = URL,
    md5: Optional[str] = None,
    root: Optional[str] = None,
    val_size: Natural = 5_000,
    test_size: Natural = 1_000_000,
    num_csv_files: Count = 50,
    split_seed: Natural = 0,
    write_csv: bool = True,
    *,
    filters: FilterOptions,
    tokenizer: Tokenizer,
    context: BuildContext,
) -> DataSplits:
    """Download UniRef50, shuffle it, split it by size, and write CSV shards, as v1 does.

    Args:
        path: an existing FASTA file, which is used instead of the download.
        url: the URL of the download.
        md5: the expected MD5 of the download, in hexadecimal.
        root: the folder for `raw` and `processed`; null: `uniref50` in the home folder.
        val_size: the number of validation records.
        test_size: the number of test records.
        num_csv_files: the number of shards of each split.
        split_seed: the seed of the split, v1's random_seed.
        write_csv: write `processed/{train,val,test}/x000.csv`; false: only the prepared store, with the same splits.

    Raises:
        ConfigError: an option is out of its range, or `root` holds shards of other sizes.
        DataError: the file cannot be read as FASTA, or on_invalid=error found an invalid record.
        NetworkError: the download failed.
        StorageError: a file cannot be written.
    """
    from bionemo_core.data.sources.uniref50_shards import ShardLayout, split_shards, split_store
    from bionemo_core.data.store.prepare import home_folder
    from bionemo_core.data.store.residue_filter import ResidueFilter
    from bionemo_core.io.download import fetch, name_of

    layout = ShardLayout(val_size, test_size, num_csv_files, split_seed)
    rules = ResidueFilter.of(tokenizer, **asdict(filters))
    folder = Path(root).expanduser() if root else home_folder(context) / "uniref50"
    processed = folder / "processed"
    if path is not None:
        fasta = Path(path).expanduser()
        if not fasta.is_file():
            raise DataError(f"data.path: {fasta}: cannot be read (there is no such file). Check the path.")
    else:
        fasta = folder / "raw" / name_of(url, "uniref50.fasta.gz")
        if not (write_csv and processed.exists()):
            fetch(url, fasta, md5=md5)
    if write_csv:
        return split_shards(fasta, processed, layout, rules, context)
    return split_store(fasta, layout, rules, context)


uniref50 = configure(read_uniref50, fixed=("window_overlap", "on_duplicate_id", "lower_case", "on_stop", "on_gap"))
