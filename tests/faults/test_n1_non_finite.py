"""N1: a loss that is not finite ends the run with status 6 before the update; what is saved is finite."""

import os
from pathlib import Path

import pytest
import torch
from runs import Home, assert_same_metrics

from bionemo_core.checkpoint.load import open_newest_valid
from bionemo_core.testing import make_plugin

pytestmark = pytest.mark.faults


HOOKS = """
import os

import pytorch_lightning as pl

from bionemo_core import Component, configure, hookimpl

BIONEMO_PLUGIN_API = 1


class Poison(pl.Callback):
    def on_train_batch_start(self, trainer, pl_module, *_):
        if os.environ.get("POISONED") == str(trainer.global_step):
            next(pl_module.parameters()).register_hook(lambda gradient: gradient / 0)


def poison():
    return Poison()


@hookimpl
def bionemo_callbacks():
    yield Component("poison", configure(poison), "makes a gradient infinite when told to")
"""
NOT_SAVED = "nothing of this run was saved before, so there is nothing to resume from: run the same command again"


def test_n1_before_the_first_checkpoint(home: Home, reference: Path, tmp_path: Path) -> None:
    make_plugin(tmp_path, "poison", HOOKS)
    plugins = {"PYTHONPATH": os.fspath(tmp_path), "BIONEMO_LOAD_PLUGINS": "bionemo-esm,bionemo-poison"}
    options = ("callbacks=poison", "checkpoint.every_n_steps=1000")
    run = home.finish("name=poisoned-first", *options, status=6, POISONED="0", **plugins)
    assert NOT_SAVED in run.output()
    assert run.checkpoints == []
    run = home.finish("name=poisoned", *options, status=6, POISONED="7", **plugins)
    assert NOT_SAVED not in run.output()
    assert "Step 8 failed; the checkpoint of step 7 is in" in run.output()
    assert run.checkpoints == [7]
    assert_same_metrics(home.finish("name=poisoned", *options, "resume=last", **plugins).folder, reference)
    run = home.finish(
        "name=poisoned-later", *options[:1], "checkpoint.every_n_steps=5", status=6, POISONED="7", **plugins
    )
    assert run.checkpoints == [5], "a state that gives no finite loss takes the place of no older one"


def test_n1_a_rate_that_blows_the_weights_up(home: Home) -> None:
    run = home.finish("name=blown-up", "optim.lr=1e36", "scheduler=constant", "checkpoint.every_n_steps=1", status=6)
    assert "optim.lr" in run.output()
    assert "Traceback" not in run.output()
    for folder in run.folder.glob("checkpoints/step-*"):
        reader, _ = open_newest_valid(folder.parent)
        for name in reader.names:
            assert torch.isfinite(reader.read(name)).all(), name
