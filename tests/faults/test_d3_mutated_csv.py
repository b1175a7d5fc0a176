"""D3: whatever stands in a table, each row is used or counted, and what is used is what stands there."""

import csv

import pytest
from hostile_text import EDITS, LETTERS, check, plain, sequence
from matrix import row

from bionemo_core.data.readers import CsvSource
from bionemo_core.data.store.residue_filter import ResidueFilter

pytestmark = [pytest.mark.faults, pytest.mark.usefixtures("without_fsync")]
RULES = ResidueFilter(LETTERS.decode())


def _text(draw):
    rows = [(number, draw.choice(['"a, b"', "plain", '"say ""so"""', ""]), sequence(draw)) for number in range(9)]
    return b"id,words,sequence\n" + b"".join(b"%d,%s,%s\n" % (n, words.encode(), text) for n, words, text in rows)


def _expected(text):
    rows = list(csv.reader(text.decode("latin-1").split("\n")))
    column = [name.strip() for name in rows[0]].index("sequence")
    named = [fields for fields in rows[1:] if not any(extra.strip() for extra in fields[len(rows[0]) :])]
    fields = [fields[column].encode("latin-1").strip() for fields in named if len(fields) > column]
    residues = [field.translate(None, b" \t").upper() for field in fields]
    residues = [value[:-1] if value.endswith(b"*") else value for value in residues]
    return [value for value in residues if value and not set(value) - set(LETTERS)]


def test_d3(tmp_path):
    matrix_row = row("D3", subset=110, full=1000)
    for case in range(matrix_row.n):
        draw = matrix_row.draw(case)
        with matrix_row.case(f"case {case}"):
            text = EDITS[case % len(EDITS)](_text(draw), draw)
            found = check(CsvSource(tmp_path / "a.csv", "sequence"), text, RULES, tmp_path / "home")
            readable = plain(text)
            if found is not None and readable is not None:
                assert list(found.values()) == _expected(readable)
    matrix_row.check()
