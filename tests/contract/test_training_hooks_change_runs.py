"""The hooks of `docs/plugin_hooks.md` that change a training, in short runs of the documented model."""

import json
import re
from dataclasses import replace
from typing import Any

import pytest

from bionemo_core.checkpoint.load import open_newest_valid
from bionemo_core.config.schema import Choice, RunSpec
from bionemo_core.errors import ConfigError
from bionemo_core.parallel.sharding_choice import Sharding
from bionemo_core.testing import Subject
from bionemo_core.testing.runs import run_spec, train_model
from bionemo_core.training.optim import check_layout

SMALL = {"num_layers": 2, "hidden_size": 32}
DRAWN = ("data=augmented", "data.source=sample", "data.augmentations=[{augmentation: strands, share: 0.9}]")
LION = ("optim=lion", "optim.memory=0.5")


def subject_of(extras: Any, *overrides: str) -> Subject:
    return extras(small=SMALL, steps=4, overrides=overrides, learning_rate=1e-3)


def trained(subject: Subject, spec: RunSpec, name: str) -> list[float]:
    return list(train_model(spec, subject, name, subject.folder / name).values())


def test_an_optimizer_and_an_augmentation_change_a_run_that_resumes_exactly(extras, tmp_path):
    subject = subject_of(extras, *LION, *DRAWN)
    spec = run_spec(subject, "even")
    plain = replace(spec, data=Choice("data", "sample"), optim=Choice("optim", "adamw", {"lr": 1e-3}))
    assert trained(subject, plain, "plain")[0] != (whole := trained(subject, spec, "whole"))[0], "other records"
    first = replace(spec, trainer=replace(spec.trainer, max_steps=2))
    trained(subject, first, "parts")
    assert trained(subject, replace(spec, resume="last"), "parts") == whole
    reader, _ = open_newest_valid(subject.folder / "parts" / "checkpoints")
    assert {name.rpartition(".")[2] for name in reader.names if name.startswith("optim.")} == {"average"}
    with pytest.raises(AssertionError, match=r"optim: lion -> adamw"):
        trained(subject, replace(spec, optim=plain.optim, resume="last"), "parts")


def test_a_task_of_a_plugin_trains_the_last_block_only(extras):
    subject = subject_of(extras)
    task = Choice("task", "train_top", {"blocks": 1}, subject.distribution)
    trained(subject, replace(run_spec(subject, "even"), task=task), "top")
    reader, _ = open_newest_valid(subject.folder / "top" / "checkpoints")
    moved = [name for name in reader.names if name.startswith("optim.")]
    assert {found[1] for name in moved if (found := re.search(r"layers\.(\d+)", name))} == {"1"}
    assert not any("embedding" in name for name in moved)


def test_a_loss_of_a_plugin_changes_a_fine_tuning(extras, tmp_path):
    subject = subject_of(extras)
    base = run_spec(subject, "even")
    trained(subject, base, "base")
    table = tmp_path / "labels.csv"
    rows = [f"{'ACGT'[n % 4] * (n % 7 + 3)},{n % 7 + (40 if n % 9 == 0 else 0)}" for n in range(60)]
    table.write_text("\n".join(["sequence,target", *rows]) + "\n")
    data = Choice("data", "labelled_csv", {"dataset_path": str(table), "target_column": "target"})

    def tuned(name: str, **loss: Any) -> list[float]:
        task = Choice("task", "finetune", {"kind": "sequence_regression", **loss})
        source = str(subject.folder / "base")
        spec = replace(base, task=task, data=data, restore_from_path=source, batch=replace(base.batch, packing=False))
        return trained(subject, spec, name)

    huber = tuned("huber", loss="huber", loss_params={"delta": 0.5})
    assert all(one < other for one, other in zip(huber, tuned("squared"), strict=True))
    model = json.loads((subject.folder / "huber" / "run.json").read_text())["model"]["params"]
    assert (model["loss"], model["loss_params"]) == (f"{subject.distribution}/huber", {"delta": 0.5})


@pytest.mark.parametrize(
    ("sharding", "ranks", "refused"),
    [(("full", 2), 1, True), (("none", 1), 2, True), (("none", 1), 1, False), (("full", 1), 1, False)],
)
def test_ranks_that_share_parameters_are_refused_if_the_optimizer_needs_whole_ones(extras, sharding, ranks, refused):
    subject = extras("lion.py", "    def build(", "    whole_parameters = True\n\n    def build(")
    spec = run_spec(subject, "even")
    spec = replace(spec, parallel=replace(spec.parallel, tensor_model_parallel_size=ranks))
    lion = subject.build(subject.component("optim", "lion"))
    if not refused:
        check_layout(spec, lion, Sharding(*sharding))
        return
    with pytest.raises(ConfigError, match="it changes whole parameters, and here ranks share them"):
        check_layout(spec, lion, Sharding(*sharding))
