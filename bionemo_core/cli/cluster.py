"""`bionemo-run cluster IN.fasta OUT.tsv`: groups similar sequences, for a split without leakage."""

import sys
from pathlib import Path

from bionemo_core.cli.arguments import ArgumentParser
from bionemo_core.cli.help import USAGE
from bionemo_core.plurals import format_count


def run(arguments: list[str]) -> int:
    """Write a table `cluster_id<TAB>member_id`, for `data.clusters=OUT.tsv`.

    Raises:
        ConfigError: an argument is invalid.
        DataError: the input cannot be read.
    """
    parser = ArgumentParser("cluster", USAGE["cluster"])
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("--identity", type=float, default=0.3)
    chosen = parser.parse_args(arguments)
    from bionemo_core.data.splits.clustering import cluster_fasta

    found = cluster_fasta(chosen.source, chosen.target, identity=chosen.identity)
    sys.stdout.write(
        f"Wrote {format_count(found.num_sequences, 'sequence')} in {format_count(found.num_clusters, 'cluster')} to "
        f"{chosen.target}; the largest cluster has {format_count(found.largest, 'sequence')}.\n"
        f"Use it with: data=fasta data.path={chosen.source} data.clusters={chosen.target}\n"
    )
    return 0
