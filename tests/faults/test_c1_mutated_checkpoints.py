"""C1: a mutated checkpoint is refused or passed over, never read wrongly, and never an unclassified error."""

import shutil

import pytest
import torch
from matrix import Row, row
from mutations import MUTATIONS, swap_folders

from bionemo_core.checkpoint.blocks import whole_part
from bionemo_core.checkpoint.load import CheckpointReader, open_newest_valid
from bionemo_core.checkpoint.save import save
from bionemo_core.errors import CheckpointError

pytestmark = pytest.mark.faults


def _tensors(step):
    draw = torch.Generator().manual_seed(step)
    return {
        "layer.weight": torch.randn(6, 4, generator=draw),
        "layer.bias": torch.randn(6, generator=draw).bfloat16(),
        "count": torch.tensor(step),
    }


def _state(step):
    return {"scheduler": {"last_lr": [step / 3]}, "groups": {0: (step, None)}}


@pytest.fixture(scope="module")
def pristine(tmp_path_factory):
    root = tmp_path_factory.mktemp("pristine")
    for step in (10, 20):
        pieces = [whole_part(name, tensor) for name, tensor in _tensors(step).items()]
        save(root, step, pieces, _state(step), facts={"seed": 1}, consumed_samples=8 * step)
    return root


def _assert_right(reader):
    expected = _tensors(reader.step)
    assert reader.step in (10, 20)
    assert reader.consumed_samples == 8 * reader.step
    assert reader.state == _state(reader.step)
    assert reader.facts == {"seed": 1}
    assert set(reader.names) == set(expected)
    for name, tensor in expected.items():
        back = reader.read(name)
        assert back.dtype == tensor.dtype
        assert torch.equal(back, tensor)


def _run(matrix_row: Row, pristine, tmp_path):
    for case in range(matrix_row.n):
        draw = matrix_row.draw(case)
        mutate = MUTATIONS[case % len(MUTATIONS)]
        both = mutate is not swap_folders and draw.random() < 0.25
        root = tmp_path / str(case)
        shutil.copytree(pristine, root)
        for step in (20, 10) if both else (20,):
            mutate(root / f"step-{step:08d}", draw)
        newest = "step-00000020"
        unchanged = _bytes(root / newest) == _bytes(pristine / newest)
        with matrix_row.case(f"{case} {mutate.__name__}"):
            try:
                reader, skipped = open_newest_valid(root)
            except CheckpointError:
                assert both or mutate is swap_folders, "refused though an older one was intact"
            else:
                _assert_right(reader)
                assert [path.name for path, _ in skipped] == ([] if unchanged else [newest])
                reader.close()
        shutil.rmtree(root)


def _bytes(folder):
    return {path.relative_to(folder): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


def test_mutated_checkpoints(pristine, tmp_path):
    c1 = row("C1", subset=240, full=1000)
    _run(c1, pristine, tmp_path)
    c1.check()


def test_the_row_fails_on_a_build_without_checksums(pristine, tmp_path, monkeypatch):
    monkeypatch.setattr(CheckpointReader, "check_hashes", lambda self, names: None)
    broken = Row("C1-broken", 60, 0)
    _run(broken, pristine, tmp_path)
    assert broken.passed < broken.n
