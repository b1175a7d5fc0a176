"""The reader: a line of JSON about the study, a header, then a row for each antibody."""

import csv
from collections.abc import Iterator

from bionemo_core.data.readers import ByteStream, Record, text_lines
from bionemo_core.errors import DataError

SEQUENCE = "sequence_alignment_aa"
CHAINS = {"": "", "_heavy": "_H", "_light": "_L"}
"""The endings of a column's name and of a record's id; a row of a paired unit has two chains."""


class OasReader:
    """A `bionemo_core.protocols.Reader`. What is not productive is rejected, and counted under this reason."""

    extensions = (".oas",)
    version = "1"
    example = (
        b'"{""Run"": ""R1"", ""Chain"": ""Heavy""}"\n'
        b"locus,productive,sequence_alignment_aa\n"
        b"H,T,EVQLVESGGGLVQPGGSLRLSCAAS\nH,T,QVQLQESGPGLVKPSETLSLTCTVS\nH,F,QVQLVQ\n"
    )

    def records(self, stream: ByteStream, where: str) -> Iterator[Record]:
        """Yield the records of one file; `where` names it."""
        lines = (line.decode("utf-8", errors="replace") for line in text_lines(stream, where))
        about = next(lines, "")
        if "{" not in about:
            raise DataError(f"{where}:1: expected the line of JSON with which a data unit begins, got {about[:40]!r}.")
        table = csv.DictReader(lines)
        chains = [chain for chain in CHAINS if SEQUENCE + chain in (table.fieldnames or ())]
        if not chains:
            raise DataError(f"{where}:2: the header has no column {SEQUENCE}, with or without _heavy or _light.")
        try:
            for number, row in enumerate(table, start=3):
                for chain in chains:
                    name = row.get("sequence_id" + chain) or f"{number}{CHAINS[chain]}"
                    sequence = (row[SEQUENCE + chain] or "").replace("-", "")
                    problem = "" if row.get("productive" + chain, "T") in ("T", "True") else "not productive"
                    yield Record(name.encode(), sequence.encode(), number, problem)
        except csv.Error as error:
            raise DataError(f"{where}: not readable as CSV: {error}.") from error
