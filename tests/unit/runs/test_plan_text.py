"""The plan of a run says only what the run does, in units that fit."""

from types import SimpleNamespace
from typing import Any

import pytest

from bionemo_core.runs.plan_text import GIB, MIB, _training_lines


def lines(num_bytes: float, **task: Any) -> dict[str, str]:
    trainer = SimpleNamespace(max_steps=5000, val_check_interval=250)
    spec: Any = SimpleNamespace(trainer=trainer, task=SimpleNamespace(params=task))
    return dict(_training_lines(spec, num_bytes, "adamw, cosine"))


@pytest.mark.parametrize(
    ("num_bytes", "words"), [(1.2 * MIB, "about 1 MiB a rank"), (700 * MIB, "about 700 MiB"), (2 * GIB, "2.00 GiB")]
)
def test_memory_has_a_unit_that_fits(num_bytes: float, words: str) -> None:
    assert words in lines(num_bytes)["memory"]


def test_a_run_that_only_tests_has_no_plan_of_steps() -> None:
    assert lines(MIB, do_training=False) == {"steps": "none: task.do_training=false only tests"}
    assert lines(MIB, do_training=True)["steps"] == "5,000, validation every 250"
