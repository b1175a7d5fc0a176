"""The task `train`: pre-train a model, from a run specification to a run folder."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities.model_helpers import is_overridden

from bionemo_core.checkpoint.load import CheckpointReader
from bionemo_core.checkpoint.retention import set_aside_after
from bionemo_core.config.batch_plan import BatchPlan, batch_plan
from bionemo_core.config.schema import OPENED, RunSpec
from bionemo_core.config.spec import difference, from_json
from bionemo_core.data.batches.pair_objective import learn_pairs
from bionemo_core.data.store.prepare import record_prepared_stores
from bionemo_core.data.store.report import summary
from bionemo_core.errors import ConfigError, Preempted
from bionemo_core.interop.load_report import LoadReport
from bionemo_core.interop.stored import ABSENT
from bionemo_core.nn.missing_weights import missing_parts, note_missing, require_weights
from bionemo_core.parallel.strategy import strategy_of
from bionemo_core.parallel.weights import network_of
from bionemo_core.reporting.summary import SUMMARY, LossPicture, Summary, write_summary
from bionemo_core.runs.device import Device, choose_device
from bionemo_core.runs.first_weights import record_restore
from bionemo_core.runs.folder import RunFolder, last_session, write_session, write_spec
from bionemo_core.runs.hooks import Built, TrainingHooks
from bionemo_core.runs.loaders import RunLoaders
from bionemo_core.runs.memory_estimate import refuse_absurd
from bionemo_core.runs.plan_text import plan_text, print_resume, quieten_libraries
from bionemo_core.runs.resume import check_resume, explain_stop, fill_defaults, keep_first_weights, open_run
from bionemo_core.runs.trainer import call_meet_run, explain_lost_ranks, make_trainer
from bionemo_core.tasks.training_parts import changed_values, check_records, learning_rate_of, make_recipe
from bionemo_core.training.any_lightning_module import (
    AnyModuleCallback,
    EvaluationMicroBatches,
    ModuleAdapter,
    TrainingMicroBatches,
    configure_any_module,
)
from bionemo_core.training.callbacks import CheckpointSaver, StopOnSignal
from bionemo_core.training.metric_names import check_monitor
from bionemo_core.training.module import Recipe
from bionemo_core.training.optim import check_layout, measure_state
from bionemo_core.training.rate_course import RateCourse, describe_jump, describe_misfit
from bionemo_core.training.signals import StopSignal

if TYPE_CHECKING:
    from bionemo_core.plugins.registry import Registry

log = logging.getLogger("bionemo")


def train(spec: RunSpec, registry: Registry, *, composed_yaml: str = "", hooks: TrainingHooks | None = None) -> Path:
    """Run the task until it ends or a signal stops it, write a run folder, and return its path.

    Args:
        spec: the run.
        registry: where components are looked up.
        composed_yaml: the composed configuration, for the run folder.
        hooks: what another task adds to the run.

    Raises:
        BioNeMoError: the task failed.
    """
    quieten_libraries()
    hooks = hooks or TrainingHooks()
    _check_task(spec)
    device = choose_device(spec)
    if spec.model.name != OPENED and not spec.resume:  # a resumed run has its sizes from its first start
        refuse_absurd(spec, batch_plan(spec), device, measure_state(registry.build(spec.optim), spec.optim.name))
    with StopSignal(remember=False) as stop, open_run(spec, device) as (folder, reader), explain_stop(folder):
        saver = CheckpointSaver(folder.checkpoints, spec.checkpoint, spec.trainer.val_check_interval)
        last = [*hooks.callbacks(spec), saver, StopOnSignal(stop, saver)]
        trainer = make_trainer(spec, registry, device, folder, reader, last)
        started = monotonic()
        run = _Run.build(spec, registry, device, folder, reader, trainer, hooks)
        if trainer.is_global_zero:
            run.announce(composed_yaml)
        try:
            run.fit()
        except Preempted:
            if trainer.is_global_zero:
                run.summarise(monotonic() - started, status="stopped")
            raise
        if trainer.is_global_zero:
            print(run.summarise(monotonic() - started).text)
    return folder.path


def _check_task(spec: RunSpec) -> None:
    """Check a run that is to test without training.

    Raises:
        ConfigError: there is nothing to do, or nothing to test.
    """
    if spec.task.params.get("do_training", True):
        return
    if not spec.task.params.get("do_testing"):
        raise ConfigError(
            "task.do_training=false leaves nothing to do. Set task.do_testing=true to test the model at "
            "restore_from_path, or use task=prepare to only prepare the data."
        )
    if spec.resume or not spec.restore_from_path:
        raise ConfigError(
            "task.do_training=false tests a trained model. Name it with restore_from_path=PATH, and leave resume out."
        )


@dataclass(frozen=True)
class _Run:
    """A run with all its parts built."""

    parts: Built
    plan: BatchPlan
    recipe: Recipe
    registry: Registry
    hooks: TrainingHooks
    read: tuple[str, ...]
    """One line per source: records read, used and rejected."""
    restored: LoadReport | None
    """The load report of `restore_from_path`; None if no weights were loaded."""
    saved: RunSpec | None
    """The specification of the first session; None for a new run."""
    reader: CheckpointReader | None
    """The checkpoint to resume from; None for a new run."""

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
        """Build tokenizer, data and model, in that order, on every rank."""
        saved = fill_defaults(from_json(folder.spec.read_text()), registry) if reader else None
        spec = keep_first_weights(saved, spec) if saved else spec
        frozen = saved.batch.global_batch_size if saved else None
        plan = batch_plan(spec, trainer.world_size, frozen_global_batch_size=frozen)
        spec = replace(spec, batch=replace(spec.batch, global_batch_size=plan.global_batch_size), resume=None)
        with record_prepared_stores() as stores:
            spec = hooks.resolve_spec(spec, saved, registry, device)
            context = device.context(spec)
            tokenizer = registry.build(spec.tokenizer, context=context)
            call_meet_run(trainer, tokenizer, context)
            splits = hooks.build_splits(spec, registry, tokenizer, context)
        check_records(splits, spec)
        if saved and reader:
            check_resume(saved, spec, reader, splits)
        torch.manual_seed(spec.seed)  # for a LightningModule that does not seed itself
        module = registry.build(spec.model, tokenizer=tokenizer, context=context)
        changed = {} if saved else changed_values(spec, registry)  # an earlier version took them without effect
        learn_pairs(module, splits, tokenizer, spec.model.name, changed)
        check_monitor(spec.checkpoint, module, trainer.callbacks)  # type: ignore[attr-defined]  # as below
        restored = hooks.load_weights(spec, module, trainer, registry, tokenizer, reader)
        if restored and not spec.task.params.get("do_training", True):
            note_missing(network_of(module), restored.unfilled, restored.source, restored.absent_note)
            require_weights(network_of(module), "task.do_training=false")
        parts = hooks.before_fit(Built(spec, device, folder, trainer, tokenizer, splits, module))
        strategy = strategy_of(trainer)
        sharding = strategy.decide_sharding(parts.module)
        absent = missing_parts(network_of(module)).facts()
        facts = {"run": spec.name, "data_fingerprint": splits.fingerprint}
        strategy.facts = {**facts, **({ABSENT: absent} if absent else {})}
        check_records(parts.splits, spec)
        recipe = make_recipe(spec, registry, device)
        check_layout(spec, recipe.optim, sharding)
        read = tuple(dict.fromkeys(summary(store.manifest) for store in stores))
        return cls(parts, plan, recipe, registry, hooks, read, restored=restored, saved=saved, reader=reader)

    def announce(self, composed_yaml: str) -> None:
        """Write the specification and print the derived plan; on the first rank only."""
        spec, folder, module = self.parts.spec, self.parts.folder, self.parts.module
        before = fill_defaults(last_session(folder, self.saved), self.registry) if self.saved else None
        write_spec(folder, spec, composed_yaml)
        write_session(folder, spec)
        (folder.path / SUMMARY).unlink(missing_ok=True)  # it is true again at the end of this session
        strategy = strategy_of(self.parts.trainer)
        text = plan_text(
            self.parts,
            self.plan,
            read=self.read,
            rate=self._rate_line(),
            sharding=strategy.decide_sharding(module),
            stages=strategy.decide_stages(module),
            optimizer=measure_state(self.recipe.optim, spec.optim.name),
            graphs=self.parts.device.accelerator == "gpu" and strategy.uses_cuda_graphs,
        )
        print(text, flush=True)
        if self.restored:
            record_restore(folder, self.restored)
        if self.reader and before:
            print_resume(self.reader, difference(before, spec), self._jump_since(before))
            set_aside_after(self.reader.folder.parent, self.reader.step)

    def summarise(self, wall_time_s: float, status: str = "done") -> Summary:
        """Write the summary and the loss curve."""
        spec, path = self.parts.spec, self.parts.folder.path
        picture = LossPicture(
            f"{spec.name}: {spec.model.name}, {path.name}", getattr(self.parts.module, "loss_unit", "")
        )
        return write_summary(path, status=status, wall_time_s=wall_time_s, picture=picture)

    def _rate_line(self) -> str:
        """Return what the learning rate does over the run; warn of a phase that leaves no room for the others."""
        spec, module = self.parts.spec, self.parts.module
        if not hasattr(module, "network") and is_overridden("configure_optimizers", module):
            return "set by the model itself"
        course = RateCourse.of(self.recipe.learning_rate, spec.trainer.max_steps)
        if misfit := describe_misfit(self.registry.build(spec.scheduler), course):
            log.warning(misfit)
        return f"{spec.optim.name}, {spec.scheduler.name}: {course.text}"

    def _jump_since(self, before: RunSpec) -> str:
        """Return what the learning rate does between the last session and this one."""
        assert self.reader
        try:
            rates_before = learning_rate_of(before, self.registry)
        except ConfigError:  # a component of the last session is no longer here, or has other keys
            return ""
        lengths = before.trainer.max_steps, self.parts.spec.trainer.max_steps
        return describe_jump(rates_before, self.recipe.learning_rate, self.reader.step, *lengths)

    def fit(self) -> None:
        """Train and test, as the task asks."""
        spec, trainer, module = self.parts.spec, self.parts.trainer, self.parts.module
        foreign = not hasattr(module, "network")
        model: Any = ModuleAdapter.of(module, spec.batch.seq_length) if foreign else module
        strategy, on_gpu = strategy_of(trainer), self.parts.device.accelerator == "gpu"
        loaders = RunLoaders(
            spec,
            self.plan,
            self.parts.splits,
            self.parts.tokenizer,
            model,
            strategy.groups,
            on_gpu,
            static_shapes=on_gpu and strategy.compile_layers,
        )
        consumed, first_step = (self.reader.consumed_samples, self.reader.step) if self.reader else (0, 0)
        train, val, test = loaders.train(consumed, first_step), loaders.val(), None
        if spec.task.params.get("do_testing"):
            test = loaders.test()
        if foreign:
            train, val, test = self._adapt_loaders(train, consumed, val, test)
        else:
            model.recipe = self.recipe
        if spec.task.params.get("do_training", True):
            self._train(train, val)
            self.hooks.after_fit(self.parts)
        if test is not None:
            trainer.test(module, dataloaders=test, verbose=False)
            self.hooks.after_test(self.parts)

    def _train(self, train: Any, val: Any) -> None:
        saved: Any = {"ckpt_path": str(self.reader.folder), "weights_only": False} if self.reader else {}
        with explain_lost_ranks():
            self.parts.trainer.fit(self.parts.module, train_dataloaders=train, val_dataloaders=val, **saved)
        self._warn_if_time_is_up()

    def _warn_if_time_is_up(self) -> None:
        trainer, settings = self.parts.trainer, self.parts.spec.trainer
        timers = [callback for callback in trainer.callbacks if isinstance(callback, pl.callbacks.Timer)]  # type: ignore[attr-defined]  # as below
        out_of_time = settings.max_time_min and any((timer.time_remaining() or 0) <= 0 for timer in timers)
        if out_of_time and trainer.global_step < settings.max_steps:
            log.warning(
                "Training ended at step %d of %d: trainer.max_time_min=%g is used up, over all sessions of the run.",
                trainer.global_step,
                settings.max_steps,
                settings.max_time_min,
            )

    def _adapt_loaders(self, train: Any, consumed_samples: int, *evaluations: Any) -> tuple[Any, ...]:
        """Return the batches in the form that another LightningModule takes."""
        trainer = self.parts.trainer
        configure_any_module(self.parts.module, trainer, self.recipe, self.plan.accumulate_grad_batches)
        batches = TrainingMicroBatches(train, consumed_samples)
        first = AnyModuleCallback(self.parts.spec.seed, batches)
        trainer.callbacks.insert(0, first)  # type: ignore[attr-defined]  # Lightning does not declare it
        return batches, *(None if steps is None else EvaluationMicroBatches(steps) for steps in evaluations)
