"""The data component `uniref90`.

No `from __future__ import annotations` and no unions but `Optional` here: the configuration reads these signatures.
Numpy and pyarrow are imported in the bodies, because listing the components must stay quick.
"""

from typing import Any, Optional

from bionemo_core.errors import ConfigError
from bionemo_core.protocols import BuildContext, DataSplits, Tokenizer


def uniref90(
    uf50_path: Any,
    uf90_path: Any,
    cluster_mapping_tsv: str,
    val_path: Optional[Any] = None,
    test_path: Optional[Any] = None,
    val_fraction: Optional[float] = None,
    test_fraction: Optional[float] = None,
    val_size: Optional[int] = None,
    test_size: Optional[int] = None,
    split_seed: int = 0,
    on_invalid: str = "skip",
    min_length: int = 1,
    max_length: Optional[int] = None,
    on_long: str = "drop",
    *,
    tokenizer: Tokenizer,
    context: BuildContext,
) -> DataSplits:
    """Sample UniRef50 clusters: training sees a random UniRef90 member in each pass, validation the representative.

    Each file may also be a URL, which is downloaded.

    Args:
        uf50_path: FASTA of the UniRef50 representatives to train on; their ids are those of the clusters.
        uf90_path: FASTA of the UniRef90 members.
        cluster_mapping_tsv: a table with a header, `cluster_id<TAB>member1,member2,...`.
        val_path: FASTA of validation representatives, instead of a part of `uf50_path`.
        test_path: FASTA of test representatives, instead of a part of `uf50_path`.
        val_fraction: the share of clusters for validation; null: 0.01 unless another option decides.
        test_fraction: the share of clusters for testing; null: 0.01 unless another option decides.
        val_size: the number of validation clusters, instead of a fraction.
        test_size: the number of test clusters, instead of a fraction.
        split_seed: the seed of the split; independent of the run's seed.
        on_invalid: action for a residue outside the tokenizer's alphabet: skip the record, error, or unk to keep it.
        min_length: reject shorter sequences, in residues.
        max_length: apply on_long to longer sequences, in residues; null: keep them all (training truncates).
        on_long: action for more than max_length residues: drop, truncate or keep.

    Raises:
        ConfigError: an option is out of its range or contradicts another one, or nothing is left to train on.
        DataError: a file cannot be read, or the files do not belong together.
        NetworkError: a download failed.
    """
    from bionemo_core.data.readers import FastaSource
    from bionemo_core.data.sources.input_files import find_files
    from bionemo_core.data.sources.uniref90_members import cluster_splits
    from bionemo_core.data.splits.options import SplitOptions
    from bionemo_core.data.store.prepare import prepare
    from bionemo_core.data.store.residue_filter import ResidueFilter

    if on_long == "window":
        raise ConfigError(
            "data.on_long: got 'window', but a member of a cluster is one sequence. Use drop, truncate or keep."
        )
    rules = ResidueFilter.of(
        tokenizer, on_invalid=on_invalid, min_length=min_length, max_length=max_length, on_long=on_long
    )
    given = {"uf50_path": uf50_path, "uf90_path": uf90_path, "val_path": val_path, "test_path": test_path}
    split_options = SplitOptions(val_fraction, test_fraction, val_size, test_size, split_seed=split_seed)
    split_options.check([split for split in ("val", "test") if given[f"{split}_path"]])
    mapping = find_files(cluster_mapping_tsv, "data.cluster_mapping_tsv", context)[0]
    stores = {
        key.removesuffix("_path"): prepare(FastaSource(find_files(names, f"data.{key}", context)), rules, context)
        for key, names in given.items()
        if names
    }
    return cluster_splits(stores, mapping, split_options, context)
