"""Where the rows of a model's weights lie in a foreign format, found by what its connector writes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from bionemo_core.errors import ConfigError
from bionemo_core.interop.connector import OurModel
from bionemo_core.models.load import OpenedModel
from bionemo_core.models.locate import list_connectors
from bionemo_core.parallel.transfer import persistent_buffers
from bionemo_core.parallel.weights import network_of

if TYPE_CHECKING:
    from bionemo_core.plugins.registry import Registry

_MARK = -12345.0
"""The first column of a weight that was replaced by the numbers of its rows."""


@dataclass(frozen=True)
class ForeignRows:
    """A foreign weight, as rows of one of this framework's weights, which may fuse several foreign ones."""

    ours: str
    """The name of the weight."""
    rows: Tensor
    """The row of each row of the foreign weight, int64."""


def foreign_rows(
    opened: OpenedModel, weights: Iterable[str], format_: str, registry: Registry
) -> dict[str, ForeignRows]:
    """Return which foreign weights hold the rows of these weights, by foreign name.

    Args:
        opened: the model.
        weights: names of two-dimensional parameters of its network, none of them a table of the vocabulary.
        format_: nemo or huggingface.
        registry: the registry in which connectors are looked up.

    Raises:
        ConfigError: no connector of the model's plugin writes this format, or it does not keep rows whole.
    """
    choice, network = opened.spec.model, network_of(opened.module)
    tensors = {name: one.detach() for name, one in (*network.named_parameters(), *persistent_buffers(network))}
    names = list(weights)
    for number, name in enumerate(names):
        rows = torch.arange(len(tensors[name]), dtype=torch.float32)
        tensors[name] = torch.stack((torch.full_like(rows, _MARK), torch.full_like(rows, number), rows), dim=1)
    usable = [
        connector
        for registered, connector in list_connectors(format_, registry, None)
        if choice.name in connector.models and registered.distribution == choice.distribution
    ]
    if not usable:
        raise ConfigError(f"model {choice.name!r} of {choice.distribution}: no connector can write it as {format_}.")
    written = usable[0].write(OurModel(choice.name, choice.params, opened.tokenizer, tensors)).tensors
    found: dict[str, ForeignRows] = {}
    for name, tensor in written.items():
        if tensor.dim() != 2 or tensor.shape[1] != 3 or not bool((tensor[:, 0] == _MARK).all()):
            continue
        owners = tensor[:, 1].unique().tolist()
        if len(owners) != 1:
            raise ConfigError(f"model {choice.name!r}: {format_} joins several of its weights in {name}.")
        found[name] = ForeignRows(names[int(owners[0])], tensor[:, 2].long())
    return found
