"""The stages of a pipeline: consecutive ranks that hold consecutive layers of one network.

Every rank builds the whole network and drops what other stages hold. Names stay those of the whole, so that a
checkpoint does not depend on the number of stages.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import pairwise

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.tensor import DTensor

from bionemo_core.errors import ConfigError
from bionemo_core.parallel.groups import ProcessGroups, Stage
from bionemo_core.parallel.layout import ParameterLayout
from bionemo_core.plurals import format_count

_KEY = "parallel.pipeline_model_parallel_size"


@dataclass(frozen=True)
class StagePlan:
    """What each stage of a pipeline holds."""

    layers: tuple[range, ...]
    """The layers of each stage, counted from 0."""
    owners: Mapping[str, tuple[int, ...]]
    """The stages that hold each parameter, by its name in the whole network; more than one hold a tied weight."""
    parameters: tuple[int, ...]
    """Parameters of each stage."""


def plan_stages(network: nn.Module, count: int) -> StagePlan:
    """Return how `count` stages share the network.

    Raises:
        ConfigError: the network has no method `pipeline_stages`, which says so, or fewer layers than stages.
    """
    assign = getattr(network, "pipeline_stages", None)
    if assign is None:
        raise ConfigError(
            f"{_KEY}={count}: {type(network).__name__} cannot be split into stages; encoders such as ESM-2 can. "
            "Leave it out."
        )
    number = len(list(getattr(network, "layers", ())))
    if number < count:
        raise ConfigError(
            f"{_KEY}={count}: the model has {format_count(number, 'layer')}, and each stage needs one. Set it to "
            f"{number} or less."
        )
    owners: dict[str, tuple[int, ...]] = assign(count)
    sizes = [0] * count
    for name, parameter in network.named_parameters():
        for stage in owners[name]:
            sizes[stage] += parameter.numel()
    return StagePlan(split_layers(number, count), owners, tuple(sizes))


def split_layers(number: int, count: int) -> tuple[range, ...]:
    """Return the layers of each stage; if they cannot be equal, the later stages, which keep less, have one more."""
    bounds = [number * stage // count for stage in range(count + 1)]
    return tuple(range(start, stop) for start, stop in pairwise(bounds))


def keep_stage(network: nn.Module, plan: StagePlan, stage: Stage) -> None:
    """Drop the parameters of other stages, in place, with the modules that have no others.

    The network's attribute `stage` then says which one it is.
    """
    kept = {name for name, owners in plan.owners.items() if stage.index in owners}
    _drop_others(network, "", kept)
    network.stage = stage  # type: ignore[assignment]  # torch declares attributes as modules or tensors


def _drop_others(module: nn.Module, prefix: str, kept: set[str]) -> None:
    for name, _ in list(module.named_parameters(recurse=False)):
        if prefix + name not in kept:
            setattr(module, name, None)
    for name, child in list(module.named_children()):
        below = [prefix + name + "." + one for one, _ in child.named_parameters()]
        if any(one in kept for one in below):
            _drop_others(child, f"{prefix}{name}.", kept)
        elif below and isinstance(module, nn.ModuleList):
            delattr(module, name)  # the others keep their numbers
        elif below:
            setattr(module, name, None)


def stage_layouts(layouts: Mapping[str, ParameterLayout], plan: StagePlan, stage: Stage) -> dict[str, ParameterLayout]:
    """Return the layouts of the whole network, in which a tied weight of an earlier stage is marked as repeated."""
    return {name: replace(layout, is_repeated=stage.index in plan.owners[name][1:]) for name, layout in layouts.items()}


@torch.no_grad()
def sum_tied_gradients(network: nn.Module, plan: StagePlan, groups: ProcessGroups) -> None:
    """Sum the gradients of weights that the first and the last stage share; call once a step, before clipping.

    Both have equal gradients afterwards, so their copies stay equal.
    """
    for name, parameter in network.named_parameters():
        if len(plan.owners[name]) == 1 or not parameter.requires_grad:
            continue
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        gradient = parameter.grad
        dist.all_reduce(gradient.to_local() if isinstance(gradient, DTensor) else gradient, group=groups.pipeline_ends)
