"""The results of a sweep: what its sweeper gets, and the table."""

import csv
import json
from pathlib import Path

import pytest

from bionemo_core import cli
from bionemo_core.cli import sweep
from bionemo_core.cli.sweep import best_metric
from bionemo_core.config.task_spec import TaskSpec
from bionemo_core.errors import ConfigError, DataError

pytest.importorskip("bionemo_esm")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The home, where a run's loss is its rate times 1, 3 and 2; one with a rate above 1 fails."""
    monkeypatch.setenv("BIONEMO_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)

    def stand_in(spec, registry, *, composed_yaml):
        rate = spec.optim.params["lr"]
        if rate > 1:
            raise DataError("too high")
        folder = tmp_path / f"run-{rate}"
        folder.mkdir()
        (folder / "metrics.csv").write_text("step,val_loss\n" + "".join(f"{n},{n * rate}\n" for n in (1, 3, 2)))
        return folder

    monkeypatch.setattr(TaskSpec, "load", lambda task: stand_in)
    return tmp_path / "home"


def test_a_sweep_ends_with_a_table_of_what_differs(home, capsys, tmp_path):
    typed = ["-m", "model=esm1nv_tiny", "optim.lr=0.1,0.2", "hydra.sweep.dir=swept"]
    assert cli.main([*typed, "checkpoint.mode=max"]) == 0
    with (tmp_path / "swept" / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["optim.lr"], float(row["best val_loss"]), row["status"]) for row in rows] == [
        ("0.1", pytest.approx(0.3), "done"),
        ("0.2", pytest.approx(0.6), "done"),
    ]
    assert list(rows[0]) == ["run", "optim.lr", "best val_loss", "status", "folder"]
    assert rows[1]["folder"] == str(tmp_path / "run-0.2")
    printed = capsys.readouterr().out.splitlines()
    assert printed[-4].split() == ["run", "optim.lr", "best", "val_loss", "status", "folder"]
    assert printed[-1].split() == ["results", "swept/results.csv"]


def test_a_run_that_fails_has_a_row(home, tmp_path, capsys):
    assert cli.main(["-m", "model=esm1nv_tiny", "optim.lr=2,0.1", "hydra.sweep.dir=swept"]) == 3
    with (tmp_path / "swept" / "results.csv").open() as file:
        assert [(row["optim.lr"], row["status"]) for row in csv.DictReader(file)] == [("2", "failed"), ("0.1", "done")]
    jobs = sorted((tmp_path / "swept" / "jobs").iterdir())
    assert json.loads(jobs[1].read_text())["best"] == pytest.approx(0.1)


def test_the_best_value_of_a_metric(tmp_path):
    (tmp_path / "metrics.csv").write_text("step,val_loss\n1,nan\n2,0.5\n3,\n4,0.25\n")
    assert best_metric(tmp_path, "val_loss", "min") == 0.25
    assert best_metric(tmp_path, "val_loss", "max") == 0.5
    assert best_metric(tmp_path, "val_accuracy", "max") is None
    assert best_metric(tmp_path / "none", "val_loss", "min") is None


@pytest.mark.parametrize("direction", [None, "minimize", "Direction.minimize", "[maximize, minimize]"])
def test_a_sweeper_may_look_for_the_lowest_loss(direction):
    sweep._check_direction(direction, "val_loss", "min")


def test_a_sweeper_that_looks_for_the_worst_metric_is_told():
    with pytest.raises(ConfigError, match=r"looks for the worst val_accuracy\. Set hydra\.sweeper\.direction=maximize"):
        sweep._check_direction("Direction.minimize", "val_accuracy", "max")
