"""A notebook trains on one device, and is told that it cannot on several."""

import pytest
import pytorch_lightning as pl
from pytorch_lightning.trainer.connectors import accelerator_connector

from bionemo_core.errors import ConfigError
from bionemo_core.parallel.strategy import MegatronStrategy


def trainer(devices: int) -> pl.Trainer:
    off = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
    return pl.Trainer(strategy=MegatronStrategy(), accelerator="cpu", devices=devices, logger=False, **off)


def test_a_notebook_trains_on_one_device(monkeypatch):
    monkeypatch.setattr(accelerator_connector, "_IS_INTERACTIVE", True)
    assert trainer(1).strategy.launcher.num_processes == 1
    with pytest.raises(ConfigError, match=r"trainer\.devices=2: a notebook"):
        trainer(2)


def test_a_script_starts_several_ranks():
    assert trainer(2).strategy.launcher.num_processes == 2
