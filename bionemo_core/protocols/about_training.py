"""What a model offers, what trains it, and what factories are told about the run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    import torch

    from bionemo_core.protocols.about_records import AnyObjective


@dataclass(frozen=True)
class TensorType:
    """The type of one named input or output: `TensorType(("batch", "length"), "int64")`."""

    axes: tuple[str, ...]
    dtype: str


@runtime_checkable
class Model(Protocol):
    """The members that a model needs besides those of a `LightningModule`."""

    input_types: Mapping[str, TensorType]
    output_types: Mapping[str, TensorType]
    seq_length: int

    @property
    def objective(self) -> AnyObjective:
        """The objective that makes this model's examples from records."""
        ...


RUNTIME_ARGUMENTS = ("tokenizer", "context", "run", "registry")
"""Keyword parameters that the core passes to factories; never part of a configuration."""


@dataclass(frozen=True)
class BuildContext:
    """What a factory knows about the run for which it builds a component."""

    seed: int = 1234
    device: str = "cpu"  # cpu, cuda
    dtype: str = "float32"  # the dtype of computation: float32, bfloat16, float16
    tensor_model_parallel_size: int = 1
    deterministic: bool = False
    home: str = ""  # folder of prepared data and runs; empty: $BIONEMO_HOME, else ~/.bionemo
    preparation_workers: int | None = None  # processes that filter records; None: one per CPU for long inputs


@dataclass(frozen=True)
class RunContext:
    """The facts about a run that the factory of a logger gets as `run`."""

    folder: Path
    """The run folder; a logger writes its files there."""
    name: str
    resumed_step: int | None = None
    """The step of the checkpoint that the run resumes from; None for a new run."""


@runtime_checkable
class Schedule(Protocol):
    """A pure function that gives the learning rate of every step; the result of a schedule component's factory."""

    def __call__(self, step: int, *, base_lr: float, max_steps: int) -> float:
        """Return the learning rate of step `step`, from 0, in a run of `max_steps` whose optimizer has `base_lr`."""
        ...


@runtime_checkable
class OptimizerSettings(Protocol):
    """The settings of an optimizer, which make it when the network exists; the result of an optimizer's factory.

    They may have `whole_parameters: bool`: true says that the update of an element depends on other elements of its
    parameter, as in Muon or LAMB. Ranks that share parameters are then refused.
    """

    @property
    def lr(self) -> float:
        """The learning rate that the schedule scales: the core sets `lr` of each parameter group before each step."""
        ...

    def build(self, named_parameters: Iterable[tuple[str, torch.nn.Parameter]]) -> torch.optim.Optimizer:
        """Return the optimizer of those parameters that require a gradient.

        Its state is numbers and tensors of the parameter's shape, in `optimizer.state`; a checkpoint holds no other. A
        step leaves parameters without a gradient alone.
        """
        ...


class Loss(Protocol):
    """The loss of a fine-tuning, `task.loss`: a function, summed over the labels that count.

    Four more members are used if a loss has them:

    - `kinds: Sequence[str]`: the values of `task.kind` that it is for; without it, those of values:
      `sequence_regression` and `token_regression`.
    - `unit: str`: what it is counted in, for pictures; without it, "loss per label".
    - `compares: bool`: true says that it compares the sequences of a micro batch, which must then have several.
    - `only_order: bool`: true says that it learns the order of values but not their size, which no metric then shows.
    """

    def __call__(self, outputs: torch.Tensor, labels: torch.Tensor, counts: torch.Tensor, /) -> torch.Tensor:
        """Return the summed loss, a float32 scalar.

        Args:
            outputs: the head's, float32 [n, outputs]: values, logits of classes, or logits of yes.
            labels: values or 0 and 1 as float32 [n, outputs]; numbers of classes as int64 [n]; of kind `pair_matching`,
                whether two pairs share a sequence, bool [n, n].
            counts: whether each label counts, bool, of the shape of `labels`; whether each pair counts, bool [n].
        """
        ...


class Callback(Protocol):
    """A Lightning callback; any `pytorch_lightning.Callback` satisfies it."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state_dict: dict[str, Any]) -> None: ...
