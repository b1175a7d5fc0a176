"""The data component `uniref50`.

No `from __future__ import annotations` and no unions but `Optional` here: the configuration reads these signatures.
Numpy and pyarrow are imported in the bodies, because listing the components must stay quick.
"""

from pathlib import Path, PurePosixPath
from typing import Optional
from urllib.parse import unquote, urlsplit

from bionemo_core.errors import DataError
from bionemo_core.protocols import BuildContext, DataSplits, Tokenizer

URL = "https://ftp.uniprot.org/pub/databases/uniprot/uniref/uniref50/uniref50.fasta.gz"


def uniref50(
    path: Optional[str] = None,
    url: str = URL,
    md5: Optional[str] = None,
    root: Optional[str] = None,
    val_size: int = 5_000,
    test_size: int = 1_000_000,
    num_csv_files: int = 50,
    split_seed: int = 0,
    write_csv: bool = True,
    on_invalid: str = "skip",
    min_length: int = 1,
    max_length: Optional[int] = None,
    on_long: str = "drop",
    deduplicate: bool = False,
    *,
    tokenizer: Tokenizer,
    context: BuildContext,
) -> DataSplits:
    """UniRef50 as v1 prepares it: downloaded, shuffled, split by size, and written as CSV shards.

    Args:
        path: the FASTA file, if it is there already; it is then not downloaded.
        url: where to download it from.
        md5: the MD5 that the download must have, in hexadecimal.
        root: the folder that gets `raw` and `processed`; null: `uniref50` in the home folder.
        val_size: records to validate on.
        test_size: records to test on.
        num_csv_files: shards of each split.
        split_seed: decides which records go where, as v1's random_seed.
        write_csv: write `processed/{train,val,test}/x000.csv`; false: only the prepared store, with the same splits.
        on_invalid: what to do with a residue outside the tokenizer's alphabet: skip the record, error or unk.
        min_length: shorter sequences are rejected, in residues.
        max_length: longer sequences are treated as on_long says; null keeps them all (training truncates).
        on_long: what to do with more than max_length residues: drop, truncate, window or keep.
        deduplicate: keep one of several identical sequences of a split.

    Raises:
        ConfigError: an option is out of its range, or `root` holds shards of other sizes.
        DataError: the file cannot be read as FASTA, or on_invalid=error met such a record.
        NetworkError: it cannot be downloaded.
        StorageError: a file cannot be written.
    """
    from bionemo_core.data.sources.uniref50_shards import ShardLayout, split_shards, split_store
    from bionemo_core.data.store.prepare import home_folder
    from bionemo_core.data.store.residue_filter import ResidueFilter
    from bionemo_core.io.download import fetch

    layout = ShardLayout(val_size, test_size, num_csv_files, split_seed)
    rules = ResidueFilter.of(
        tokenizer,
        on_invalid=on_invalid,
        min_length=min_length,
        max_length=max_length,
        on_long=on_long,
        deduplicate=deduplicate,
    )
    folder = Path(root).expanduser() if root else home_folder(context) / "uniref50"
    processed = folder / "processed"
    if path is not None:
        fasta = Path(path).expanduser()
        if not fasta.is_file():
            raise DataError(f"data.path: {fasta}: cannot be read (there is no such file). Check the path.")
    else:
        fasta = folder / "raw" / (PurePosixPath(unquote(urlsplit(url).path)).name or "uniref50.fasta.gz")
        if not (write_csv and processed.exists()):
            fetch(url, fasta, md5=md5)
    if write_csv:
        return split_shards(fasta, processed, layout, rules, context)
    return split_store(fasta, layout, rules, context)
