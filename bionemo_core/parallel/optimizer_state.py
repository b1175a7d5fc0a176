"""The state of an optimizer: what a rank writes to a run checkpoint, and how it reads it back.

A tensor of a parameter's shape, such as a moment of Adam, is divided over the ranks as the parameter is, so that a run
can be resumed on another number of ranks. Numbers, such as Adam's count of steps, are the same on all ranks.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from bionemo_core.checkpoint.blocks import TensorPart
from bionemo_core.checkpoint.load import CheckpointReader
from bionemo_core.errors import CheckpointError
from bionemo_core.interop.load_report import preview_names
from bionemo_core.parallel.groups import ProcessGroups
from bionemo_core.parallel.layout import ParameterLayout, owned_parts
from bionemo_core.parallel.transfer import fill_local_part

STEP = "step"
"""The tensor by which torch's optimizers count the updates of a parameter; one number is saved for all parameters."""

STEPS, TENSORS, NUMBERS = "adam_steps", "optimizer_tensors", "optimizer_numbers"
"""Entries of a checkpoint's state: the count of updates, the names of the tensors, and other numbers by parameter."""

_ADAM_PARAMETERS, _ADAM_STATES = "adam_parameters", ("exp_avg", "exp_avg_sq")
"""What versions before 0.2 wrote in place of the names of the tensors."""

Numbers = dict[str, dict[str, Any]]
"""Numbers by the name of the parameter and the key of the state."""


def optimizer_parts(
    network: nn.Module,
    layouts: Mapping[str, ParameterLayout],
    groups: ProcessGroups,
    optimizer: torch.optim.Optimizer,
) -> Iterator[TensorPart]:
    """Yield the parts of the optimizer's tensors that this rank writes.

    Raises:
        CheckpointError: a state is neither a tensor of the parameter's shape nor a number.
    """
    for name, parameter in network.named_parameters():
        for key, values in _tensors_of(optimizer, name, parameter).items():
            yield from owned_parts(f"optim.{name}.{key}", layouts[name], parameter, values, groups)


def tensor_names(network: nn.Module, optimizer: torch.optim.Optimizer) -> list[str]:
    """Return the names of all tensors of the optimizer; a parameter that never got a gradient has none."""
    return [
        f"optim.{name}.{key}"
        for name, parameter in network.named_parameters()
        for key in _tensors_of(optimizer, name, parameter)
    ]


def update_count(optimizer: torch.optim.Optimizer) -> float:
    """Return the number of updates that were made: the run's steps without those skipped for a 16-bit overflow."""
    return max((float(state[STEP]) for state in optimizer.state.values() if _counts(state)), default=0.0)


def other_numbers(network: nn.Module, optimizer: torch.optim.Optimizer) -> Numbers:
    """Return the numbers of each parameter besides torch's count of updates; most optimizers have none."""
    found = {name: _numbers_of(optimizer, parameter) for name, parameter in network.named_parameters()}
    return {name: numbers for name, numbers in found.items() if numbers}


@torch.no_grad()
def load_optimizer(
    network: nn.Module,
    layouts: Mapping[str, ParameterLayout],
    groups: ProcessGroups,
    optimizer: torch.optim.Optimizer,
    reader: CheckpointReader,
) -> None:
    """Fill this rank's part of the optimizer's tensors, and its numbers.

    A parameter that had none when the checkpoint was saved, because it got no gradient or was frozen, starts with none.

    Raises:
        CheckpointError: the checkpoint lacks a tensor that it was saved with.
    """
    _check_tensors(reader)
    keys: dict[str, list[str]] = {}
    for stored in reader.names:
        if stored.startswith("optim."):
            name, _, key = stored.removeprefix("optim.").rpartition(".")
            keys.setdefault(name, []).append(key)
    steps, numbers = reader.state[STEPS], reader.state.get(NUMBERS, {})
    on_device = {
        parameter
        for group in optimizer.param_groups
        for parameter in group["params"]
        if group.get("fused") or group.get("capturable")  # as torch's own `load_state_dict` decides
    }
    for name, parameter in network.named_parameters():
        if name not in keys and name not in numbers:
            continue
        state = optimizer.state[parameter]
        if steps:
            device = parameter.device if parameter in on_device else "cpu"
            state[STEP] = torch.tensor(steps, dtype=torch.float32, device=device)
        for key in keys.get(name, ()):
            stored = f"optim.{name}.{key}"
            state[key] = torch.zeros_like(parameter, dtype=reader.dtype(stored))
            fill_local_part(reader, stored, layouts[name], parameter, state[key], groups)
        state.update(numbers.get(name, {}))


def _check_tensors(reader: CheckpointReader) -> None:
    """Check that the checkpoint has the tensors it was saved with; earlier versions listed parameters, or nothing."""
    wanted = reader.state.get(TENSORS)
    if wanted is None:
        stored = {name.removeprefix("optim.").rpartition(".")[0] for name in reader.names if name.startswith("optim.")}
        names = sorted(stored.union(reader.state.get(_ADAM_PARAMETERS, ())))
        wanted = [f"optim.{name}.{key}" for name in names for key in _ADAM_STATES]
    missing = [name for name in wanted if name not in reader.names]
    if missing:
        raise CheckpointError(
            f"checkpoint {reader.folder}: it lacks state of the optimizer that it was saved with: "
            f"{preview_names(missing)}. Resume from an older checkpoint with resume=PATH, or start a new run from its "
            "weights with restore_from_path."
        )


def _tensors_of(optimizer: torch.optim.Optimizer, name: str, parameter: nn.Parameter) -> dict[str, Tensor]:
    tensors = {}
    for key, value in optimizer.state.get(parameter, {}).items():
        if value is None or key == STEP or _is_number(value, parameter):
            continue
        if not isinstance(value, Tensor) or value.shape != parameter.shape or "." in key:
            what = f"of shape {list(value.shape)}" if isinstance(value, Tensor) else f"of type {type(value).__name__}"
            raise CheckpointError(
                f"checkpoint: the optimizer {type(optimizer).__name__} keeps {key!r} {what} for {name}, whose shape is "
                f"{list(parameter.shape)}. A checkpoint holds numbers and tensors of the parameter's shape: choose "
                "another optimizer."
            )
        tensors[key] = value
    return tensors


def _numbers_of(optimizer: torch.optim.Optimizer, parameter: nn.Parameter) -> dict[str, Any]:
    state = optimizer.state.get(parameter, {})
    counted = STEP if _counts(state) else None
    return {key: value for key, value in state.items() if key != counted and _is_number(value, parameter)}


def _counts(state: Mapping[str, Any]) -> bool:
    return isinstance(state.get(STEP), Tensor)


def _is_number(value: Any, parameter: nn.Parameter) -> bool:
    if isinstance(value, Tensor):
        return value.dim() == 0 and parameter.dim() > 0
    return isinstance(value, bool | int | float)
