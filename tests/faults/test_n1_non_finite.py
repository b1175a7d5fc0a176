"""N1: a loss that is not finite ends the run with status 6 before the update; what is saved is finite."""

import pytest
import torch
from runs import Home

from bionemo_core.checkpoint.load import open_newest_valid

pytestmark = pytest.mark.faults


def test_n1_a_rate_that_blows_the_weights_up(home: Home) -> None:
    run = home.finish("name=blown-up", "optim.lr=1e36", "scheduler=constant", "checkpoint.every_n_steps=1", status=6)
    assert "optim.lr" in run.output()
    assert "Traceback" not in run.output()
    for folder in run.folder.glob("checkpoints/step-*"):
        reader, _ = open_newest_valid(folder.parent)
        for name in reader.names:
            assert torch.isfinite(reader.read(name)).all(), name
