"""The data components of the core, one file each: a factory that returns the splits of prepared stores.

`input_files` has what the factories that read a user's files share.
"""

from bionemo_core.data.sources.proteins import csv, fasta, records
from bionemo_core.data.sources.sample import sample
from bionemo_core.data.sources.uniref50 import uniref50
from bionemo_core.data.sources.uniref90 import uniref90

__all__ = ["csv", "fasta", "records", "sample", "uniref50", "uniref90"]
