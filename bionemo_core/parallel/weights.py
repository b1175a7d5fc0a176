"""A network's tensors to and from checkpoints, on any layout."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from bionemo_core.checkpoint.blocks import TensorPart, whole_part
from bionemo_core.checkpoint.load import CheckpointReader
from bionemo_core.errors import CheckpointError
from bionemo_core.parallel.groups import ProcessGroups
from bionemo_core.parallel.layout import ParameterLayout, local_blocks, owned_pieces

ADAM_STATES = ("exp_avg", "exp_avg_sq")

Layouts = Mapping[str, ParameterLayout]


def weight_pieces(network: nn.Module, layouts: Layouts, groups: ProcessGroups) -> Iterator[TensorPart]:
    """Return the pieces of parameters and persistent buffers that this rank writes."""
    for name, parameter in network.named_parameters():
        yield from owned_pieces(f"model.{name}", layouts[name], parameter, parameter, groups)
    if groups.data_rank == 0 and groups.tensor_rank == 0:
        for name, buffer in _persistent_buffers(network):
            yield whole_part(f"buffer.{name}", buffer.detach())


def adam_pieces(
    network: nn.Module, layouts: Layouts, groups: ProcessGroups, optimizer: torch.optim.Optimizer
) -> Iterator[TensorPart]:
    """Return the pieces of Adam's moments that this rank writes."""
    for name, parameter in network.named_parameters():
        for state in ADAM_STATES:
            values = optimizer.state.get(parameter, {}).get(state)
            if values is not None:
                yield from owned_pieces(f"optim.{name}.{state}", layouts[name], parameter, values, groups)


@torch.no_grad()
def load_weights(network: nn.Module, layouts: Layouts, groups: ProcessGroups, reader: CheckpointReader) -> None:
    """Fill this rank's part of every parameter and persistent buffer.

    Raises:
        CheckpointError: a name or a shape differs from this network's.
    """
    _check_names(reader, {f"model.{name}": layout.global_shape for name, layout in layouts.items()})
    for name, parameter in network.named_parameters():
        _fill(reader, f"model.{name}", layouts[name], parameter, parameter, groups)
    for name, buffer in _persistent_buffers(network):
        buffer.copy_(reader.read(f"buffer.{name}"))


@torch.no_grad()
def load_adam(
    network: nn.Module,
    layouts: Layouts,
    groups: ProcessGroups,
    optimizer: torch.optim.Optimizer,
    reader: CheckpointReader,
) -> None:
    """Fill this rank's part of Adam's moments, and its step count."""
    steps = reader.state["adam_steps"]
    for name, parameter in network.named_parameters():
        if f"optim.{name}.exp_avg" not in reader.names:
            continue
        state = optimizer.state[parameter]
        state["step"] = torch.tensor(steps, dtype=torch.float32, device=parameter.device)
        for key in ADAM_STATES:
            state[key] = torch.zeros_like(parameter)
            _fill(reader, f"optim.{name}.{key}", layouts[name], parameter, state[key], groups)


def adam_steps(optimizer: torch.optim.Optimizer) -> float:
    """Return the updates that Adam has counted; fewer than the steps of the run if 16-bit overflows were skipped."""
    return max((float(state["step"]) for state in optimizer.state.values() if "step" in state), default=0.0)


def _fill(
    reader: CheckpointReader,
    key: str,
    layout: ParameterLayout,
    parameter: Tensor,
    target: Tensor,
    groups: ProcessGroups,
) -> None:
    local = target.to_local() if isinstance(target, DTensor) else target
    for block in local_blocks(layout, parameter, groups):
        part = local[block.local]
        part.copy_(reader.read(key, offset=block.offset, shape=tuple(part.shape)))


def _persistent_buffers(network: nn.Module) -> Iterator[tuple[str, Tensor]]:
    kept = network.state_dict(keep_vars=True)
    return ((name, buffer) for name, buffer in network.named_buffers() if name in kept)


def _check_names(reader: CheckpointReader, wanted: dict[str, tuple[int, ...]]) -> None:
    have = {name for name in reader.names if name.startswith("model.")}
    missing, unexpected = sorted(wanted.keys() - have), sorted(have - wanted.keys())
    reshaped = [
        f"{name} {tuple(reader.shape(name))} instead of {shape}"
        for name, shape in wanted.items()
        if name in have and tuple(reader.shape(name)) != shape
    ]
    if missing or unexpected or reshaped:
        raise CheckpointError(
            f"checkpoint {reader.folder}: it does not fit this model. "
            f"Missing: {_some(missing)}; unexpected: {_some(unexpected)}; other shapes: {_some(reshaped)}. "
            "Build the model with the parameters it was saved with."
        )


def _some(names: list[str], limit: int = 5) -> str:
    shown = ", ".join(names[:limit]) or "none"
    return shown + (f" and {len(names) - limit} more" if len(names) > limit else "")
