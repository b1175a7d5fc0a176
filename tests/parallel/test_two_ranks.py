"""Two gloo ranks against one process: same global batches, same losses, and checkpoints that move between them.

In one case the `bionemo-run` command starts its ranks, as it does for a user; elsewhere the test starts them.
"""

from collections.abc import Callable
from pathlib import Path

import pytest
from runs import Home, Run, finish_ranks, read_metrics

STEPS = 6
COMMON = (
    "model.hidden_dropout=0",
    "model.attention_dropout=0",
    "batch.micro_batch_size=2",
    "batch.global_batch_size=4",
    f"trainer.max_steps={STEPS}",
    "trainer.val_check_interval=3",
    "checkpoint.every_n_steps=3",
)
LAYOUTS = {
    "data": ("trainer.devices=2",),
    "tensor": ("trainer.devices=2", "parallel.tensor_model_parallel_size=2"),
    "sequence": ("trainer.devices=2", "parallel.tensor_model_parallel_size=2", "parallel.sequence_parallel=true"),
    "bf16": ("trainer.devices=2", "trainer.precision=bf16-mixed"),
}
STARTED_BY_THE_COMMAND = "tensor"
TOLERANCE = {"data": 1e-5, "tensor": 1e-5, "sequence": 1e-5, "bf16": 3e-3}
"""Relative tolerances of losses; bf16 has 8 bits of mantissa and is compared with float32."""


@pytest.fixture(scope="module")
def one_process(home: Home) -> Path:
    return home.finish("name=one-process", *COMMON).folder


def assert_close(folder: Path, reference: Path, tolerance: float) -> None:
    got, expected = read_metrics(folder), read_metrics(reference)
    assert list(got) == list(expected) == list(range(1, STEPS + 1))
    for step in expected:
        assert got[step]["consumed_samples"] == expected[step]["consumed_samples"], "the runs saw different sequences"
        for key in ("reduced_train_loss", "val_loss"):
            if expected[step][key]:
                assert float(got[step][key]) == pytest.approx(float(expected[step][key]), rel=tolerance), (step, key)
        assert float(got[step]["grad_norm"]) == pytest.approx(float(expected[step]["grad_norm"]), rel=10 * tolerance)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_two_ranks_reach_the_losses_of_one_process(home: Home, one_process: Path, layout: str) -> None:
    finish: Callable[..., Run] = Home.finish if layout == STARTED_BY_THE_COMMAND else finish_ranks
    run = finish(home, f"name=two-{layout}", *COMMON, *LAYOUTS[layout])
    assert_close(run.folder, one_process, TOLERANCE[layout])


@pytest.mark.parametrize("layout", ["data", "tensor"])
def test_a_run_stopped_on_two_ranks_resumes_on_one(home: Home, one_process: Path, layout: str) -> None:
    name = f"name=from-two-{layout}"
    finish_ranks(home, name, *COMMON, *LAYOUTS[layout], "trainer.max_steps=3")
    run = home.finish(name, *COMMON, "resume=last")
    assert "resume  step 3" in run.output()
    assert_close(run.folder, one_process, TOLERANCE[layout])


def test_a_run_stopped_on_one_process_resumes_on_two_ranks(home: Home, one_process: Path) -> None:
    home.finish("name=from-one", *COMMON, "trainer.max_steps=3")
    run = finish_ranks(home, "name=from-one", *COMMON, *LAYOUTS["data"], "resume=last")
    assert_close(run.folder, one_process, TOLERANCE["data"])
