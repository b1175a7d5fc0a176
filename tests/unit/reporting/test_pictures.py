"""Pictures show what they are of, with labels, and none is drawn of nothing."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from bionemo_core.data.store.report import draw_lengths, length_histogram
from bionemo_core.inference.sample_metrics import GeneratedText, SampleCounts
from bionemo_core.io.plots import new_plot, set_count_ticks
from bionemo_core.reporting.html import confusion, histogram, scatter
from bionemo_core.reporting.search_curve import draw_trajectory


class Judge:
    """A judge of texts that keeps what it was told to draw."""

    noun = "text"

    def canonical(self, text: str) -> str | None:
        return None if text == "bad" else text.upper()

    def similarity(self, texts: list[str], references: list[str]) -> list[float]:
        return [0.5 for _ in texts]

    def draw_grid(self, texts: list[str], captions: list[str], path: str) -> None:
        self.drawn = list(zip(texts, captions, strict=True))


def test_samples_are_drawn_after_their_input_with_words_beside_the_numbers(tmp_path: Path) -> None:
    judge = Judge()
    counts = SampleCounts(judge, None)
    for name, text, samples in (
        ("ethanol", "cco", ["ccn", "bad", "CCN", "ccc"]),
        ("a-rather-long-name-25", "c", ["n"]),
    ):
        counts.count(GeneratedText(name, text, number, 0, sample) for number, sample in enumerate(samples))
    counts.draw(tmp_path / "samples.png", 24)
    assert judge.drawn == [
        ("cco", "input ethanol"),
        ("CCN", "similarity 0.50"),
        ("CCC", "similarity 0.50"),
        ("c", "input a-rather-long-nam..."),
        ("N", "similarity 0.50"),
    ]
    prior = SampleCounts(judge, None)
    prior.count([GeneratedText("", "", 0, 0, "cc"), GeneratedText("", "", 1, 0, "n")])
    prior.draw(tmp_path / "samples.png", 24)
    assert judge.drawn == [("CC", "sample 1"), ("N", "sample 2")]


def test_a_histogram_of_one_bar_is_not_drawn() -> None:
    assert histogram(np.full(30, 2.0), "error", "Errors.") == []
    assert len(histogram(np.arange(30.0), "error", "Errors.")) == 1
    constant = np.full(30, 2.0)
    assert [figure.caption for figure in scatter(constant, constant)] == [
        "Predicted values against labels; the line is where both agree."
    ]


@pytest.mark.parametrize("last", [0, 1, 3, 100])
def test_counts_are_marked_in_whole_numbers(last: int) -> None:
    _, axes = new_plot()
    axes.plot([0, last], [0, last])
    set_count_ticks(axes.xaxis)
    assert all(float(tick).is_integer() for tick in axes.get_xticks())


def test_sequences_of_one_length_are_a_bar_in_the_middle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []
    monkeypatch.setattr("bionemo_core.data.store.report.save_png", lambda figure, path, **_: drawn.append(figure))
    monkeypatch.setattr("bionemo_core.data.store.report.summary", lambda manifest: "two")
    draw_lengths({"lengths": length_histogram(np.full(2, 64, np.int32))}, tmp_path / "lengths.png")
    low, high = drawn[0].axes[0].get_xlim()
    assert (low + high) / 2 == 64 and high - low > 5


def test_a_search_that_only_scored_its_start_is_visible(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []
    monkeypatch.setattr("bionemo_core.reporting.search_curve.save_png", lambda figure, path: drawn.append(figure))
    step = SimpleNamespace(start=0, oracle_calls=0, score=0.5)
    result = SimpleNamespace(starts=["CCO"], steps=[step], settings=SimpleNamespace(algorithm="cma-es"))
    draw_trajectory(tmp_path / "trajectory.png", [result], "qed")
    axes = drawn[0].axes[0]
    assert axes.get_title(loc="left") == "qed from 1 start"
    assert [line.get_marker() for line in axes.lines if line.get_label().startswith("cma-es")] == ["o"]


@pytest.mark.parametrize("name", ["$\\frac$", "膜"])
def test_a_class_may_have_any_name(name: str) -> None:
    (figure,) = confusion(np.array([0, 1]), np.array([0, 1]), [name, "other"])
    assert figure.png.startswith(b"\x89PNG")
