"""A linear layer that Lightning trains alone: what a callback or a logger is tried on without a model."""

from typing import Any

from bionemo_core.testing.runs import alone_in_process, kept_generators
from bionemo_core.testing.subject import explain_failures

STEPS = 4


def train_linear_layer(where: str, **options: Any) -> None:
    """Train, validate and test a linear layer for a few steps; `options` are those of Lightning's `Trainer`.

    Raises:
        ConformanceError: an exception ends it.
    """
    import pytorch_lightning as pl
    import torch

    class Linear(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(4, 1)

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            loss = self.layer(batch).square().mean()
            self.log("train_loss", loss)
            return loss

        def validation_step(self, batch: Any, batch_idx: int) -> Any:
            self.log("val_loss", self.layer(batch).square().mean())

        test_step = validation_step

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=0.1)

    quiet: Any = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "log_every_n_steps": 1,
    }
    rows: Any = torch.utils.data.DataLoader(torch.randn(STEPS, 4))  # type: ignore[arg-type]  # a tensor is one
    with explain_failures(f"{where}: training with it"), alone_in_process(), kept_generators():
        trainer = pl.Trainer(accelerator="cpu", max_steps=STEPS, **{**quiet, **options})
        trainer.fit(Linear(), rows, rows)
        trainer.test(Linear(), rows, verbose=False)
