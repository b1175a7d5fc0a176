"""D2: whatever stands in a SMILES file, each line is used or counted, and what is used is what stands there."""

from dataclasses import dataclass

import pytest
from hostile_text import EDITS, check, plain
from matrix import row

from bionemo_core.data.readers import SmilesSource
from bionemo_core.data.store.residue_filter import FilterResult

pytestmark = [pytest.mark.faults, pytest.mark.usefixtures("without_fsync")]
MOLECULES = [b"CCO", b"c1ccccc1", b"C[C@H](N)C(=O)O", b"[Na+].[Cl-]", b"F/C=C/F", b"CC(=O)Oc1ccccc1C(=O)O"]


@dataclass(frozen=True)
class AnyLine:
    """Takes each line that has a text."""

    deduplicate: bool = False

    def facts(self):
        return {}

    def apply(self, record):
        reason = record.problem or ("" if record.sequence else "empty")
        return FilterResult((), reason) if reason else FilterResult((record.sequence,))


def _text(draw):
    return b"".join(b"%s m%d\n" % (draw.choice(MOLECULES), number) for number in range(draw.randint(1, 30)))


def test_d2(tmp_path):
    matrix_row = row("D2", subset=110, full=1000)
    for case in range(matrix_row.n):
        draw = matrix_row.draw(case)
        with matrix_row.case(f"case {case}"):
            text = EDITS[case % len(EDITS)](_text(draw), draw)
            found = check(SmilesSource(tmp_path / "a.smi"), text, AnyLine(), tmp_path / "home")
            readable = plain(text)
            if found is not None and readable is not None:
                words = [line.split() for line in readable.split(b"\n") if not line.startswith(b"\t")]
                first = {}
                for number, line in enumerate(words, start=1):
                    if line:
                        first.setdefault(line[1] if len(line) > 1 else b"a.smi:%d" % number, line[0])
                assert len(found) >= len(first) - 1  # of names, one may look like a `file:line`
                assert set(found.values()) <= set(first.values()) | {line[0] for line in words if line}
    matrix_row.check()
