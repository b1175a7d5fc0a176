"""The data components of the core: factories that return the splits of prepared stores, or of labelled records.

A file has one factory, but `proteins`, whose one function is `fasta`, `csv` and `records`. Factories share
`source_keys`, and `input_files`, which finds and reads the files that a user names. Sources with labels are in
`labelled`.
"""

from bionemo_core.data.sources.proteins import csv, fasta, records
from bionemo_core.data.sources.sample import sample
from bionemo_core.data.sources.uniref50 import uniref50
from bionemo_core.data.sources.uniref90 import uniref90

__all__ = ["csv", "fasta", "records", "sample", "uniref50", "uniref90"]
