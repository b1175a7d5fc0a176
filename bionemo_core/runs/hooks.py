"""The hooks by which a task changes a training run; the run itself is in `tasks.train`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytorch_lightning as pl

from bionemo_core.config.schema import RunSpec
from bionemo_core.data.labelled_records import refuse_labels
from bionemo_core.interop.load_report import LoadReport
from bionemo_core.parallel.strategy import strategy_of
from bionemo_core.parallel.weights import network_of
from bionemo_core.runs.first_weights import restore_weights

if TYPE_CHECKING:
    from bionemo_core.checkpoint.load import CheckpointReader
    from bionemo_core.plugins.registry import Registry
    from bionemo_core.protocols import BuildContext, DataSplits, Tokenizer
    from bionemo_core.runs.device import Device
    from bionemo_core.runs.folder import RunFolder


@dataclass(frozen=True)
class Built:
    """The parts of a run that a task may look at or replace before training starts."""

    spec: RunSpec
    device: Device
    folder: RunFolder
    trainer: pl.Trainer
    tokenizer: Tokenizer
    splits: DataSplits
    module: pl.LightningModule


class TrainingHooks:
    """Hooks that do nothing, as for pre-training; other tasks override those they need."""

    def resolve_spec(self, spec: RunSpec, saved: RunSpec | None, registry: Registry, device: Device) -> RunSpec:
        """Return the specification with its final model and tokenizer; `saved` is that of a resumed run."""
        return spec

    def build_splits(
        self, spec: RunSpec, registry: Registry, tokenizer: Tokenizer, context: BuildContext
    ) -> DataSplits:
        """Return the data of the run, built once; `resolve_spec` was called before."""
        splits: DataSplits = registry.build(spec.data, tokenizer=tokenizer, context=context)
        refuse_labels(splits, f"task={spec.task.name}")
        return splits

    def callbacks(self, spec: RunSpec) -> Sequence[pl.Callback]:
        """Return callbacks to add to those of every run."""
        return ()

    def load_weights(
        self,
        spec: RunSpec,
        module: pl.LightningModule,
        trainer: pl.Trainer,
        registry: Registry,
        tokenizer: Tokenizer,
        reader: CheckpointReader | None,
    ) -> LoadReport | None:
        """Load the weights of a new run from `restore_from_path`; a resumed run loads its own from `reader` later."""
        if reader or not spec.restore_from_path:
            return None
        network = network_of(module)
        return restore_weights(spec, network, strategy_of(trainer).groups, registry, tokenizer)

    def before_fit(self, parts: Built) -> Built:
        """Return the parts to train."""
        return parts

    def after_fit(self, parts: Built) -> None:
        """Run on every rank after a complete training, before the test."""

    def after_test(self, parts: Built) -> None:
        """Run on every rank after the test, if there is one."""
