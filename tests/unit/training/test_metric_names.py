"""The metrics that a run says it has are those that it logs, and a monitor outside of them is refused."""

from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch

from bionemo_core import cli
from bionemo_core.config.schema import Checkpoint
from bionemo_core.errors import ConfigError
from bionemo_core.training.callbacks import CheckpointSaver
from bionemo_core.training.metric_names import check_monitor, find_metric_names
from bionemo_core.training.module import LanguageModule

pytest.importorskip("bionemo_molbart")

SHORT = (
    *("trainer.max_steps=1", "trainer.val_check_interval=1", "trainer.limit_val_batches=1", "trainer.num_threads=1"),
    *("trainer.accelerator=cpu", "trainer.progress_bar=false", "batch.num_workers=0", "batch.micro_batch_size=2"),
)
SMALL = ("model.num_layers=1", "model.hidden_size=32", "model.num_attention_heads=2")
PROTEIN = ("model=esm1nv_tiny", "batch.seq_length=32", *SMALL)
SPLITS = ("train", "test", "val")
ROWS = [f"MKTAYI{letter},{row / 2},{SPLITS[row % 3]},{row // 3},1" for row, letter in enumerate("AVLKIC")]
RUNS = {
    "masked": PROTEIN,
    "molecules": ("model=molmim_xsmall", *SMALL),
    "downstream": (
        *(*PROTEIN, "callbacks=[downstream]", "callbacks.downstream.dataset=labelled_csv"),
        *("callbacks.downstream.kind=sequence_regression", "callbacks.downstream.num_epochs=1"),
        "callbacks.downstream.dataset_params={dataset_path: table.csv, split_column: split}",
    ),
    "fine-tuned": (
        *(*PROTEIN, "task=finetune", "task.kind=sequence_regression", "data=labelled_csv"),
        *("data.dataset_path=table.csv", "data.split_column=split", "task.do_testing=false"),
    ),
    "several labels": (
        *(*PROTEIN, "task=finetune", "task.kind=sequence_multilabel", "data=labelled_csv"),
        *("data.dataset_path=table.csv", "data.split_column=split", "data.target_columns=[bound,stable]"),
        "task.do_testing=false",
    ),
}


@pytest.mark.parametrize("kind", RUNS)
def test_a_run_logs_what_it_says_it_logs(kind, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BIONEMO_HOME", str(tmp_path))
    Path("table.csv").write_text("\n".join(["sequence,target,split,bound,stable", *ROWS]) + "\n")
    said, logged = set(), set()

    def record(saver: CheckpointSaver, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        said.update(find_metric_names(module, trainer.callbacks) or ())
        logged.update(trainer.callback_metrics)

    monkeypatch.setattr(CheckpointSaver, "on_validation_end", record)
    assert cli.main([*RUNS[kind], *SHORT]) == 0
    assert said == logged > {"val_loss"}


class Plain(torch.nn.Module):
    """A network that does not say what it logs."""


def module_of(network: torch.nn.Module, **options: Any) -> LanguageModule:
    return LanguageModule(network, objective=None, seq_length=8, **options)


def test_only_a_metric_that_cannot_appear_is_refused():
    silent = torch.nn.Linear(1, 1)
    silent.logged_names = ("extra",)
    check_monitor(Checkpoint(monitor="val_extra", mode="min"), module_of(silent), [])
    with pytest.raises(
        ConfigError, match=r"no such metric. Did you mean 'val_extra'\? Its metrics: val_extra, val_loss"
    ):
        check_monitor(Checkpoint(monitor="val_extr", mode="min"), module_of(silent), [])
    for module, callback in ((module_of(Plain()), None), (module_of(silent), pl.Callback())):
        check_monitor(Checkpoint(monitor="anything", mode="min"), module, [callback] if callback else [])
    check_monitor(Checkpoint(monitor="anything", mode="min"), module_of(silent, probes=[Plain()]), [])
    check_monitor(Checkpoint(monitor="anything", mode="min"), pl.LightningModule(), [])
