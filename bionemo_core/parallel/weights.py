"""The tensors of a network and its optimizer: what a rank writes to a run checkpoint, and how it reads them back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import nn

from bionemo_core.checkpoint.blocks import TensorPart, whole_part
from bionemo_core.checkpoint.load import CheckpointReader
from bionemo_core.errors import CheckpointError
from bionemo_core.interop.load_report import preview_names
from bionemo_core.parallel.groups import ProcessGroups
from bionemo_core.parallel.layout import ParameterLayout, owned_parts
from bionemo_core.parallel.transfer import fill_local_part, mismatch_message, persistent_buffers

ADAM_STATES = ("exp_avg", "exp_avg_sq")

Layouts = Mapping[str, ParameterLayout]


def network_of(module: nn.Module) -> nn.Module:
    """Return the network that holds the parameters: `module.network` of a training module, else the module itself."""
    return getattr(module, "network", module)


def weight_parts(network: nn.Module, layouts: Layouts, groups: ProcessGroups) -> Iterator[TensorPart]:
    """Yield the parts of parameters and persistent buffers that this rank writes."""
    for name, parameter in network.named_parameters():
        yield from owned_parts(f"model.{name}", layouts[name], parameter, parameter, groups)
    if groups.data_rank == 0 and groups.tensor_rank == 0:
        for name, buffer in persistent_buffers(network):
            yield whole_part(f"buffer.{name}", buffer.detach())


def adam_parts(
    network: nn.Module, layouts: Layouts, groups: ProcessGroups, optimizer: torch.optim.Optimizer
) -> Iterator[TensorPart]:
    """Yield the parts of Adam's moments that this rank writes."""
    for name, parameter in network.named_parameters():
        for state in ADAM_STATES:
            values = optimizer.state.get(parameter, {}).get(state)
            if values is not None:
                yield from owned_parts(f"optim.{name}.{state}", layouts[name], parameter, values, groups)


def names_with_moments(network: nn.Module, optimizer: torch.optim.Optimizer) -> list[str]:
    """Return the names of the parameters whose moments `adam_parts` yields; one that never got a gradient has none."""
    return [name for name, parameter in network.named_parameters() if optimizer.state.get(parameter)]


@torch.no_grad()
def load_weights(network: nn.Module, layouts: Layouts, groups: ProcessGroups, reader: CheckpointReader) -> None:
    """Fill this rank's part of every parameter and persistent buffer.

    Raises:
        CheckpointError: the checkpoint's names or shapes differ from the network's.
    """
    _check_names(reader, {f"model.{name}": layout.global_shape for name, layout in layouts.items()})
    for name, parameter in network.named_parameters():
        fill_local_part(reader, f"model.{name}", layouts[name], parameter, parameter, groups)
    for name, buffer in persistent_buffers(network):
        buffer.copy_(reader.read(f"buffer.{name}"))


@torch.no_grad()
def load_adam(
    network: nn.Module,
    layouts: Layouts,
    groups: ProcessGroups,
    optimizer: torch.optim.Optimizer,
    reader: CheckpointReader,
) -> None:
    """Fill this rank's part of Adam's moments, and its step count.

    A parameter that had none when the checkpoint was saved, because it got no gradient or was frozen, starts with none.

    Raises:
        CheckpointError: the checkpoint lacks a moment that it was saved with.
    """
    steps = reader.state["adam_steps"]
    _check_moments(reader)
    for name, parameter in network.named_parameters():
        if f"optim.{name}.exp_avg" not in reader.names:
            continue
        state = optimizer.state[parameter]
        state["step"] = torch.tensor(steps, dtype=torch.float32, device=parameter.device)
        for key in ADAM_STATES:
            state[key] = torch.zeros_like(parameter)
            fill_local_part(reader, f"optim.{name}.{key}", layouts[name], parameter, state[key], groups)


def _check_moments(reader: CheckpointReader) -> None:
    """Check that each parameter that was saved with moments has both; earlier versions did not list them."""
    stored = {name.removeprefix("optim.").rpartition(".")[0] for name in reader.names if name.startswith("optim.")}
    saved = stored.union(reader.state.get("adam_parameters", ()))
    wanted = [f"optim.{name}.{key}" for name in sorted(saved) for key in ADAM_STATES]
    missing = [name for name in wanted if name not in reader.names]
    if missing:
        raise CheckpointError(
            f"checkpoint {reader.folder}: it lacks moments of Adam that it was saved with: {preview_names(missing)}. "
            "Resume from an older checkpoint with resume=PATH, or start a new run from its weights with "
            "restore_from_path."
        )


def adam_steps(optimizer: torch.optim.Optimizer) -> float:
    """Return the number of updates that Adam has made: the run's steps without those skipped for a 16-bit overflow."""
    return max((float(state["step"]) for state in optimizer.state.values() if "step" in state), default=0.0)


def _check_names(reader: CheckpointReader, wanted: dict[str, tuple[int, ...]]) -> None:
    stored = {name for name in reader.names if name.startswith("model.")}
    missing, unexpected = sorted(wanted.keys() - stored), sorted(stored - wanted.keys())
    reshaped = [
        f"{name} {tuple(reader.shape(name))} instead of {shape}"
        for name, shape in wanted.items()
        if name in stored and tuple(reader.shape(name)) != shape
    ]
    if missing or unexpected or reshaped:
        raise CheckpointError(mismatch_message(f"checkpoint {reader.folder}", missing, unexpected, reshaped))
