"""The plan of a run says only what the run does, in units that fit."""

from types import SimpleNamespace
from typing import Any

import pytest

from bionemo_core.machine import GIB, MIB
from bionemo_core.runs.plan_text import _size, _training_lines


def lines(**task: Any) -> dict[str, str]:
    trainer = SimpleNamespace(max_steps=5000, val_check_interval=250)
    spec: Any = SimpleNamespace(trainer=trainer, task=SimpleNamespace(params=task))
    return dict(_training_lines(spec, [("memory", "about 1 MiB")], "adamw, cosine"))


@pytest.mark.parametrize(("num_bytes", "words"), [(1.2 * MIB, "1 MiB"), (700 * MIB, "700 MiB"), (2 * GIB, "2.00 GiB")])
def test_memory_has_a_unit_that_fits(num_bytes: float, words: str) -> None:
    assert _size(num_bytes) == words


def test_a_run_that_only_tests_has_no_plan_of_steps() -> None:
    assert lines(do_training=False) == {"steps": "none: task.do_training=false only tests"}
    trained = lines(do_training=True)
    assert (trained["memory"], trained["steps"]) == ("about 1 MiB", "5,000, validation every 250")
