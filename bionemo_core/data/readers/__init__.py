"""Readers of records from files, in a bounded amount of memory.

`records` defines records and sources, `decompress` opens files, each format has a module, and `formats` chooses the
reader by the extension. A reader yields every record of a file; a filter in `store` decides which of them are used.
"""

from bionemo_core.data.readers.biopython import FlatFileSource, StructureSource
from bionemo_core.data.readers.decompress import ByteStream, open_bytes, split_extension, text_lines
from bionemo_core.data.readers.fasta import FastaSource, fasta_blocks
from bionemo_core.data.readers.fastq import FastqSource
from bionemo_core.data.readers.formats import EXTENSIONS, FORMATS, detect_format, source_for
from bionemo_core.data.readers.key_names import KeyNames
from bionemo_core.data.readers.parquet import ParquetSource
from bionemo_core.data.readers.records import Column, Record, RecordBlock, Source, decode_text, read_blocks
from bionemo_core.data.readers.smiles import SmilesSource
from bionemo_core.data.readers.tables import CsvSource

__all__ = [
    "EXTENSIONS",
    "FORMATS",
    "ByteStream",
    "Column",
    "CsvSource",
    "FastaSource",
    "FastqSource",
    "FlatFileSource",
    "KeyNames",
    "ParquetSource",
    "Record",
    "RecordBlock",
    "SmilesSource",
    "Source",
    "StructureSource",
    "decode_text",
    "detect_format",
    "fasta_blocks",
    "open_bytes",
    "read_blocks",
    "source_for",
    "split_extension",
    "text_lines",
]
