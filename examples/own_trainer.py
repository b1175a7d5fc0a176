"""Training with a Lightning `Trainer` of your own, with any of Lightning's callbacks, loggers and options.

python examples/own_trainer.py [SETTING ...]
"""

import sys

import pytorch_lightning as pl

import bionemo_core
from bionemo_core.parallel.strategy import MegatronStrategy
from bionemo_core.training.module import LanguageModule


class PrintLoss(pl.Callback):
    """Print the metrics of each step."""

    def __init__(self) -> None:
        self.history: list[float] = []

    def on_train_batch_end(self, trainer: pl.Trainer, module: pl.LightningModule, *_: object) -> None:
        """Keep and print the loss of the step."""
        assert isinstance(module, LanguageModule)
        self.history.append(module.metrics["reduced_train_loss"])
        print(f"step {trainer.global_step}: {self.history[-1]:.4f}")


def main(*settings: str) -> list[float]:
    """Train on a CPU, and return the losses."""
    parts = bionemo_core.build("model=esm1nv_tiny", "batch.micro_batch_size=4", "trainer.max_steps=10", *settings)
    losses = PrintLoss()
    trainer = pl.Trainer(
        accelerator="cpu",
        strategy=MegatronStrategy(),
        max_steps=parts.spec.trainer.max_steps,
        callbacks=[losses],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
    )
    trainer.fit(parts.module, train_dataloaders=parts.train)
    return losses.history


if __name__ == "__main__":
    main(*sys.argv[1:])
