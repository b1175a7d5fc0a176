"""The number of records in a text, counted without the readers, to compare with theirs."""

import gzip
import re
from itertools import takewhile


def lines_of(text: bytes) -> list[bytes]:
    """The lines of plain or gzip text."""
    text = gzip.decompress(text) if text.startswith(b"\x1f\x8b") else text
    return re.split(b"\r\n|\n|\r", text.removeprefix(b"\xef\xbb\xbf"))


def fasta_records(text: bytes) -> int:
    """Count the lines with `>`; blanks are allowed only before the first."""
    lines = lines_of(text)
    while lines and not lines[0].strip(b" \t"):
        lines.pop(0)
    return sum((line if number else line.lstrip(b" \t")).startswith(b">") for number, line in enumerate(lines))


def csv_rows(text: bytes) -> int:
    """Lines with anything in them, but for the header."""
    return sum(map(bool, lines_of(text)[1:]))


def fastq_records(text: bytes) -> int:
    """Headers: after each come lines up to `+`, and as many lines of quality as make up for them."""
    lines, found = iter(lines_of(text)), 0
    for header in lines:
        if not header.strip():
            continue
        found += 1
        missing = sum(len(line.strip()) for line in takewhile(lambda line: not line.startswith(b"+"), lines))
        while missing > 0:
            missing -= len(next(lines).rstrip())
    return found


def molecules(text: bytes) -> int:
    """Lines with a word, but for a header."""
    first, *others = [line.split() for line in lines_of(text)]
    header = bool(first) and first[0].strip(b'"').lower() == b"smiles"
    return sum(map(bool, others)) + bool(first and not header)
