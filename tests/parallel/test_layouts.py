"""Every way to divide a run over ranks reaches the losses of one process, and resumes the checkpoints of every other.

The ranks are forked from one server, and learn of each other as torchrun tells them.
"""

from pathlib import Path

import pytest
from runs import Home, Run, finish_ranks, read_metrics

STEPS, SAVED = 10, 5
COMMON = (
    "model.hidden_size=32",
    "model.num_attention_heads=4",
    "model.ffn_hidden_size=64",
    "model.hidden_dropout=0",
    "model.attention_dropout=0",
    "batch.seq_length=64",
    "batch.micro_batch_size=1",
    "batch.global_batch_size=8",
    f"trainer.max_steps={STEPS}",
    f"trainer.val_check_interval={SAVED}",
    f"checkpoint.every_n_steps={SAVED}",
)


def layout(ranks: int, **parallel: object) -> tuple[str, ...]:
    return (f"trainer.devices={ranks}", *(f"parallel.{key}={value}" for key, value in parallel.items()))


LAYOUTS = {
    "none": layout(2, sharding_strategy="none"),
    "full": layout(2, sharding_strategy="full"),
    "hybrid": layout(4, sharding_strategy="hybrid", shard_size=2),
}
QUICK_RESUMES = (("one", "hybrid"), ("hybrid", "none"))
"""Layouts that save and resume in every test run; every other pair is slow."""
RESUMES = [
    pytest.param(saver, resumer, marks=() if (saver, resumer) in QUICK_RESUMES else pytest.mark.slow)
    for saver in ("one", *LAYOUTS)
    for resumer in ("one", *LAYOUTS)
    if saver != resumer
]


@pytest.fixture(scope="module")
def finished(home: Home) -> dict[str, Run]:
    """The whole run of each layout."""
    return {name: finish_ranks(home, f"name={name}", *COMMON, *words) for name, words in {"one": (), **LAYOUTS}.items()}


def assert_close(folder: Path, reference: Path) -> None:
    got, expected = read_metrics(folder), read_metrics(reference)
    assert list(got) == list(expected) == list(range(1, STEPS + 1))
    for step, row in expected.items():
        assert got[step]["consumed_samples"] == row["consumed_samples"], "the runs saw different sequences"
        for key, tolerance in (("reduced_train_loss", 1e-5), ("val_loss", 1e-5), ("grad_norm", 1e-4)):
            if row[key]:
                assert float(got[step][key]) == pytest.approx(float(row[key]), rel=tolerance), (step, key)


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_layout_reaches_the_losses_of_one_process(finished: dict[str, Run], name: str) -> None:
    assert_close(finished[name].folder, finished["one"].folder)
    assert f"parallel.sharding_strategy={name}" in finished[name].output(), "the plan says why"


def test_a_small_model_is_replicated_and_gradients_may_be_summed_in_16_bit(home: Home) -> None:
    short = (*COMMON, *layout(2), "trainer.max_steps=2", "trainer.val_check_interval=2", "batch.global_batch_size=2")
    exact, rough = (
        finish_ranks(home, f"name=reduced-{dtype}", *short, f"parallel.reduce_dtype={dtype}")
        for dtype in ("float32", "bfloat16")
    )
    assert "sharding  none, each of the 2 data-parallel ranks has all weights" in exact.output()
    norms = [float(read_metrics(run.folder)[1]["grad_norm"]) for run in (exact, rough)]
    assert norms[0] != norms[1] and norms[1] == pytest.approx(norms[0], rel=1e-2)


@pytest.mark.parametrize(("saver", "resumer"), RESUMES)
def test_a_layout_resumes_the_checkpoints_of_another(
    home: Home, finished: dict[str, Run], saver: str, resumer: str
) -> None:
    run = f"name={saver}-to-{resumer}"
    layouts = {"one": (), **LAYOUTS}
    finish_ranks(home, run, *COMMON, *layouts[saver], f"trainer.max_steps={SAVED}")
    resumed = finish_ranks(home, run, *COMMON, *layouts[resumer], "resume=last")
    assert f"resume  step {SAVED}" in resumed.output()
    assert_close(resumed.folder, finished["one"].folder)
