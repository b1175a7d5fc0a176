"""Pre-train a model: from a run specification to a run folder."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from time import monotonic
from typing import TYPE_CHECKING, Any

import pytorch_lightning as pl
import torch

from bionemo_core.checkpoint.load import CheckpointReader
from bionemo_core.checkpoint.retention import set_aside_after
from bionemo_core.config.batch_plan import BatchPlan, batch_plan
from bionemo_core.config.schema import RunSpec
from bionemo_core.config.spec import difference, from_json
from bionemo_core.data.store.prepare import record_prepared_stores
from bionemo_core.data.store.report import summary
from bionemo_core.interop.load_report import LoadReport
from bionemo_core.parallel.strategy import strategy_of
from bionemo_core.protocols import DataSplits, Tokenizer
from bionemo_core.reporting.summary import write_summary
from bionemo_core.runs.device import Device, choose_device
from bionemo_core.runs.folder import RunFolder
from bionemo_core.runs.hooks import Built, TrainingHooks
from bionemo_core.runs.loaders import RunLoaders
from bionemo_core.runs.plan_text import print_plan, print_resume, quieten_libraries
from bionemo_core.runs.resume import (
    check_resume,
    completed,
    held,
    open_folder,
    record_restore,
    with_first_weights,
    write_spec,
)
from bionemo_core.runs.trainer import lost_ranks_named, make_trainer, start_ranks, tell_callbacks
from bionemo_core.training.any_lightning_module import (
    AnyModuleCallback,
    EvaluationMicroBatches,
    ModuleAdapter,
    TrainingMicroBatches,
    configure_any_module,
)
from bionemo_core.training.callbacks import CheckpointSaver, StopOnSignal
from bionemo_core.training.gradients import LossScaler
from bionemo_core.training.module import Recipe
from bionemo_core.training.signals import StopSignal

if TYPE_CHECKING:
    from bionemo_core.plugins.registry import Registry

log = logging.getLogger("bionemo")


def train(spec: RunSpec, registry: Registry, *, composed_yaml: str = "", hooks: TrainingHooks | None = None) -> None:
    """Run the task to its end, or to a signal, and leave a run folder; `hooks` are another task's.

    Raises:
        BioNeMoError: every failure that a user can meet.
    """
    quieten_libraries()
    hooks = hooks or TrainingHooks()
    device = choose_device(spec)
    folder, reader = open_folder(spec)
    with held(folder), StopSignal() as stop:
        saver = CheckpointSaver(folder.checkpoints, spec.checkpoint, spec.trainer.val_check_interval)
        last = [*hooks.callbacks(spec), saver, StopOnSignal(stop, saver)]
        trainer = make_trainer(spec, registry, device, folder, reader, last)
        start_ranks(trainer)
        started = monotonic()
        run = _Run.build(spec, registry, device, folder, reader, trainer, hooks)
        if trainer.is_global_zero:
            run.announce(composed_yaml)
        run.fit(hooks)
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
    read: tuple[str, ...]
    """What came of each source: read = used + rejected."""
    module: pl.LightningModule
    recipe: Recipe
    restored: LoadReport | None
    """What `restore_from_path` gave; None where nothing was taken."""

    @classmethod
    def build(
        cls,
        spec: RunSpec,
        registry: Registry,
        device: Device,
        folder: RunFolder,
        reader: CheckpointReader | None,
        trainer: pl.Trainer,
        hooks: TrainingHooks,
    ) -> _Run:
        """Names become objects: tokenizer, data, model, in that order, on every rank."""
        saved = completed(from_json(folder.spec.read_text()), registry) if reader else None
        spec = with_first_weights(saved, spec) if saved else spec
        frozen = saved.batch.global_batch_size if saved else None
        plan = batch_plan(spec, trainer.world_size, frozen_global_batch_size=frozen)
        spec = replace(spec, batch=replace(spec.batch, global_batch_size=plan.global_batch_size), resume=None)
        spec = hooks.resolve_spec(spec, saved, registry, device)
        context = device.context(spec)
        tokenizer = registry.build(spec.tokenizer, context=context)
        tell_callbacks(trainer, tokenizer, context)
        with record_prepared_stores() as stores:
            splits = registry.build(spec.data, tokenizer=tokenizer, context=context)
        read = tuple(dict.fromkeys(summary(store.manifest) for store in stores))
        if saved and reader:
            check_resume(saved, spec, reader, splits)
        torch.manual_seed(spec.seed)  # for a model that does not seed itself, as any LightningModule may be
        module = registry.build(spec.model, tokenizer=tokenizer, context=context)
        restored = hooks.load_weights(spec, module, trainer, registry, tokenizer, reader)
        parts = hooks.before_fit(Built(spec, device, folder, trainer, tokenizer, splits, module))
        strategy_of(trainer).facts = {"run": spec.name, "data_fingerprint": splits.fingerprint}
        recipe = _recipe(spec, registry, device)
        splits, module = parts.splits, parts.module
        return cls(
            spec, saved, plan, device, folder, reader, trainer, tokenizer, splits, read, module, recipe, restored
        )

    @property
    def parts(self) -> Built:
        """What a task's additions look at."""
        return Built(self.spec, self.device, self.folder, self.trainer, self.tokenizer, self.splits, self.module)

    def announce(self, composed_yaml: str) -> None:
        """Write what the run is and print what was derived; on the first rank only."""
        write_spec(self.folder, self.spec, composed_yaml)
        print_plan(self.spec, self.plan, self.module, self.splits, self.read, self.device, self.folder)
        if self.restored:
            record_restore(self.folder, self.restored)
        if self.reader and self.saved:
            print_resume(self.reader, difference(self.saved, self.spec))
            set_aside_after(self.reader.folder.parent, self.reader.step)

    def fit(self, hooks: TrainingHooks) -> None:
        """Train, and test if the task says so."""
        foreign = not hasattr(self.module, "network")
        model: Any = ModuleAdapter.of(self.module, self.spec.batch.seq_length) if foreign else self.module
        groups, on_gpu = strategy_of(self.trainer).groups, self.device.accelerator == "gpu"
        compiled = strategy_of(self.trainer).compile_layers
        streams = RunLoaders(
            self.spec, self.plan, self.splits, self.tokenizer, model, groups, on_gpu, static_shapes=on_gpu and compiled
        )
        consumed, first_step = (self.reader.consumed_samples, self.reader.step) if self.reader else (0, 0)
        train, val, test = streams.train(consumed, first_step), streams.val(), None
        if self.spec.task.params.get("do_testing"):
            test = streams.test()
        if foreign:
            train, val, test = self._adopt(train, consumed, val, test)
        else:
            model.recipe = self.recipe
        saved: Any = {"ckpt_path": str(self.reader.folder), "weights_only": False} if self.reader else {}
        with lost_ranks_named():
            self.trainer.fit(self.module, train_dataloaders=train, val_dataloaders=val, **saved)
        self._say_if_time_ended_it()
        hooks.after_fit(self.parts)
        if test is not None:
            self.trainer.test(self.module, dataloaders=test, verbose=False)

    def _say_if_time_ended_it(self) -> None:
        minutes, step = self.spec.trainer.max_time_min, self.trainer.global_step
        timers = [one for one in self.trainer.callbacks if isinstance(one, pl.callbacks.Timer)]  # type: ignore[attr-defined]  # as below
        if minutes and step < self.spec.trainer.max_steps and any((one.time_remaining() or 0) <= 0 for one in timers):
            log.warning(
                "Training ended at step %d of %d: trainer.max_time_min=%g is used up, over all sessions of the run.",
                step,
                self.spec.trainer.max_steps,
                minutes,
            )

    def _adopt(self, train: Any, consumed_samples: int, *evaluations: Any) -> tuple[Any, ...]:
        """Return the batches in the form that another LightningModule takes."""
        configure_any_module(self.module, self.trainer, self.recipe, self.plan.accumulate_grad_batches)
        batches = TrainingMicroBatches(train, consumed_samples)
        first = AnyModuleCallback(self.spec.seed, batches)
        self.trainer.callbacks.insert(0, first)  # type: ignore[attr-defined]  # Lightning declares it nowhere
        return batches, *(None if steps is None else EvaluationMicroBatches(steps) for steps in evaluations)


def _recipe(spec: RunSpec, registry: Registry, device: Device) -> Recipe:
    optim, schedule = registry.build(spec.optim), registry.build(spec.scheduler)
    max_steps = spec.trainer.max_steps

    def learning_rate(step: int) -> float:
        return float(schedule(step, base_lr=optim.lr, max_steps=max_steps))

    warmup = getattr(schedule, "warmup_steps", 0) or 0
    if warmup > max_steps:
        log.warning(
            "scheduler.warmup_steps=%d is more than the %d steps of this run: "
            "the learning rate only rises, to %.1e at the end.",
            warmup,
            max_steps,
            learning_rate(max_steps - 1),
        )
    learning_rate(0)  # a contradiction between the two shows before anything starts
    return Recipe(
        optim=optim,
        learning_rate=learning_rate,
        seed=spec.seed,
        gradient_clip_val=spec.trainer.gradient_clip_val,
        scaler=LossScaler.for_dtype(device.dtype),
    )
