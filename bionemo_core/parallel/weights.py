"""The tensors of a network: what a rank writes to a run checkpoint, and how it reads them back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import nn

from bionemo_core.checkpoint.blocks import TensorPart, whole_part
from bionemo_core.checkpoint.load import CheckpointReader
from bionemo_core.errors import CheckpointError
from bionemo_core.parallel.groups import ProcessGroups
from bionemo_core.parallel.layout import ParameterLayout, owned_parts
from bionemo_core.parallel.transfer import fill_local_part, mismatch_message, persistent_buffers

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
