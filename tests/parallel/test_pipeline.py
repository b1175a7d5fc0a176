"""Stages of a pipeline against one process: the same losses with dropout, and checkpoints that move between them."""

import csv
from pathlib import Path

import pytest
from runs import Home, Run, finish_ranks, read_metrics

STEPS = 12
COMMON = (
    "model.num_layers=3",
    "model.hidden_size=32",
    "model.ffn_hidden_size=64",
    "batch.seq_length=64",
    "batch.micro_batch_size=1",
    "batch.global_batch_size=4",
    f"trainer.max_steps={STEPS}",
    "trainer.val_check_interval=4",
    "trainer.gradient_clip_val=0.5",
    "checkpoint.every_n_steps=4",
)
"""Dropout is on, every step is clipped, and 3 layers do not divide evenly over 2 stages."""
TWO_STAGES = ("trainer.devices=2", "parallel.pipeline_model_parallel_size=2")
FOUR_RANKS = ("trainer.devices=4", "parallel.pipeline_model_parallel_size=2")
LAYOUTS_OF_FOUR = {
    "sharded": (*FOUR_RANKS, "parallel.sharding_strategy=full"),
    "replicated": (*FOUR_RANKS, "parallel.sharding_strategy=none"),
    "tensor": (*FOUR_RANKS, "parallel.tensor_model_parallel_size=2"),
}
QUICK = "sharded"
"""The layout of four ranks in every test run; the others are slow."""


@pytest.fixture(scope="module")
def one_process(home: Home) -> Path:
    return home.finish("name=one", *COMMON).folder


def assert_equal(run: Run, reference: Path) -> None:
    got, expected = read_metrics(run.folder), read_metrics(reference)
    assert list(got) == list(expected)
    for step, row in expected.items():
        assert float(row["grad_norm"]) > 0.5, "the step is clipped"
        assert got[step]["consumed_samples"] == row["consumed_samples"], "the runs saw different sequences"
        for key, tolerance in (("reduced_train_loss", 1e-6), ("val_loss", 1e-6), ("grad_norm", 1e-5)):
            if row[key]:
                assert float(got[step][key]) == pytest.approx(float(row[key]), rel=tolerance), (step, key)


def test_two_stages_reach_the_losses_of_one_process(home: Home, one_process: Path) -> None:
    run = finish_ranks(home, "name=two", *COMMON, *TWO_STAGES, "task.do_testing=true")
    assert_equal(run, one_process)
    assert "(data 1, tensor 1, pipeline 2)" in run.output()
    assert "layers 1, 2 to 3; each stage is idle for 20% of a step of 4 micro batches" in run.output()


def test_a_run_goes_on_with_two_stages_and_then_on_one_rank(home: Home, one_process: Path) -> None:
    home.finish("name=moves", *COMMON, "trainer.max_steps=4")
    there = finish_ranks(home, "name=moves", *COMMON, *TWO_STAGES, "trainer.max_steps=8", "resume=last")
    assert "resume  step 4" in there.output()
    back = home.finish("name=moves", *COMMON, "resume=last")
    assert "resume  step 8" in back.output()
    assert_equal(back, one_process)


@pytest.mark.parametrize(
    "layout", [pytest.param(name, marks=() if name == QUICK else pytest.mark.slow) for name in LAYOUTS_OF_FOUR]
)
def test_four_ranks_reach_the_losses_of_one_process(home: Home, layout: str) -> None:
    short = (*COMMON, "model.hidden_dropout=0", "model.attention_dropout=0", "trainer.max_steps=4")
    one = home.finish(f"name=one-to-{layout}", *short)  # without dropout, which differs between data-parallel ranks
    assert_equal(finish_ranks(home, f"name={layout}", *short, *LAYOUTS_OF_FOUR[layout]), one.folder)


def read_test_loss(run: Run) -> float:
    with (run.folder / "metrics.csv").open() as file:
        return next(float(row["test_loss"]) for row in csv.DictReader(file) if row.get("test_loss"))


@pytest.mark.parametrize(
    "key", ["pipeline_model_parallel_size", pytest.param("tensor_model_parallel_size", marks=pytest.mark.slow)]
)
def test_a_model_is_tested_without_training(home: Home, one_process: Path, key: str) -> None:
    only_test = (*COMMON, f"restore_from_path={one_process}", "task.do_training=false", "task.do_testing=true")
    one = home.finish(f"name=test-for-{key}", *only_test)
    two = finish_ranks(home, f"name=test-{key}", *only_test, "trainer.devices=2", f"parallel.{key}=2")
    assert read_test_loss(two) == pytest.approx(read_test_loss(one), rel=1e-6)
