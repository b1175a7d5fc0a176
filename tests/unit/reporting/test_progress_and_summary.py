"""What a user sees during a run and at its end."""

import io
import json
import math
from itertools import pairwise
from types import SimpleNamespace

import pytest
from rich.console import Console

from bionemo_core.reporting.loss_curve import smooth
from bionemo_core.reporting.metrics_file import MetricsFile
from bionemo_core.reporting.summary import LossPicture, duration, short_number, write_summary
from bionemo_core.reporting.training_progress import RunProgress, status_line


def _trainer(**changes):
    trainer = SimpleNamespace(
        global_step=0,
        max_steps=100,
        log_every_n_steps=10,
        callback_metrics={},
        progress_bar_metrics={},
        is_global_zero=True,
        state=SimpleNamespace(fn="fit"),
    )
    for name, value in changes.items():
        setattr(trainer, name, value)
    return trainer


def _train(progress, trainer, steps):
    progress.setup(trainer, None, "fit")
    progress.on_train_start(trainer, None)
    for step in range(trainer.global_step + 1, steps + 1):
        trainer.global_step = step
        trainer.callback_metrics = {"reduced_train_loss": 3 - step / 100, "tokens_per_second": 12345.0, "lr": 4e-4}
        progress.on_train_batch_end(trainer, None, None, None, step - 1)
        if step == 50:
            progress.on_validation_batch_end(trainer, None, None, None, 0)
            trainer.callback_metrics["val_loss"] = 2.75
            progress.on_validation_end(trainer, None)
    progress.on_train_end(trainer, None)


def test_lines_where_there_is_no_terminal():
    out = io.StringIO()
    _train(RunProgress(console=Console(file=out, width=200)), _trainer(), 100)
    lines = out.getvalue().splitlines()
    assert len(lines) == 11
    assert lines[0].startswith("step 10/100  loss 2.9000  lr 4.00e-04  12.3k tokens/s  00:00<00:0")
    assert lines[5] == "step 50/100  val_loss 2.7500"
    assert "\x1b" not in out.getvalue()


def test_a_bar_on_a_terminal_ends_with_the_last_step():
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=140, legacy_windows=False)
    _train(RunProgress(console=console), _trainer(), 100)
    assert "100/100" in out.getvalue()
    assert "loss 2.0000" in out.getvalue()
    assert "val_loss 2.7500" in out.getvalue()


def test_other_ranks_show_nothing():
    out = io.StringIO()
    _train(RunProgress(console=Console(file=out)), _trainer(is_global_zero=False), 100)
    assert out.getvalue() == ""


def test_a_bar_is_taken_away_when_training_fails():
    console = Console(file=io.StringIO(), force_terminal=True)
    progress = RunProgress(console=console)
    progress.setup(_trainer(), None, "fit")
    progress.on_train_start(_trainer(), None)
    assert console._live_stack
    progress.on_exception(_trainer(), None, RuntimeError())
    assert not console._live_stack


def test_the_status_line_leaves_out_what_is_not_known():
    assert status_line(3, "?", {"reduced_train_loss": None, "lr": 0.001}, 61.0, None) == "3/?  lr 1.00e-03  01:01"


@pytest.mark.parametrize(
    ("value", "text"),
    [(7.0, "7"), (950.0, "950"), (1500, "1.50k"), (12345.0, "12.3k"), (123456.0, "123k"), (1.2e6, "1.20M")],
)
def test_numbers_have_three_figures(value, text):
    assert short_number(value) == text


def test_durations():
    assert [duration(x) for x in (5, 83.9, 3723, 183845)] == ["00:05", "01:23", "1:02:03", "2d 03:04:05"]


def test_smoothing_keeps_a_straight_line_and_passes_over_nan():
    line = [float(i) for i in range(300)]
    assert smooth(line) == pytest.approx(line)
    assert all(map(math.isfinite, smooth([1.0, math.nan, 1.0, 1.0])[:1] + smooth([math.nan, 1.0, 1.0, 1.0])[1:]))


def test_smoothing_does_not_end_in_a_spike():
    noisy = [3 - step / 500 + (0.4 if step % 2 else -0.4) for step in range(300)]
    noisy[0] += 1.0
    noisy[-1] += 1.0
    smoothed = smooth(noisy)
    assert smoothed[0] == pytest.approx(3, abs=0.5)
    assert smoothed[-1] == pytest.approx(3 - 299 / 500, abs=0.5)
    assert max(abs(a - b) for a, b in pairwise(smoothed)) < 0.15


def test_the_loss_curve_says_whose_loss_it_is_and_what_is_missing(folder, monkeypatch):
    drawn = []
    monkeypatch.setattr("bionemo_core.reporting.loss_curve.save_png", lambda figure, path: drawn.append(figure))
    file = MetricsFile(folder / "metrics.csv")
    for step in (61, 62):
        file.write(step, {"reduced_train_loss": math.nan})
    write_summary(folder, picture=LossPicture("mine: esm1nv, 2026-11-29", "squared error of scaled labels"))
    write_summary(folder)
    named, bare = (figure.axes[0] for figure in drawn)
    assert named.get_title(loc="left") == "mine: esm1nv, 2026-11-29"
    assert named.get_ylabel() == "loss (squared error of scaled labels)"
    assert bare.get_ylabel() == "loss"
    assert "2 training losses are not finite" in [text.get_text() for text in named.get_legend().get_texts()]
    assert named.get_xlim()[1] > 62


@pytest.fixture
def folder(tmp_path):
    file = MetricsFile(tmp_path / "metrics.csv")
    for step in range(1, 61):
        file.write(
            step,
            {"reduced_train_loss": 3 - step / 60, "tokens_per_second": 1000.0 + step, "consumed_samples": 8 * step},
        )
        if step % 20 == 0:
            file.write(step, {"val_loss": 2.5 + abs(40 - step) / 100})
    (tmp_path / "checkpoints" / "step-00000040").mkdir(parents=True)
    (tmp_path / "checkpoints" / "step-00000060").mkdir()
    return tmp_path


def test_the_summary_says_what_the_run_came_to(folder):
    summary = write_summary(folder, wall_time_s=75.2)
    written = json.loads((folder / "summary.json").read_text())
    assert written == {
        "status": "done",
        "steps": 60,
        "consumed_samples": 480,
        "train_loss": {"first": 3 - 1 / 60, "last": 2.0, "best": 2.0, "best_step": 60},
        "val_loss": {"first": 2.7, "last": 2.7, "best": 2.5, "best_step": 40},
        "test": {},
        "tokens_per_second": 1030.5,
        "wall_time_s": 75.2,
        "checkpoint": "checkpoints/step-00000060",
        "picture": "loss.png",
    }
    assert summary.text.splitlines()[:3] == [
        "done: 60 steps in 01:15, 480 sequences",
        "train loss  2.9833 -> 2.0000, best 2.0000 at step 60",
        "val loss    2.7000 -> 2.7000, best 2.5000 at step 40",
    ]
    assert (folder / "loss.png").read_bytes().startswith(b"\x89PNG")


def test_the_summary_says_what_the_test_split_measured(folder):
    MetricsFile(folder / "metrics.csv").write(60, {"test_loss": 0.25, "test_accuracy": 0.8125})
    summary = write_summary(folder)
    assert json.loads((folder / "summary.json").read_text())["test"] == {"loss": 0.25, "accuracy": 0.8125}
    assert "test        loss 0.25, accuracy 0.8125" in summary.text.splitlines()


def test_a_run_that_measured_nothing_or_only_nan_has_a_summary(tmp_path):
    assert write_summary(tmp_path, status="failed").text == "failed: 0 steps"
    assert json.loads((tmp_path / "summary.json").read_text())["train_loss"] is None
    MetricsFile(tmp_path / "metrics.csv").write(1, {"reduced_train_loss": math.nan})
    write_summary(tmp_path, status="failed")
    assert json.loads((tmp_path / "summary.json").read_text())["train_loss"]["last"] == "nan"
