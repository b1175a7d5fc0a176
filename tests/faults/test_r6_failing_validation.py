"""R6: a validation that fails loses no step: what was trained before it is saved, and the run goes on from there."""

import csv
import os
from pathlib import Path

import pytest
from matrix import row
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
        if os.environ.get("FAILS_AT") == str(trainer.global_step):
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


def test_r6_a_failing_validation(home: Home, reference: Path, tmp_path: Path) -> None:
    make_plugin(tmp_path, "failing", HOOKS)
    plugins = {"PYTHONPATH": os.fspath(tmp_path), "BIONEMO_LOAD_PLUGINS": "bionemo-esm,bionemo-failing"}
    matrix = row("R6", subset=1, full=4)
    for case in range(matrix.n):
        step = 10 * (case + 1)
        with matrix.case(f"at step {step}"):
            options = (f"name=failing-{step}", "callbacks=failing", "checkpoint.every_n_steps=1000")
            run = home.finish(*options, status=70, FAILS_AT=str(step), **plugins)
            assert "the probe is broken" in run.output()
            assert f"The validation after step {step} failed; the checkpoint of step {step} is in" in run.output()
            assert run.checkpoints == [step]
            assert losses(home.finish(*options, "resume=last", **plugins).folder) == losses(reference)
    matrix.check()
