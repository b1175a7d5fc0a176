"""D1: whatever stands in a FASTA file, each record is used or counted, and what is used is what stands there."""

import pytest
from hostile_text import EDITS, LETTERS, check, plain, sequence
from matrix import row

from bionemo_core.data.readers import FastaSource
from bionemo_core.data.store.residue_filter import ResidueFilter

pytestmark = [pytest.mark.faults, pytest.mark.usefixtures("without_fsync")]
RULES = ResidueFilter(LETTERS.decode())


def _text(draw):
    entries = [(b"r%d" % number, sequence(draw)) for number in range(draw.randint(1, 12))]
    return b"".join(b">%s words\n%s\n%s\n" % (name, text[:20], text[20:]) for name, text in entries)


def _expected(text):
    """The usable records, by the simplest reader: one that walks through the lines."""
    entries = []
    for line in text.split(b"\n"):
        if line.startswith(b">"):
            entries.append((line[1:], []))
        elif entries:
            entries[-1][1].append(line)
    found = {}
    for header, lines in entries:
        words = bytes(byte if byte > 32 else 32 for byte in header).split()
        residues = b"".join(lines).translate(None, b" \t").upper()
        residues = residues[:-1] if residues.endswith(b"*") else residues
        if words and residues and not set(residues) - set(LETTERS):
            found.setdefault(words[0], residues)
    return found


def test_d1(tmp_path):
    matrix_row = row("D1", subset=110, full=1000)
    for case in range(matrix_row.n):
        draw = matrix_row.draw(case)
        with matrix_row.case(f"case {case}"):
            text = EDITS[case % len(EDITS)](_text(draw), draw)
            found = check(FastaSource(tmp_path / "a.fasta"), text, RULES, tmp_path / "home")
            readable = plain(text)
            if found is not None and readable is not None:
                wanted = {name.decode("utf-8", "surrogateescape"): value for name, value in _expected(readable).items()}
                assert list(found.values()) == list(wanted.values())
    matrix_row.check()
