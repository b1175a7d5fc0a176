"""D4: a stale, cut, foreign or damaged store is made again or refused, and never gives a wrong sequence."""

import json
import shutil

import pytest
from matrix import row

from bionemo_core.data.readers import FastaSource
from bionemo_core.data.store.prepare import prepare
from bionemo_core.data.store.record_store import PreparedStore
from bionemo_core.data.store.residue_filter import ResidueFilter
from bionemo_core.errors import DataError
from bionemo_core.io.hashing import seal
from bionemo_core.protocols import BuildContext

pytestmark = [pytest.mark.faults, pytest.mark.usefixtures("without_fsync")]
RULES = ResidueFilter("ACDEFGHIKLMNPQRSTVWY", deduplicate=True)
ONE = {"a": b"MKT", "b": b"LLLA", "d": b"AYIAKQ"}
OTHER = {"a": b"MKA", "b": b"WWWA", "d": b"AYIAKW"}


def _fasta(content):
    return b"".join(b">%s\n%s\n" % (name.encode(), text) for name, text in content.items()) + b">e\n%s\n" % content["a"]


def _contents(store):
    return dict(zip(store.ids(), [store[i] for i in range(len(store))], strict=True))


def _flip(folder, draw):
    path = draw.choice([one for one in sorted(folder.iterdir()) if one.stat().st_size])
    raw = bytearray(path.read_bytes())
    raw[draw.randrange(len(raw))] ^= 1 << draw.randrange(8)
    path.write_bytes(raw)


def _cut(folder, draw):
    path = draw.choice(sorted(folder.iterdir()))
    path.write_bytes(path.read_bytes()[: draw.randrange(path.stat().st_size)])


def _remove(folder, draw):
    draw.choice(sorted(folder.iterdir())).unlink()


def _append(folder, draw):
    path = draw.choice(sorted(folder.iterdir()))
    path.write_bytes(path.read_bytes() + draw.randbytes(draw.randint(1, 64)))


def _foreign_version(folder, draw):
    path = folder / "manifest.json"
    path.write_text(json.dumps(seal({**json.loads(path.read_text()), "version": draw.choice([0, 1, 3, None, "2"])})))


def _edited_and_sealed(folder, draw):
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    key = draw.choice(["files", "records", "fingerprint", "format"])
    manifest[key] = draw.choice([None, {}, [], "x", 3, {"records.arrow": {}}, {"rows": -1, "used": 1}])
    path.write_text(json.dumps(seal(manifest)))


def _of_another_source(folder, draw):
    donor = folder.parent / "other"
    names = sorted(path.name for path in donor.iterdir())
    for name in names if draw.random() < 0.5 else [draw.choice(names)]:
        shutil.copyfile(donor / name, folder / name)


MUTATIONS = [_flip, _cut, _remove, _append, _foreign_version, _edited_and_sealed, _of_another_source]


@pytest.fixture(scope="module")
def pristine(tmp_path_factory):
    home = tmp_path_factory.mktemp("pristine")
    source = home / "a.fasta"
    source.write_bytes(_fasta(OTHER))
    prepare(FastaSource(source), RULES, BuildContext(home=str(home))).folder.rename(home / "prepared/other")
    source.write_bytes(_fasta(ONE))
    prepare(FastaSource(source), RULES, BuildContext(home=str(home)))
    return home


def test_d4(tmp_path, pristine):
    matrix_row = row("D4", subset=42, full=200)
    for case in range(matrix_row.n):
        draw = matrix_row.draw(case)
        home = tmp_path / str(case)
        shutil.copytree(pristine, home)
        (folder,) = [path for path in (home / "prepared").iterdir() if path.is_dir() and path.name != "other"]
        mutate = MUTATIONS[case % len(MUTATIONS)]
        mutate(folder, draw)
        with matrix_row.case(f"case {case} {mutate.__name__}"):
            try:
                assert _contents(PreparedStore(folder, folder.name)) == ONE
            except DataError as error:
                assert str(folder) in str(error)
            context = BuildContext(home=str(home))
            assert _contents(prepare(FastaSource(home / "a.fasta"), RULES, context)) == ONE
            (home / "a.fasta").write_bytes(_fasta(OTHER))
            assert _contents(prepare(FastaSource(home / "a.fasta"), RULES, context)) == OTHER
    matrix_row.check()
