"""Pre-train a model: from a run specification to a run folder."""

from __future__ import annotations

from dataclasses import dataclass, replace
from time import monotonic
from typing import TYPE_CHECKING, Any

import pytorch_lightning as pl

from bionemo_core.checkpoint.load import CheckpointReader
from bionemo_core.checkpoint.retention import set_aside_after
from bionemo_core.config.plan import BatchPlan, batch_plan
from bionemo_core.config.schema import RunSpec
from bionemo_core.config.spec import difference, from_json
from bionemo_core.parallel.strategy import strategy_of
from bionemo_core.protocols import DataSplits, Tokenizer
from bionemo_core.tasks.device import Device, choose_device
from bionemo_core.tasks.report import print_plan, print_resume, quieten_libraries
from bionemo_core.tasks.resume import check_resume, held, open_folder, restore_weights, write_spec
from bionemo_core.tasks.run_folder import RunFolder
from bionemo_core.tasks.streams import Streams
from bionemo_core.tasks.trainer import fit, make_trainer, start_ranks
from bionemo_core.training.callbacks import CheckpointSaver, StopWhenTold
from bionemo_core.training.foreign import Flattened, ForeignModel, ForeignRun, MicroBatches, adopt
from bionemo_core.training.gradients import LossScaler
from bionemo_core.training.module import Recipe
from bionemo_core.training.signals import StopSignal
from bionemo_core.training.summary import write_summary

if TYPE_CHECKING:
    from bionemo_core.plugins.registry import Registry


def train(spec: RunSpec, registry: Registry, *, composed_yaml: str = "") -> None:
    """Run the task to its end, or to a signal, and leave a run folder.

    Raises:
        BioNeMoError: every failure that a user can meet.
    """
    quieten_libraries()
    device = choose_device(spec)
    folder, reader = open_folder(spec)
    with held(folder), StopSignal() as stop:
        saver = CheckpointSaver(folder.checkpoints, spec.checkpoint, spec.trainer.val_check_interval)
        trainer = make_trainer(spec, registry, device, folder, reader, [saver, StopWhenTold(stop, saver)])
        start_ranks(trainer)
        started = monotonic()
        run = _Run.build(spec, registry, device, folder, reader, trainer)
        if trainer.is_global_zero:
            run.announce(composed_yaml)
        run.fit()
        if trainer.is_global_zero:
            print(write_summary(folder.path, wall_time_s=monotonic() - started).text)


@dataclass(frozen=True)
class _Run:
    """A run whose parts are built: what flows from the command line to the trainer, one way."""

    spec: RunSpec
    saved: RunSpec | None
    plan: BatchPlan
    device: Device
    folder: RunFolder
    reader: CheckpointReader | None
    trainer: pl.Trainer
    tokenizer: Tokenizer
    splits: DataSplits
    module: pl.LightningModule
    recipe: Recipe

    @classmethod
    def build(
        cls,
        spec: RunSpec,
        registry: Registry,
        device: Device,
        folder: RunFolder,
        reader: CheckpointReader | None,
        trainer: pl.Trainer,
    ) -> _Run:
        """Names become objects: tokenizer, data, model, in that order, on every rank."""
        saved = from_json(folder.spec.read_text()) if reader else None
        frozen = saved.batch.global_batch_size if saved else None
        plan = batch_plan(spec, trainer.world_size, frozen_global_batch_size=frozen)
        spec = replace(spec, batch=replace(spec.batch, global_batch_size=plan.global_batch_size), resume=None)
        context = device.context(spec)
        tokenizer = registry.build(spec.tokenizer, context=context)
        splits = registry.build(spec.data, tokenizer=tokenizer, context=context)
        if saved and reader:
            check_resume(saved, spec, reader, splits)
        module = registry.build(spec.model, tokenizer=tokenizer, context=context)
        if spec.restore_from_path and not reader:
            restore_weights(spec.restore_from_path, getattr(module, "network", module), strategy_of(trainer).groups)
        strategy_of(trainer).facts = {"run": spec.name, "data_fingerprint": splits.fingerprint}
        recipe = _recipe(spec, registry, device)
        return cls(spec, saved, plan, device, folder, reader, trainer, tokenizer, splits, module, recipe)

    def announce(self, composed_yaml: str) -> None:
        """Write what the run is and print what was derived; on the first rank only."""
        write_spec(self.folder, self.spec, composed_yaml)
        print_plan(self.spec, self.plan, self.module, self.splits, self.device, self.folder)
        if self.reader and self.saved:
            print_resume(self.reader, difference(self.saved, self.spec))
            set_aside_after(self.reader.folder.parent, self.reader.step)

    def fit(self) -> None:
        """Train, and test if the task says so."""
        foreign = not hasattr(self.module, "network")
        model: Any = ForeignModel.of(self.module, self.spec.batch.seq_length) if foreign else self.module
        groups, on_gpu = strategy_of(self.trainer).groups, self.device.accelerator == "gpu"
        streams = Streams(self.spec, self.plan, self.splits, self.tokenizer, model, groups, on_gpu)
        consumed, first_step = (self.reader.consumed_samples, self.reader.step) if self.reader else (0, 0)
        train, val, test = streams.train(consumed, first_step), streams.val(), None
        if self.spec.task.params.get("do_testing"):
            test = streams.test()
        if foreign:
            train, val, test = self._adopt(train, consumed, val, test)
        else:
            model.recipe = self.recipe
        fit(self.trainer, self.module, train, val, self.reader)
        if test is not None:
            self.trainer.test(self.module, dataloaders=test, verbose=False)

    def _adopt(self, train: Any, consumed_samples: int, *evaluations: Any) -> tuple[Any, ...]:
        """The streams as a foreign module takes them."""
        adopt(self.module, self.trainer, self.recipe, self.plan.accumulate_grad_batches)
        batches = MicroBatches(train, consumed_samples)
        first = ForeignRun(self.spec.seed, batches)
        self.trainer.callbacks.insert(0, first)  # type: ignore[attr-defined]  # Lightning declares it nowhere
        return batches, *(None if steps is None else Flattened(steps) for steps in evaluations)


def _recipe(spec: RunSpec, registry: Registry, device: Device) -> Recipe:
    optim, schedule = registry.build(spec.optim), registry.build(spec.scheduler)
    max_steps = spec.trainer.max_steps

    def learning_rate(step: int) -> float:
        return float(schedule(step, base_lr=optim.lr, max_steps=max_steps))

    learning_rate(0)  # a contradiction between the two shows before anything starts
    return Recipe(
        optim=optim,
        learning_rate=learning_rate,
        seed=spec.seed,
        gradient_clip_val=spec.trainer.gradient_clip_val,
        scaler=LossScaler.for_dtype(device.dtype),
    )
