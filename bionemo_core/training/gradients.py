"""The global gradient norm, gradient clipping, and the loss scale of 16-bit training."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor

from bionemo_core.parallel.groups import ProcessGroups
from bionemo_core.parallel.layout import ParameterLayout


def gradient_norm(
    named_parameters: Iterable[tuple[str, nn.Parameter]],
    layouts: Mapping[str, ParameterLayout],
    groups: ProcessGroups,
    device: torch.device,
) -> Tensor:
    """Return the 2-norm of the whole model's gradient, a float32 scalar, equal on every rank."""
    split: list[Tensor] = []
    replicated: list[Tensor] = []
    mesh: DeviceMesh | None = None
    for name, parameter in named_parameters:
        if parameter.grad is None:
            continue
        if isinstance(parameter.grad, DTensor):
            mesh = parameter.grad.device_mesh
        if layouts[name].is_repeated:
            continue
        (replicated if layouts[name].dim is None else split).append(_local(parameter.grad))
    total = _sum_of_squares(split, device)
    if groups.tensor_rank == 0:  # gradients that every tensor-parallel rank holds are counted once
        total = total + _sum_of_squares(replicated, device)
    if mesh is not None:  # its last axis is sharded, an axis before that is replicated
        dist.all_reduce(total, group=mesh.get_group(mesh.ndim - 1))
    if groups.tensor_size > 1:
        dist.all_reduce(total, group=groups.tensor)
    groups.sum_over_stages(total)
    return total.sqrt()


def scale_gradients(parameters: Iterable[nn.Parameter], factor: float | Tensor) -> None:
    """Multiply every gradient by `factor` in place."""
    gradients = [_local(parameter.grad) for parameter in parameters if parameter.grad is not None]
    if gradients:
        torch._foreach_mul_(gradients, factor)


def clip_factor(norm: float, limit: float | None) -> float:
    """Return the factor that clips gradients of this norm to `limit`; 1.0 if they are within it (v1's formula)."""
    return 1.0 if not limit or norm <= limit else limit / (norm + 1e-6)


def _local(tensor: Tensor) -> Tensor:
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def _sum_of_squares(tensors: list[Tensor], device: torch.device) -> Tensor:
    if not tensors:
        return torch.zeros((), device=device)
    return nn.utils.get_total_norm(tensors).float().square().to(device)


@dataclass
class LossScaler:
    """Dynamic loss scaling for float16, with v1's constants; for other dtypes, a constant scale of 1."""

    scale: float = 1.0
    dynamic: bool = False
    growth_interval: int = 1000
    hysteresis: int = 2
    good_steps: int = 0
    overflows_left: int = 2
    skipped_in_a_row: int = 0

    @classmethod
    def for_dtype(cls, dtype: torch.dtype) -> LossScaler:
        """Return the scaler for training in this dtype."""
        return cls(scale=2.0**32, dynamic=True) if dtype == torch.float16 else cls()

    def update(self, overflow: bool) -> None:
        """Adjust the scale after a step.

        From the second overflow on, each halves the scale; each 1,000 good steps in a row double it and allow one free
        overflow again.
        """
        if not self.dynamic:
            return
        if overflow:
            self.skipped_in_a_row += 1
            self.good_steps = 0
            self.overflows_left -= 1
            if self.overflows_left <= 0:
                self.scale = max(1.0, self.scale / 2)
            return
        self.skipped_in_a_row = 0
        self.good_steps += 1
        if self.good_steps % self.growth_interval == 0:
            self.overflows_left = self.hysteresis
            self.scale *= 2
