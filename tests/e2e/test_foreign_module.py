"""A plugin's model may be any `LightningModule`: it trains, logs, saves, and resumes to the same losses."""

import os
from pathlib import Path

import pytest
from runs import Home, assert_same_metrics, read_metrics

from bionemo_core.testing import make_plugin

HOOKS = """
from bionemo_core import Component, configure, hookimpl

BIONEMO_PLUGIN_API = 1


def plain(width: int = 16, dropout: float = 0.2, *, tokenizer, context):
    from plain.network import Plain

    return Plain(tokenizer.vocab_size, width, dropout)


@hookimpl
def bionemo_models():
    yield Component("plain", configure(plain), "a plain LightningModule",
                    defaults={"tokenizer": "esm1nv", "data": "sample", "optim": {"base": "adamw", "lr": 1e-2}})
"""
NETWORK = """
import pytorch_lightning as pl
import torch
from torch import nn


class Plain(pl.LightningModule):
    def __init__(self, vocab_size, width, dropout):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Embedding(vocab_size, width), nn.Dropout(dropout), nn.Linear(width, vocab_size)
        )

    def _loss(self, batch):
        logits = self.layers(batch.tokens[:, :-1])
        mask = batch.loss_mask[:, 1:]
        return nn.functional.cross_entropy(logits[mask], batch.labels[:, 1:][mask])

    def training_step(self, batch, batch_idx):
        return self._loss(batch)

    def validation_step(self, batch, batch_idx):
        self.log("val_loss", self._loss(batch), batch_size=1)
"""
SGD = """
    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.5, momentum=0.9)

    def train_dataloader(self):
        raise AssertionError("the run has its own loader")
"""


@pytest.mark.parametrize("own_optimizer", [False, True])
def test_a_plain_lightning_module_trains_and_resumes(home: Home, tmp_path: Path, own_optimizer: bool) -> None:
    make_plugin(tmp_path, "plain", HOOKS, files={"network.py": NETWORK + (SGD if own_optimizer else "")})
    environment = {"PYTHONPATH": os.fspath(tmp_path), "BIONEMO_LOAD_PLUGINS": "bionemo-esm,bionemo-plain"}
    settings = (
        "model=plain",
        "~model.num_layers",
        "~model.hidden_size",
        "batch.packing=false",
        "batch.accumulate_grad_batches=2",
        "trainer.max_steps=12",
        "trainer.val_check_interval=4",
        "checkpoint.every_n_steps=4",
        "optim.lr=0.1",
        "scheduler=constant",  # any other ends with the run, and the first part is shorter
        "scheduler.warmup_steps=1",
    )
    kind = f"plain-{own_optimizer}"
    whole = home.finish(f"name={kind}", *settings, **environment)
    said = "Plain: its train_dataloader is not used; data=NAME chooses the data."
    assert (said in whole.output()) is own_optimizer
    metrics = read_metrics(whole.folder)
    assert list(metrics) == list(range(1, 13))
    assert float(metrics[12]["reduced_train_loss"]) < float(metrics[1]["reduced_train_loss"])
    home.finish(f"name={kind}-part", *settings, "trainer.max_steps=8", **environment)
    resumed = home.finish(f"name={kind}-part", *settings, "resume=last", **environment)
    assert_same_metrics(resumed.folder, whole.folder)
