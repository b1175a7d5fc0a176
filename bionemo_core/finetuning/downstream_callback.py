"""The callback of downstream validation: embed sequences, train a head and evaluate it, within one validation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pytorch_lightning as pl
import torch
import torch.distributed as dist
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from bionemo_core.config.schema import Choice
from bionemo_core.data.labelled_records import LabelledRecords, LabelledSplits
from bionemo_core.errors import ConfigError
from bionemo_core.finetuning.heads import ConvNet, build_head
from bionemo_core.finetuning.label_checks import LabelCheck
from bionemo_core.finetuning.label_spec import KINDS, LabelSpec
from bionemo_core.finetuning.metrics import AnswerMetrics, metrics_and_table
from bionemo_core.finetuning.network import MlpHead, hidden_size_of
from bionemo_core.finetuning.objective import (
    LabelObjective,
    classes_of,
    find_classes,
    mean_and_scale,
)
from bionemo_core.inference.embedding import EMBEDDINGS, HIDDENS, Embedder, EmbeddingSettings
from bionemo_core.nn.residue_states import ResidueStates, encoder_network
from bionemo_core.parallel.groups import ProcessGroups
from bionemo_core.parallel.sharding import gather, reshard
from bionemo_core.parallel.strategy import strategy_of
from bionemo_core.parallel.weights import network_of
from bionemo_core.protocols import BuildContext, InputForm, Tokenizer

if TYPE_CHECKING:
    from bionemo_core.plugins.registry import Registry


@dataclass(frozen=True)
class DownstreamSettings:
    """The arguments of `finetuning.downstream.downstream`."""

    dataset: str
    dataset_params: Mapping[str, Any]
    kind: str
    task_name: str
    head: str | None
    head_params: Mapping[str, Any]
    num_epochs: int
    batch_size: int
    lr: float
    weight_decay: float
    max_sequences: int | None
    seed: int
    on_bad_label: str = "error"


@dataclass(frozen=True)
class _Split:
    """States and labels of some sequences, on the CPU."""

    states: list[Tensor]
    labels: list[Tensor]
    counts: list[Tensor]

    def batch(self, rows: Sequence[int], device: torch.device) -> tuple[ResidueStates, Tensor, Tensor]:
        """Return the states of `rows` as a head reads them, their labels, and whether each label counts."""
        states = torch.cat([self.states[row] for row in rows]).to(device)
        lengths = torch.tensor([len(self.states[row]) for row in rows], device=device)
        labels, counts = (torch.cat([side[row] for row in rows]).to(device) for side in (self.labels, self.counts))
        return ResidueStates(states, lengths), labels, counts


class DownstreamValidation(pl.Callback):
    """A callback that adds the metrics of a new head to every validation; pre-training itself does not change."""

    def __init__(self, settings: DownstreamSettings, registry: Registry) -> None:
        self.settings = settings
        self.registry = registry
        self.per_residue, self.of_classes = KINDS[settings.kind]
        self._splits: dict[str, LabelledRecords] = {}
        self._label_spec = LabelSpec(settings.kind)
        self._tokenizer: Tokenizer | None = None

    @property
    def metric_names(self) -> tuple[str, ...]:
        """The names of its metrics."""
        return tuple(f"{self._prefix}_{name}" for name in ("loss", *AnswerMetrics(self._label_spec).logged_names))

    @property
    def _prefix(self) -> str:
        return f"downstream_{self.settings.task_name}"

    def meet_run(self, tokenizer: Tokenizer, context: BuildContext) -> None:
        """Read the labelled data, before training starts.

        Raises:
            ConfigError: the data has no labels, or neither a test nor a validation split.
            DataError: the data cannot be used.
        """
        settings = self.settings
        found = self.registry.get("data", settings.dataset)
        choice = Choice("data", found.name, dict(settings.dataset_params), found.distribution, found.version)
        splits = self.registry.build(choice, tokenizer=tokenizer, context=context)
        if not isinstance(splits, LabelledSplits):
            raise ConfigError(f"callbacks.downstream.dataset={settings.dataset}: the data has no labels.")
        if splits.train.targets:
            raise ConfigError(
                "callbacks.downstream: the data has several labels, and downstream validation predicts one. Give "
                "target_column in place of target_columns."
            )
        if splits.train.seconds:
            raise ConfigError("callbacks.downstream: the data has pairs of sequences; give data with single ones.")
        if splits.train.unchanged() is not splits.train:
            raise ConfigError("callbacks.downstream: reads each sequence once; give the source of data=augmented.")
        held_out = splits.test or splits.val
        if held_out is None:
            raise ConfigError("callbacks.downstream: the data has neither a test nor a validation split.")
        check = LabelCheck(tokenizer, self._label_spec, settings.on_bad_label, "callbacks.downstream.on_bad_label")
        # Fail now on unusable labels, and not at a validation hours later.
        labelled = check.parts({"train": splits.train, "held-out": held_out})
        train, held_out = labelled["train"], labelled["held-out"]
        if settings.max_sequences is not None and len(train) > settings.max_sequences:
            order = np.random.default_rng(settings.seed).permutation(len(train))
            train = train.select(np.sort(order[: settings.max_sequences]))
        if self.of_classes:  # classes of all splits: a few training sequences may lack some
            classes = {*classes_of(labelled["train"], self.per_residue), *find_classes(held_out, self.per_residue)}
            self._label_spec = LabelSpec(settings.kind, tuple(sorted(classes)))
        else:
            self._label_spec = LabelSpec(settings.kind, (), *mean_and_scale(train, self.per_residue))
        self._splits = {"train": train, "test": held_out}
        self._tokenizer = tokenizer
        self._head_settings()

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Build a head and drop it, so that one that does not fit fails now and not at the first validation."""
        if self._tokenizer is not None:
            with torch.random.fork_rng(devices=_devices(pl_module.device)):
                self._head(hidden_size_of(encoder_network(network_of(pl_module))))

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.state.fn != "fit" or self._tokenizer is None:
            return
        # Lightning validates in inference mode, in which a head cannot be trained.
        with torch.inference_mode(False), torch.random.fork_rng(devices=_devices(pl_module.device)):
            splits = self._embed_splits(trainer, pl_module)
            measured: list[dict[str, float]] = [{}]
            if trainer.is_global_zero:
                metrics = self._evaluate_head(splits, pl_module.device)
                measured = [{f"{self._prefix}_{key}": value for key, value in metrics.items()}]
            if trainer.world_size > 1:
                dist.broadcast_object_list(measured, src=0)
            pl_module.validation_metrics = {**pl_module.validation_metrics, **measured[0]}  # type: ignore[assignment, dict-item]
            # checkpoint.monitor may name one of these.
            trainer.callback_metrics.update({key: torch.tensor(value) for key, value in measured[0].items()})

    def _embed_splits(self, trainer: pl.Trainer, module: pl.LightningModule) -> dict[str, _Split]:
        """Compute the states of the splits with the current model; ranks share the work."""
        assert self._tokenizer is not None
        strategy = strategy_of(trainer)
        gather(strategy.network)
        try:
            output = HIDDENS if self.per_residue else EMBEDDINGS
            compiled = strategy.compile_layers and module.device.type == "cuda"
            settings = EmbeddingSettings(outputs=(output,), unknown="unk", static_shapes=compiled)
            embedder = Embedder(module, self._tokenizer, settings)
            objective = LabelObjective(self._tokenizer, self._label_spec, form=InputForm(), seq_length=2**31 - 1)
            result = {}
            for name, records in self._splits.items():
                kept = records.drop_longer(embedder.long_rule.max_residues, name, self._tokenizer)
                arrays = _compute_states(embedder, kept, output, strategy.groups)
                targets = [objective.targets(kept[row], len(arrays[row])) for row in range(len(kept))]
                kind = torch.int64 if self.of_classes else torch.float32
                labels = [
                    torch.from_numpy(values if self.of_classes else values.view(np.float32)).to(kind)
                    for values, _ in targets
                ]
                counts = [torch.from_numpy(chosen) for _, chosen in targets]
                result[name] = _Split([torch.from_numpy(array) for array in arrays], labels, counts)
        finally:
            reshard(strategy.network)
        return result

    def _evaluate_head(self, splits: Mapping[str, _Split], device: torch.device) -> dict[str, float]:
        settings, train = self.settings, splits["train"]
        torch.manual_seed(settings.seed)
        head = self._head(train.states[0].shape[-1]).to(device).train()
        optimizer = torch.optim.AdamW(head.parameters(), lr=settings.lr, weight_decay=settings.weight_decay)
        order = np.random.default_rng(settings.seed)
        with torch.enable_grad():
            for _ in range(settings.num_epochs):
                rows = order.permutation(len(train.states)).tolist()
                for start in range(0, len(rows), settings.batch_size):
                    optimizer.zero_grad()
                    outputs, labels = _predict_labelled(head, train, rows[start : start + settings.batch_size], device)
                    if len(labels):
                        self._losses(outputs, labels).mean().backward()
                        optimizer.step()
        head.eval()
        test = splits["test"]
        found = [_predict_labelled(head, test, [row], device) for row in range(len(test.states))]
        outputs, labels = (torch.cat([pair[side].detach().cpu() for pair in found]) for side in (0, 1))
        metrics = {"loss": float(self._losses(outputs, labels).mean())} if len(labels) else {}
        return metrics | metrics_and_table(self._label_spec, outputs, labels)[0]

    def _losses(self, outputs: Tensor, labels: Tensor) -> Tensor:
        if self.of_classes:
            return F.cross_entropy(outputs, labels, reduction="none")
        return (outputs[:, 0] - labels).square()

    def _head(self, hidden_size: int) -> nn.Module:
        outputs = len(self._label_spec.classes) if self.of_classes else 1
        if self.settings.head is None and not self.per_residue:  # v1's
            return MlpHead([hidden_size, 256, 128, outputs], 0.1, per_residue=False)
        settings = self._head_settings()
        return build_head(settings, hidden_size, outputs, self.per_residue, key="callbacks.downstream.head")

    def _head_settings(self) -> Any:
        if self.settings.head is None:
            return ConvNet()
        found = self.registry.get("head", self.settings.head)
        params = dict(self.settings.head_params)
        return self.registry.build(Choice("head", found.name, params, found.distribution, found.version))


def _predict_labelled(
    head: nn.Module, split: _Split, rows: Sequence[int], device: torch.device
) -> tuple[Tensor, Tensor]:
    """Return the outputs of the head that have a label, float32 [n, outputs], and these labels."""
    residues, labels, counts = split.batch(rows, device)
    return head(residues).float()[counts], labels[counts]


def _compute_states(
    embedder: Embedder, records: LabelledRecords, output: str, groups: ProcessGroups
) -> list[NDArray[np.float32]]:
    """Compute the states of every sequence, [residues or 1, hidden]; each rank computes a share."""
    rank, size = groups.data_rank, groups.data_size
    # A rank without a sequence still runs the network, because other ranks may wait for it there.
    mine = range(rank, len(records), size) if rank < len(records) else range(1)
    embedded = embedder.run([records.sequences[row] for row in mine], [records.ids[row] for row in mine])
    arrays = embedded.rows(output) if output == HIDDENS else list(embedded.arrays[output][:, None])
    if size == 1:
        return arrays
    gathered: list[Any] = [None] * size
    dist.all_gather_object(gathered, arrays, group=groups.data)
    return [gathered[row % size][row // size] for row in range(len(records))]


def _devices(device: torch.device) -> list[torch.device]:
    return [device] if device.type == "cuda" else []
