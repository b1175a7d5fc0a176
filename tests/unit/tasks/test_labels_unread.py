"""Labelled data for a task that reads no labels is refused with what to choose instead."""

from pathlib import Path

import pytest

from bionemo_core import build, cli
from bionemo_core.errors import ConfigError

pytest.importorskip("bionemo_esm")

SMALL = ("model=esm1nv_tiny", "model.num_layers=1", "model.hidden_size=32", "trainer.accelerator=cpu")
DATA = ("data=labelled_csv", "data.dataset_path=t.csv", "batch.num_workers=0")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BIONEMO_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    Path("t.csv").write_text("id,sequence,target\n" + "".join(f"r{row},MKTA{'V' * row},{row}\n" for row in range(9)))


@pytest.mark.parametrize(
    "task", [("name=mine", "trainer.max_steps=1"), ("task=evaluate", "task.output=report")], ids=["train", "evaluate"]
)
def test_a_task_refuses_labels_that_it_does_not_read(task: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([*SMALL, *DATA, *task]) == 2
    said = capsys.readouterr().err
    assert "data: these sequences have labels, which " in said
    assert "task=finetune, or choose data=csv" in said


def test_the_parts_of_a_training_have_no_labels() -> None:
    with pytest.raises(ConfigError, match="these sequences have labels, which this training does not read"):
        build(*SMALL, *DATA)
