"""Data components with labels: `labelled_csv` reads tables, `labelled_pairs` those of pairs, `flip_fasta` FLIP's files.

They share `labelled_source`, the reader of a file with labels, and `cleaner`, the filter of its sequences.
"""

from bionemo_core.data.sources.labelled.flip import flip_fasta
from bionemo_core.data.sources.labelled.labelled_pairs import labelled_pairs
from bionemo_core.data.sources.labelled.labelled_tables import labelled_csv

__all__ = ["flip_fasta", "labelled_csv", "labelled_pairs"]
