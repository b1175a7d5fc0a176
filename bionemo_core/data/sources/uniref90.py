"""The data component `uniref90`.

No `from __future__ import annotations` and no unions but `Optional` here: the configuration reads these signatures.
Numpy and pyarrow are imported in the bodies, because listing the components must stay quick.
"""

from dataclasses import asdict
from typing import Any, Optional

from bionemo_core.data.sources.source_keys import FilterOptions, SplitKeys
from bionemo_core.errors import ConfigError
from bionemo_core.plugins.configure import configure
from bionemo_core.protocols import BuildContext, DataSplits, Tokenizer


def read_uniref90(
    uf50_path: Any,
    uf90_path: Any,
    cluster_mapping_tsv: str,
    val_path: Optional[Any] = None,
    test_path: Optional[Any] = None,
    *,
    split: SplitKeys,
    filters: FilterOptions,
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

    if filters.on_long == "window":
        raise ConfigError(
            "data.on_long: got 'window', but a member of a cluster is one sequence. Use drop, truncate or keep."
        )
    rules = ResidueFilter.of(tokenizer, **asdict(filters))
    given = {"uf50_path": uf50_path, "uf90_path": uf90_path, "val_path": val_path, "test_path": test_path}
    split_options = SplitOptions(**asdict(split))
    split_options.check([name for name in ("val", "test") if given[f"{name}_path"]])
    mapping = find_files(cluster_mapping_tsv, "data.cluster_mapping_tsv", context)[0]
    stores = {
        key.removesuffix("_path"): prepare(FastaSource(find_files(names, f"data.{key}", context)), rules, context)
        for key, names in given.items()
        if names
    }
    return cluster_splits(stores, mapping, split_options, context)


_NOT_OF_CLUSTERS = ("clusters", "split_column", "split_headers", "split_file")
_NOT_OF_MEMBERS = ("window_overlap", "on_duplicate_id", "deduplicate", "lower_case", "on_stop", "on_gap")

uniref90 = configure(read_uniref90, fixed=(*_NOT_OF_CLUSTERS, *_NOT_OF_MEMBERS))
