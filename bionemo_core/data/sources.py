"""The core's data components: each factory names files and rules, and returns the splits of a prepared store.

No `from __future__ import annotations` and no unions but `Optional` here: the configuration reads these signatures.
Numpy and pyarrow are imported in the bodies, because listing the components must stay quick.
"""

from importlib.resources import as_file, files
from pathlib import Path
from typing import Optional

from bionemo_core.errors import ConfigError
from bionemo_core.protocols import BuildContext, DataSplits, Tokenizer


def sample(
    seed: int = 0,
    val_size: int = 32,
    test_size: int = 32,
    *,
    tokenizer: Tokenizer,
    context: BuildContext,
) -> DataSplits:
    """512 UniProt proteins that ship with the core, split at random: enough to try a model, not to judge one.

    Raises:
        ConfigError: the two sizes leave nothing to train on.
        DataError: the tokenizer's alphabet lacks a residue of the proteins.
    """
    from bionemo_core.data.prepare import Rules, prepare
    from bionemo_core.data.readers import FastaSource
    from bionemo_core.data.splits import split_at_random

    with as_file(files("bionemo_core.data") / "sample" / "uniprot_sample_512.fasta") as path:
        rules = Rules.of(tokenizer, on_invalid="error")
        advice = "Choose another tokenizer (tokenizer=...), or data of your own with data=fasta data.path=..."
        store = prepare(FastaSource(path), rules, context, advice)
    parts = split_at_random(len(store), val_size, test_size, seed)
    return parts.of(store)


def fasta(
    path: str,
    val_path: Optional[str] = None,
    test_path: Optional[str] = None,
    val_fraction: float = 0.01,
    test_fraction: float = 0.01,
    clusters: Optional[str] = None,
    split_seed: int = 0,
    on_invalid: str = "skip",
    min_length: int = 1,
    max_length: Optional[int] = None,
    deduplicate: bool = False,
    *,
    tokenizer: Tokenizer,
    context: BuildContext,
) -> DataSplits:
    """Proteins of a FASTA file, plain or gzip, split by files of their own, by clusters, or at random.

    Args:
        path: the file to train on, and to split where no other file is named.
        val_path: a FASTA file of its own for validation; nothing is then split off for it.
        test_path: the same for testing.
        val_fraction: the share of sequences that validation gets.
        test_fraction: the share of sequences that testing gets.
        clusters: a table `cluster_id<TAB>member_id`; a cluster then lies wholly in one split.
        split_seed: decides which sequences or clusters go where; independent of the run's seed.
        on_invalid: what to do with a residue outside the tokenizer's alphabet: skip, error or unk.
        min_length: shorter sequences are rejected, in residues.
        max_length: longer sequences are rejected, in residues; null keeps them all (training truncates).
        deduplicate: keep one of several identical sequences.

    Raises:
        ConfigError: an option is out of its range, or nothing is left to train on.
        DataError: a file cannot be read as FASTA, or on_invalid=error met such a record.
    """
    from bionemo_core.data.prepare import Rules, prepare
    from bionemo_core.data.readers import FastaSource
    from bionemo_core.data.splits import read_clusters, share_of, split_at_random, split_by_clusters

    rules = Rules.of(
        tokenizer, on_invalid=on_invalid, min_length=min_length, max_length=max_length, deduplicate=deduplicate
    )
    store = prepare(FastaSource(Path(path)), rules, context)
    own_val = prepare(FastaSource(Path(val_path)), rules, context) if val_path else None
    own_test = prepare(FastaSource(Path(test_path)), rules, context) if test_path else None
    val_size = 0 if own_val else share_of(len(store), val_fraction, "data.val_fraction")
    test_size = 0 if own_test else share_of(len(store), test_fraction, "data.test_fraction")
    if clusters and (val_size or test_size):
        parts = split_by_clusters(store.ids(), read_clusters(Path(clusters)), val_size, test_size, split_seed)
    else:
        parts = split_at_random(len(store), val_size, test_size, split_seed)
    return parts.of(store, own_val, own_test)


def csv(
    dataset_path: str,
    train: str = "x[000..049]",
    val: str = "x[000..049]",
    test: str = "x[000..049]",
    data_col: int = 3,
    column: Optional[str] = None,
    header_lines: int = 1,
    data_sep: str = ",",
    on_invalid: str = "skip",
    min_length: int = 1,
    max_length: Optional[int] = None,
    deduplicate: bool = False,
    *,
    tokenizer: Tokenizer,
    context: BuildContext,
) -> DataSplits:
    """Sequences in CSV shards, `<dataset_path>/{train,val,test}/x000.csv`, a range of shards a split.

    Args:
        dataset_path: the folder that holds `train`, `val` and `test`.
        train: the shards to train on: `x000`, `x[000..049]`, `x(000..049)`, `x<000..049>`, `x_OP_000..049_CL_`.
        val: the shards to validate on; empty: none.
        test: the shards to test on; empty: none.
        data_col: the column that holds the sequence, counted from 0.
        column: that column by the name in the header; overrides `data_col`.
        header_lines: lines to leave out at the top of every shard.
        data_sep: what separates columns, one character.
        on_invalid: what to do with a residue outside the tokenizer's alphabet: skip, error or unk.
        min_length: shorter sequences are rejected, in residues.
        max_length: longer sequences are rejected, in residues.
        deduplicate: keep one of several identical sequences of a split.

    Raises:
        ConfigError: a range or an option cannot be understood.
        DataError: a shard is missing or is not such a table.
    """
    from bionemo_core.data.prepare import Rules, prepare
    from bionemo_core.data.ranges import expand_range
    from bionemo_core.data.readers import CsvSource
    from bionemo_core.data.store import fingerprint_of

    rules = Rules.of(
        tokenizer, on_invalid=on_invalid, min_length=min_length, max_length=max_length, deduplicate=deduplicate
    )
    if not train:
        raise ConfigError("data.train: no shards are named, got ''. Give a range such as x[000..049].")
    stores = {}
    for split, shards in (("train", train), ("val", val), ("test", test)):
        if not shards:
            continue
        paths = expand_range(Path(dataset_path) / split, shards, f"data.{split}")
        source = CsvSource(
            paths, column=data_col if column is None else column, header_lines=header_lines, separator=data_sep
        )
        stores[split] = prepare(source, rules, context)
    fingerprint = fingerprint_of({split: store.fingerprint for split, store in stores.items()})
    return DataSplits(stores["train"], stores.get("val"), stores.get("test"), fingerprint)
