"""The hooks that turn a training run into fine-tuning."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytorch_lightning as pl

from bionemo_core._version import __version__
from bionemo_core.config.choice_params import FINETUNED
from bionemo_core.config.schema import Choice, RunSpec
from bionemo_core.data.augmented_labels import AugmentedLabels
from bionemo_core.data.labelled_records import LabelledSplits
from bionemo_core.data.model_input import max_text_tokens
from bionemo_core.errors import ConfigError
from bionemo_core.finetuning.adapters import copy_weights, pretrained_network
from bionemo_core.finetuning.class_metrics import write_table
from bionemo_core.finetuning.early_stopping import StopEarly
from bionemo_core.finetuning.label_checks import LabelCheck, labels_text, warn_of_like_classes
from bionemo_core.finetuning.label_spec import MATCHING, LabelSpec
from bionemo_core.finetuning.long_sequences import shorten
from bionemo_core.finetuning.metrics import AnswerMetrics
from bionemo_core.finetuning.network import StoredStates
from bionemo_core.finetuning.pairs.pair_objective import PairLabelObjective
from bionemo_core.finetuning.pairs.second_model import TokenizerPair, open_second
from bionemo_core.finetuning.pairs.side_encoder import MODEL as SECOND_ENCODER
from bionemo_core.finetuning.pairs.side_encoder import build_tokenizer, own_second
from bionemo_core.inference.embedding import Embedder
from bionemo_core.interop.load_report import LoadReport
from bionemo_core.interop.stored import ABSENT, AbsentParts
from bionemo_core.models.load import OpenedModel, open_model
from bionemo_core.nn.missing_weights import note_missing
from bionemo_core.parallel.layout import read_layouts
from bionemo_core.parallel.ranks import Ranks
from bionemo_core.parallel.strategy import strategy_of
from bionemo_core.parallel.weights import load_weights
from bionemo_core.plugins.records import CORE_DISTRIBUTION
from bionemo_core.runs.device import Device
from bionemo_core.runs.hooks import Built, TrainingHooks
from bionemo_core.runs.launch import opening_on_all_ranks
from bionemo_core.tasks.finetuning.export import gather_weights, load_final_weights, write_model
from bionemo_core.tasks.finetuning.frozen_states import cached_states, finetuned_network
from bionemo_core.tasks.finetuning.linear_head import LinearHead
from bionemo_core.tasks.finetuning.model_params import model_params
from bionemo_core.tasks.finetuning.setting_checks import check_augmented, check_pairs, check_same_model
from bionemo_core.tasks.opening import open_for_use
from bionemo_core.tasks.settings import Finetune

if TYPE_CHECKING:
    from bionemo_core.checkpoint.load import CheckpointReader
    from bionemo_core.plugins.registry import Registry
    from bionemo_core.protocols import BuildContext, DataSplits, InputForm, Tokenizer

_SHORTEST = 3


class FineTuning(TrainingHooks):
    """The hooks that turn a training run into fine-tuning."""

    def __init__(self, task: Finetune, registry: Registry) -> None:
        self.task = task
        self.registry = registry
        self._opened: OpenedModel | None = None
        self._second: OpenedModel | None = None
        """The model of the second sequences of pairs, if it is another one; a resumed run that trains it has none."""
        self._second_tokenizer: Tokenizer | None = None
        self._splits: LabelledSplits | None = None
        self._linear = LinearHead(task)

    def resolve_spec(self, spec: RunSpec, saved: RunSpec | None, registry: Registry, device: Device) -> RunSpec:
        """Replace the pre-trained model by the fine-tuned one in the specification.

        Raises:
            ConfigError: the data has no labels.
        """
        # Averaging needs this many checkpoints.
        keep_last = max(spec.checkpoint.keep_last, self.task.average_last)
        spec = replace(spec, checkpoint=replace(spec.checkpoint, keep_last=keep_last))
        if saved is not None:
            check_same_model(spec, saved)
            with opening_on_all_ranks():
                self._open_second(spec, saved.model.params, device.context(spec))
            return replace(spec, model=saved.model, tokenizer=saved.tokenizer)
        with opening_on_all_ranks():
            opened = self._open(spec, registry, device)
            self._open_second(spec, None, device.context(spec))
        self._opened = opened
        self._splits = self._build_labelled(spec, opened.tokenizer, device.context(spec))
        label_spec = LabelSpec(self.task.kind, targets=self._splits.train.targets)
        usable = self._check_labels(self._splits, label_spec, opened.tokenizer, quiet=True)
        params = model_params(self.task, opened, usable, registry, self._second)
        # Validation and test may have classes that the training labels, which say what the classes are, do not have.
        label_spec = replace(label_spec, classes=tuple(params.get("classes", ())))
        self._check_labels(usable, label_spec, opened.tokenizer, quiet=True)
        model = Choice("model", FINETUNED, params, CORE_DISTRIBUTION, __version__)
        return replace(spec, model=model, tokenizer=opened.spec.tokenizer)

    def build_splits(
        self, spec: RunSpec, registry: Registry, tokenizer: Tokenizer, context: BuildContext
    ) -> DataSplits:
        """Return the data that gave the model its classes; a resumed run builds them."""
        splits, self._splits = self._splits, None
        if splits is None:
            splits = self._build_labelled(spec, tokenizer, context)
        return splits

    def _build_labelled(self, spec: RunSpec, tokenizer: Tokenizer, context: BuildContext) -> LabelledSplits:
        if self._second_tokenizer is not None:
            tokenizer = TokenizerPair(tokenizer, self._second_tokenizer)  # type: ignore[assignment]  # it passes on all
        splits = _check_labelled(self.registry.build(spec.data, tokenizer=tokenizer, context=context))
        if isinstance(splits.train, AugmentedLabels):
            check_augmented(self.task)
        if splits.train.seconds:
            check_pairs(self.task)
        elif self.task.kind == MATCHING:
            raise ConfigError("task.kind=pair_matching: is for data of pairs. Choose data=labelled_pairs.")
        elif self._second_tokenizer is not None:
            raise ConfigError("task.second_model: is for data of pairs. Choose data=labelled_pairs, or leave it out.")
        return splits

    def _open_second(self, spec: RunSpec, params: Mapping[str, Any] | None, context: BuildContext) -> None:
        """Open the model of the second sequences; `params` are those of the fine-tuned model of a resumed run."""
        if params and params.get(SECOND_ENCODER):  # its weights are in the checkpoint
            self._second_tokenizer = build_tokenizer(params, self.registry, context)
            return
        self._second = open_second(self.task.second_model, params, self.registry, spec.home)
        self._second_tokenizer = None if self._second is None else self._second.tokenizer

    def callbacks(self, spec: RunSpec) -> list[pl.Callback]:
        """Return the callback for early stopping, if it is on."""
        if self.task.early_stopping is None:
            return []
        return [StopEarly(spec.checkpoint.monitor, spec.checkpoint.better, self.task.early_stopping)]

    def load_weights(
        self,
        spec: RunSpec,
        module: pl.LightningModule,
        trainer: pl.Trainer,
        registry: Registry,
        tokenizer: Tokenizer,
        reader: CheckpointReader | None,
    ) -> LoadReport | None:
        """Copy the pre-trained weights; for a resumed run load its own, as the frozen states are computed next."""
        network = finetuned_network(module)
        self._linear.resumed = reader is not None
        if reader:
            groups = strategy_of(trainer).groups
            load_weights(network, read_layouts(network, groups), groups, reader)
            absent = AbsentParts.of_facts(reader.facts.get(ABSENT), str(reader.folder))
            note_missing(network, absent.prefixes, str(reader.folder), absent.note)
            return None
        opened, self._opened = self._opened, None
        assert opened is not None
        copy_weights(pretrained_network(opened), network.encoder_network)
        if network.second_network is not None:
            second, self._second = self._second, None
            assert second is not None
            copy_weights(pretrained_network(second), network.second_network)
        return opened.report if opened.report.matched else None

    def before_fit(self, parts: Built) -> Built:
        """Drop sequences that are too long; with a frozen encoder, compute its states and train on them."""
        network = finetuned_network(parts.module)
        self._check_validation(parts)
        splits = self._usable_splits(parts)
        if self.task.encoder != "frozen":
            measured = self.task.baseline and self.task.kind != MATCHING
            if measured and self._linear.is_affordable(parts, splits):
                self._linear.solve(parts, *cached_states(parts, splits, self.registry, self.task.states_dtype))
            return replace(parts, splits=splits)
        splits, kept = cached_states(parts, splits, self.registry, self.task.states_dtype, self._second)
        objective = self._linear.solve(parts, splits, kept)
        network.stored = StoredStates(kept.table)
        parts.module.objective = objective  # type: ignore[assignment]  # torch's stub allows tensors and modules only
        if not objective.inner.label_spec.per_residue:
            parts.module.seq_length = max(_SHORTEST, parts.spec.batch.seq_length or 0)  # type: ignore[assignment]  # as above
        return replace(parts, splits=splits)

    def after_fit(self, parts: Built) -> None:
        """Average checkpoints if set; write the model and, with LoRA, the adapters."""
        step = load_final_weights(self.task, parts)
        tensors = gather_weights(parts)
        self._linear.repeat(parts)
        if parts.trainer.is_global_zero:
            write_model(self.task, parts, tensors, step)

    def after_test(self, parts: Built) -> None:
        """Write the metrics of each class or target beside those of the run."""
        metrics = next(probe for probe in parts.module.probes if isinstance(probe, AnswerMetrics))  # type: ignore[union-attr]  # as above
        if metrics.table and parts.trainer.is_global_zero:
            print(write_table(parts.folder.path, metrics.table, "test_"))

    def _check_validation(self, parts: Built) -> None:
        if self.task.early_stopping is not None and (
            parts.splits.val is None or parts.spec.trainer.limit_val_batches == 0
        ):
            raise ConfigError(
                f"task.early_stopping={self.task.early_stopping}: there is no validation to decide when to stop. "
                "Give the data a validation split, or leave task.early_stopping out."
            )

    def _usable_splits(self, parts: Built) -> LabelledSplits:
        """Return the splits without what cannot be used, and say what they hold."""
        limit = _most_tokens(parts.module, finetuned_network(parts.module).encoder.form, parts)
        label_spec: LabelSpec = parts.module.answers  # type: ignore[assignment]  # as above
        quiet = not parts.trainer.is_global_zero
        splits = self._check_labels(_check_labelled(parts.splits), label_spec, parts.tokenizer, quiet=quiet)
        if not quiet:
            warn_of_like_classes(label_spec)
            print(f"{'classes' if label_spec.of_classes else 'labels':>10}  {labels_text(splits, label_spec)}")
        splits = shorten(splits, limit, self.task.on_long, parts.tokenizer, label_spec, quiet=quiet)
        limits = {0: (parts.tokenizer, limit)}
        if not splits.train.seconds:
            return _with_limits(splits, limits)
        tokenizer = self._second_tokenizer or parts.tokenizer
        if self._second is not None:
            limit = Embedder(self._second.module, tokenizer).long_rule.max_residues
        elif trained := own_second(parts.module):
            limit = _most_tokens(trained.module, trained.form, parts)
        if parts.spec.batch.seq_length and isinstance(parts.module.objective, PairLabelObjective):
            parts.module.objective.limit_rows(parts.spec.batch.seq_length)
        splits = shorten(splits.swapped(), limit, self.task.on_long, tokenizer, label_spec, quiet=quiet).swapped()
        return _with_limits(splits, {**limits, 1: (tokenizer, limit)})

    def _open(self, spec: RunSpec, registry: Registry, device: Device) -> OpenedModel:
        if spec.restore_from_path:
            return open_model(
                spec.restore_from_path, registry, restore=spec.restore, connector=spec.connector, home=spec.home
            )
        return open_for_use(spec, registry, replace(device, precision="32"), Ranks())

    def _check_labels(
        self, splits: LabelledSplits, label_spec: LabelSpec, tokenizer: Tokenizer, *, quiet: bool
    ) -> LabelledSplits:
        return LabelCheck(tokenizer, label_spec, self.task.on_bad_label).splits(splits, quiet=quiet)


def _most_tokens(module: pl.LightningModule, form: InputForm, parts: Built) -> int:
    """Return the tokens of the longest sequence that an encoder gets in a run, without terminal tokens."""
    terminals = sum(form.terminals)
    longest = max_text_tokens(module, terminals)
    return min(longest, (parts.spec.batch.seq_length or longest + terminals) - terminals)


def _with_limits(splits: LabelledSplits, limits: Mapping[int, tuple[Tokenizer, int]]) -> LabelledSplits:
    """Return the splits with training records that no augmentation makes longer than the encoders read."""
    train = splits.train
    return replace(splits, train=replace(train, limits=limits)) if isinstance(train, AugmentedLabels) else splits


def _check_labelled(splits: Any) -> LabelledSplits:
    if isinstance(splits, LabelledSplits):
        return splits
    raise ConfigError(
        "data: task=finetune needs sequences with labels, and this data set has none. Choose data=labelled_csv, "
        "data=labelled_pairs or data=flip_fasta."
    )
