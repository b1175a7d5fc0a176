"""The settings of the optimizer, and the grouping of a network's parameters for it."""

# No `from __future__ import annotations`: hydra-zen reads these signatures.
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class AdamWSettings:
    """Settings of AdamW, Adam with decoupled weight decay (Loshchilov and Hutter 2019); `lr` is the schedule's base."""

    lr: float
    weight_decay: float
    betas: tuple[float, float]
    eps: float

    def build(self, named_parameters: "Iterable[tuple[str, torch.nn.Parameter]]") -> "torch.optim.AdamW":
        """Build the fused torch optimizer; biases and norms have no weight decay, as in v1."""
        import torch

        decayed: list[torch.nn.Parameter] = []
        kept: list[torch.nn.Parameter] = []
        for _, parameter in named_parameters:
            if parameter.requires_grad:
                (decayed if parameter.dim() > 1 else kept).append(parameter)
        groups = [
            {"params": decayed, "weight_decay": self.weight_decay},
            {"params": kept, "weight_decay": 0.0},
        ]
        return torch.optim.AdamW(
            [group for group in groups if group["params"]], lr=self.lr, betas=self.betas, eps=self.eps, fused=True
        )


def adamw(
    lr: float = 1e-4,
    weight_decay: float = 0.01,
    betas: list[float] = [0.9, 0.999],  # noqa: B006 - hydra-zen copies it
    eps: float = 1e-8,
):
    """Return AdamW settings, the same as v1's `fused_adam`."""
    first, second = betas
    return AdamWSettings(lr=lr, weight_decay=weight_decay, betas=(float(first), float(second)), eps=eps)
