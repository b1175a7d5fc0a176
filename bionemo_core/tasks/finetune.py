"""The task `finetune`: a training run with a head, labels and metrics on a pre-trained model."""

from __future__ import annotations

import itertools
import json
import logging
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytorch_lightning as pl
import torch
import torch.distributed as dist
from torch.distributed.tensor import DTensor

from bionemo_core._version import __version__
from bionemo_core.checkpoint.folder_names import list_checkpoints, parse_step
from bionemo_core.checkpoint.retention import best_steps
from bionemo_core.config.schema import Choice, RunSpec
from bionemo_core.data.labelled_records import LabelledSplits
from bionemo_core.data.model_input import PLAIN, max_text_tokens
from bionemo_core.errors import ConfigError
from bionemo_core.finetuning.adapters import (
    BASE_WEIGHTS,
    copy_weights,
    named_weights,
    opened_fingerprint,
    pretrained_network,
)
from bionemo_core.finetuning.averaging import AveragedCheckpoints, newest_checkpoints
from bionemo_core.finetuning.early_stopping import StopEarly
from bionemo_core.finetuning.label_checks import LabelCheck, labels_text
from bionemo_core.finetuning.linear.baseline import (
    LINEAR,
    Baseline,
    fill_network,
    read_baseline,
    sampled,
    solve_baseline,
    split_rows,
)
from bionemo_core.finetuning.linear.solve import StateRows
from bionemo_core.finetuning.long_sequences import shorten
from bionemo_core.finetuning.lora import TARGETS, adapter_names
from bionemo_core.finetuning.model import ENCODERS, FINETUNED, KINDS, V1_KINDS, LabelSpec, check_kind, read_choice
from bionemo_core.finetuning.network import FineTunedNetwork, StoredStates
from bionemo_core.finetuning.objective import (
    StoredStatesObjective,
    class_counts,
    classes_of,
    mean_and_scale,
)
from bionemo_core.finetuning.state_cache import StatesTable, load_or_compute_states, number_records, on_first_rank
from bionemo_core.inference.embedding import EMBEDDINGS, HIDDENS, Embedder, EmbeddingSettings
from bionemo_core.interop.artefact import DOCUMENT, Artefact, write_artefact
from bionemo_core.interop.load_report import LoadReport
from bionemo_core.interop.stored import ABSENT, AbsentParts, ModelSpec, Vocabulary
from bionemo_core.io.atomic import move
from bionemo_core.models.load import OpenedModel, open_model
from bionemo_core.nn.missing_weights import missing_parts, note_missing
from bionemo_core.parallel.layout import read_layouts
from bionemo_core.parallel.ranks import Ranks
from bionemo_core.parallel.sharding import reshard
from bionemo_core.parallel.strategy import strategy_of
from bionemo_core.parallel.weights import load_weights
from bionemo_core.plugins.records import CORE_DISTRIBUTION
from bionemo_core.runs.device import Device
from bionemo_core.runs.hooks import Built, TrainingHooks
from bionemo_core.tasks.embed import CPU_BATCH, GPU_BATCH
from bionemo_core.tasks.finetune_checks import check_same_model, check_settings
from bionemo_core.tasks.opening import open_for_use, weights_fingerprint
from bionemo_core.tasks.settings import Finetune
from bionemo_core.tasks.train import train
from bionemo_core.training.callbacks import CheckpointSaver

if TYPE_CHECKING:
    from bionemo_core.checkpoint.load import CheckpointReader
    from bionemo_core.plugins.registry import Registry
    from bionemo_core.protocols import Tokenizer

log = logging.getLogger("bionemo")

ARTEFACT = "model"
ADAPTER = "adapter"
"""Folders in the run folder: the fine-tuned model, and with LoRA the trained adapters and head alone."""

_SHORTEST = 3


def finetune(spec: RunSpec, registry: Registry, *, composed_yaml: str = "") -> Path:
    """Run the task until it ends or a signal stops it; write a run folder with the fine-tuned model; return its path.

    Raises:
        BioNeMoError: the task failed.
    """
    task = Finetune(**spec.task.params)
    task = replace(task, kind=V1_KINDS.get(task.kind, task.kind))
    check_kind(task.kind)
    if task.encoder not in ENCODERS:
        raise ConfigError(f"task.encoder: got {task.encoder!r}, expected one of {', '.join(ENCODERS)}.")
    check_settings(task)
    if spec.parallel.tensor_model_parallel_size > 1:
        raise ConfigError("task=finetune: parallel.tensor_model_parallel_size must be 1; use trainer.devices.")
    if task.head == LINEAR:
        spec = _without_training(spec, registry)
    return train(spec, registry, composed_yaml=composed_yaml, hooks=FineTuning(task, registry))


def _without_training(spec: RunSpec, registry: Registry) -> RunSpec:
    """Return the specification of a run whose head is solved: one step at a learning rate of 0, then validation."""
    constant = registry.get("scheduler", "constant")
    return replace(
        spec,
        trainer=replace(spec.trainer, max_steps=1, val_check_interval=1),
        optim=replace(spec.optim, params={**spec.optim.params, "lr": 0.0}),
        scheduler=Choice("scheduler", constant.name, {}, constant.distribution, constant.version),
    )


class FineTuning(TrainingHooks):
    """The hooks that turn a training run into fine-tuning."""

    def __init__(self, task: Finetune, registry: Registry) -> None:
        self.task = task
        self.registry = registry
        self.per_residue, self.of_classes = KINDS[task.kind]
        self._opened: OpenedModel | None = None
        self._resumed = False
        self._baseline: Baseline | None = None

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
            return replace(spec, model=saved.model, tokenizer=saved.tokenizer)
        opened = self._open(spec, registry, device)
        tokenizer = opened.spec.tokenizer
        splits = _check_labelled(registry.build(spec.data, tokenizer=opened.tokenizer, context=device.context(spec)))
        splits = self._check_labels(splits, LabelSpec(self.task.kind), opened.tokenizer, quiet=True)
        params = self._params(opened, splits, registry)
        answers = LabelSpec(self.task.kind, tuple(params.get("classes", ())))
        self._check_labels(splits, answers, opened.tokenizer, quiet=True)
        self._opened = opened
        return replace(
            spec, model=Choice("model", FINETUNED, params, CORE_DISTRIBUTION, __version__), tokenizer=tokenizer
        )

    def callbacks(self, spec: RunSpec) -> list[pl.Callback]:
        """Return the callback for early stopping, if it is on."""
        if self.task.early_stopping is None:
            return []
        return [StopEarly(spec.checkpoint.monitor, spec.checkpoint.mode, self.task.early_stopping)]

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
        network = _network(module)
        self._resumed = reader is not None
        if reader:
            groups = strategy_of(trainer).groups
            load_weights(network, read_layouts(network, groups), groups, reader)
            absent = AbsentParts.of_facts(reader.facts.get(ABSENT), str(reader.folder))
            note_missing(network, absent.prefixes, str(reader.folder), absent.note)
            return None
        opened, self._opened = self._opened, None
        assert opened is not None
        copy_weights(pretrained_network(opened), network.encoder_network)
        return opened.report if opened.report.matched else None

    def before_fit(self, parts: Built) -> Built:
        """Drop sequences that are too long; with a frozen encoder, compute its states and train on them."""
        network = _network(parts.module)
        terminals = sum(network.encoder.form.terminals)
        longest = max_text_tokens(parts.module, terminals)
        limit = min(longest, (parts.spec.batch.seq_length or longest + terminals) - terminals)
        if self.task.early_stopping is not None and (
            parts.splits.val is None or parts.spec.trainer.limit_val_batches == 0
        ):
            raise ConfigError(
                f"task.early_stopping={self.task.early_stopping}: there is no validation to decide when to stop. "
                "Give the data a validation split, or leave task.early_stopping out."
            )
        answers: LabelSpec = parts.module.answers  # type: ignore[assignment]  # as above
        quiet = not parts.trainer.is_global_zero
        splits = self._check_labels(_check_labelled(parts.splits), answers, parts.tokenizer, quiet=quiet)
        if not quiet:
            print(f"{'classes' if self.of_classes else 'labels':>10}  {labels_text(splits, answers)}")
        splits = shorten(splits, limit, self.task.on_long, parts.tokenizer, answers, quiet=quiet)
        if self.task.encoder != "frozen":
            if self.task.baseline:
                self._measure_baseline(parts, splits)
            return replace(parts, splits=splits)
        splits, kept = self._cached_states(parts, splits)
        objective = StoredStatesObjective(parts.module.objective, kept.offsets)  # type: ignore[arg-type]
        self._solve_linear(parts, split_rows(splits, objective, kept))
        network.stored = StoredStates(kept.table)
        parts.module.objective = objective  # type: ignore[assignment]  # as below
        if not self.per_residue:
            parts.module.seq_length = max(_SHORTEST, parts.spec.batch.seq_length or 0)  # type: ignore[assignment]  # as above
        return replace(parts, splits=splits)

    def _cached_states(self, parts: Built, splits: LabelledSplits) -> tuple[LabelledSplits, StatesTable]:
        """Return the splits with consecutive numbers, and the encoder's states of all their records."""
        splits, records = number_records(splits)
        ranks = Ranks(dist.get_rank(), dist.get_world_size(), str(strategy_of(parts.trainer).root_device))
        embedder = self._embedder(parts, ranks)
        kept = load_or_compute_states(
            Path(parts.spec.home),
            records,
            embedder,
            weights_fingerprint(embedder.module),
            self.per_residue,
            self.task.states_dtype,
            ranks,
        )
        return splits, kept

    def _measure_baseline(self, parts: Built, splits: LabelledSplits) -> None:
        """Solve a linear head on the states of the encoder before it is trained, if that is little work."""
        number = sum(map(len, splits.parts().values()))
        steps = parts.spec.trainer.max_steps
        if not self._resumed and number > steps * (parts.spec.batch.global_batch_size or 1):
            self._say(parts, f"none: the states of {number:,} sequences take longer than {steps:,} steps of training")
            return
        splits, kept = self._cached_states(parts, splits)
        objective = StoredStatesObjective(parts.module.objective, kept.offsets)  # type: ignore[arg-type]
        self._solve_linear(parts, split_rows(splits, objective, kept))

    def _solve_linear(self, parts: Built, rows: dict[str, StateRows]) -> None:
        """Solve a linear head, for the scaling of the states, as head or its start, and as the run's baseline."""
        network, solved = _network(parts.module), self.task.head == LINEAR
        if self._resumed:  # the weights are those of the checkpoint
            self._baseline = read_baseline(parts.folder.path)
            return
        if not (solved or self.task.baseline or network.scaler or network.start):
            return
        if not solved:
            rows = {**rows, "train": sampled(rows["train"], parts.spec.seed)}
        params, answers = parts.spec.model.params, parts.module.answers
        penalty = params["head"]["params"].get("penalty") if solved else None
        fit = on_first_rank(lambda: solve_baseline(rows, answers, params.get("class_weights"), penalty))  # type: ignore[arg-type]
        fill_network(network, fit, solved=solved)
        if self.task.baseline:
            self._baseline = Baseline.of(fit, rows, answers)  # type: ignore[arg-type]
            if parts.trainer.is_global_zero:
                self._baseline.write(parts.folder.path)
            self._say(parts, self._baseline.text)

    def _say(self, parts: Built, text: str) -> None:
        if parts.trainer.is_global_zero:
            print(f"{'baseline':>10}  {text}")

    def after_fit(self, parts: Built) -> None:
        """Average checkpoints if set; write the model and, with LoRA, the adapters."""
        strategy = strategy_of(parts.trainer)
        reshard(strategy.network)
        folders = self._choose_checkpoints(parts)
        if folders:
            with AveragedCheckpoints(folders) as mean:
                load_weights(strategy.network, strategy.layouts, strategy.groups, mean)  # type: ignore[arg-type]  # reads as one
            names = ", ".join(folder.name for folder in folders)
            names_text = f"the mean of {len(folders)} checkpoints: {names}" if self.task.average_last > 0 else names
            if parts.trainer.is_global_zero:
                print(f"{'weights':>10}  {names_text}")
        tensors = {name: _full_tensor(tensor) for name, tensor in named_weights(strategy.network)}
        if self._baseline is not None and self.task.head != LINEAR:
            self._say(parts, self._baseline.text)
        if parts.trainer.is_global_zero:
            self._write(parts, tensors, parse_step(folders[-1].name) if folders else parts.trainer.global_step)

    def _choose_checkpoints(self, parts: Built) -> list[Path]:
        """Return the checkpoints to average for the test and the export; none for the current weights."""
        task, root = self.task, parts.folder.checkpoints
        if task.average_last > 0:
            return newest_checkpoints(root, task.average_last)
        if (task.export or ("best" if task.early_stopping is not None else "last")) == "last":
            return []
        saver = next(callback for callback in parts.trainer.callbacks if isinstance(callback, CheckpointSaver))  # type: ignore[attr-defined]  # Lightning declares it nowhere
        present = list_checkpoints(root)
        steps = best_steps(saver.best, 1, parts.spec.checkpoint.mode, present)
        if not steps:
            log.warning("No checkpoint has a value of %s: exporting the last weights.", parts.spec.checkpoint.monitor)
        return [present[step] for step in steps]

    def _open(self, spec: RunSpec, registry: Registry, device: Device) -> OpenedModel:
        if spec.restore_from_path:
            return open_model(
                spec.restore_from_path, registry, restore=spec.restore, connector=spec.connector, home=spec.home
            )
        return open_for_use(spec, registry, replace(device, precision="32"), Ranks())

    def _params(self, opened: OpenedModel, splits: LabelledSplits, registry: Registry) -> dict[str, Any]:
        """Return the parameters of the fine-tuned model: encoder, head and labels."""
        task = self.task
        base = asdict(opened.spec.model)
        if base["name"] == FINETUNED:  # put a new head on the encoder of an earlier fine-tuning
            base = {"group": "model", **base["params"]["encoder"]}
        head = registry.get("head", task.head or ("convnet" if self.per_residue else "mlp"))
        params: dict[str, Any] = {
            "encoder": {key: base[key] for key in ("name", "params", "distribution", "version")},
            "kind": task.kind,
            "head": {
                "name": head.name,
                "params": dict(task.head_params or {}),
                "distribution": head.distribution,
                "version": head.version,
            },
            "encoder_training": task.encoder,
            "freeze_layers": task.freeze_layers,
            "text_form": task.text_form,
            "scaled_states": task.encoder == "frozen" and (task.scale_states or task.head == LINEAR),
            "linear_start": task.encoder == "frozen"
            and task.scale_states
            and task.linear_start
            and task.head != LINEAR,
        }
        if task.encoder == "lora":
            params["lora"] = {
                "rank": task.lora_rank,
                "alpha": task.lora_alpha,
                "dropout": task.lora_dropout,
                "targets": list(task.lora_targets or TARGETS),
            }
            params["base_weights"] = opened_fingerprint(opened)
        return params | self._label_params(splits)

    def _label_params(self, splits: LabelledSplits) -> dict[str, Any]:
        if not self.of_classes:
            mean, scale = mean_and_scale(splits.train, self.per_residue) if self.task.standardise else (0.0, 1.0)
            return {"mean": mean, "scale": scale}
        classes = classes_of(splits.train, self.per_residue)
        weights = self.task.class_weights
        if weights is not None and len(weights) != len(classes):
            raise ConfigError(
                f"task.class_weights: got {len(weights)} numbers for {len(classes)} classes: {', '.join(classes)}."
            )
        if self.task.balance_classes:
            counts = class_counts(splits.train, classes, self.per_residue)
            weights = [float(counts.sum() / (len(classes) * count)) for count in counts]
        return {"classes": classes, "class_weights": weights}

    def _check_labels(
        self, splits: LabelledSplits, answers: LabelSpec, tokenizer: Tokenizer, *, quiet: bool
    ) -> LabelledSplits:
        return LabelCheck(tokenizer, answers, self.task.on_bad_label).splits(splits, quiet=quiet)

    def _embedder(self, parts: Built, ranks: Ranks) -> Embedder:
        """Return a copy of the encoder in the precision of the run; training keeps its own in float32."""
        chosen = read_choice(parts.spec.model.params["encoder"], "model")
        context = parts.device.context(parts.spec)
        module: pl.LightningModule = self.registry.build(chosen, tokenizer=parts.tokenizer, context=context)
        copy_weights(_network(parts.module).encoder_network, module.network)  # type: ignore[arg-type]
        module.to(device=torch.device(ranks.device), dtype=parts.device.dtype).eval()
        on_gpu = parts.device.name == "cuda"
        settings = EmbeddingSettings(
            outputs=(HIDDENS if self.per_residue else EMBEDDINGS,),
            tokens_per_batch=GPU_BATCH if on_gpu else CPU_BATCH,
            unknown="unk",
            text_form=parts.spec.model.params.get("text_form", PLAIN),  # a run of before has none
        )
        return Embedder(module, parts.tokenizer, settings)

    def _write(self, parts: Built, tensors: dict[str, torch.Tensor], step: int | None) -> None:
        spec = ModelSpec(parts.spec.model, parts.spec.tokenizer)
        training = {"run": parts.spec.name, "step": step, "seed": parts.spec.seed}
        # What the pre-trained model lacked, such as its language-model head, has not been trained here either.
        absent = missing_parts(strategy_of(parts.trainer).network).facts()
        origin = {ABSENT: absent} if absent else {}
        artefact = Artefact(spec, Vocabulary.of(parts.tokenizer.pieces), training=training, origin=origin)
        target = parts.folder.path / ARTEFACT
        _set_aside(target)
        write_artefact(target, artefact, tensors)
        print(f"{'model':>10}  {target}")
        if self.task.encoder == "lora":
            kept = {*adapter_names(list(tensors)), *(name for name in tensors if name.startswith("head."))}
            adapter = parts.folder.path / ADAPTER
            _set_aside(adapter)
            artefact = replace(artefact, training={**training, BASE_WEIGHTS: parts.spec.model.params["base_weights"]})
            write_artefact(adapter, artefact, {name: tensors[name] for name in sorted(kept)})
            print(f"{'adapter':>10}  {adapter}, {sum(tensors[name].numel() for name in kept):,} numbers")


def _check_labelled(splits: Any) -> LabelledSplits:
    if isinstance(splits, LabelledSplits):
        return splits
    raise ConfigError(
        "data: task=finetune needs sequences with labels, and this data set has none. Choose data=labelled_csv or "
        "data=flip_fasta."
    )


def _network(module: Any) -> FineTunedNetwork:
    network = module.network
    assert isinstance(network, FineTunedNetwork)
    return network


def _full_tensor(tensor: torch.Tensor) -> torch.Tensor:
    tensor = tensor.detach()
    return (tensor.full_tensor() if isinstance(tensor, DTensor) else tensor).cpu()


def _set_aside(folder: Path) -> None:
    """Rename a model that the run wrote before it was resumed; the new name has its step."""
    if not folder.exists():
        return
    try:
        step = json.loads((folder / DOCUMENT).read_text())["training"]["step"]
    except (OSError, ValueError, LookupError, TypeError):
        step = "unknown"
    name = f"superseded-{folder.name}-{step}"
    names = itertools.chain([name], (f"{name}-{number}" for number in itertools.count(2)))
    move(folder, next(path for path in map(folder.with_name, names) if not path.exists()))
