"""A validation that fails: what was trained before it is saved, and the run goes on from there."""

import csv
import os
from pathlib import Path

import pytest
from runs import Home

from bionemo_core.testing import make_plugin

pytestmark = pytest.mark.faults

HOOKS = """
import os

import pytorch_lightning as pl

from bionemo_core import Component, configure, hookimpl

BIONEMO_PLUGIN_API = 1


class Failing(pl.Callback):
    def on_validation_batch_end(self, trainer, pl_module, *_):
        if os.environ.get("FAILS"):
            raise RuntimeError("the probe is broken")


def failing():
    return Failing()


@hookimpl
def bionemo_callbacks():
    yield Component("failing", configure(failing), "fails in validation when told to")
"""


def losses(folder: Path) -> dict[float, str]:
    with (folder / "metrics.csv").open() as file:
        return {float(row["step"]): row["reduced_train_loss"] for row in csv.DictReader(file)}


def test_a_failing_validation_loses_no_step(home: Home, reference: Path, tmp_path: Path) -> None:
    make_plugin(tmp_path, "failing", HOOKS)
    plugins = {"PYTHONPATH": os.fspath(tmp_path), "BIONEMO_LOAD_PLUGINS": "bionemo-esm,bionemo-failing"}
    options = ("name=failing", "callbacks=failing", "checkpoint.every_n_steps=1000")
    run = home.finish(*options, status=70, FAILS="1", **plugins)
    assert "the probe is broken" in run.output()
    assert "The validation after step 10 failed; that step's checkpoint is in" in run.output()
    assert run.checkpoints == [10]
    resumed = home.finish(*options, "resume=last", **plugins)
    expected = losses(reference)
    assert {step: loss for step, loss in losses(resumed.folder).items() if step > 10} == {
        step: loss for step, loss in expected.items() if step > 10
    }
