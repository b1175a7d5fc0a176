"""The optimizer as settings, and how a network's parameters are grouped for it."""

# No `from __future__ import annotations`: hydra-zen reads these signatures.
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class AdamWSettings:
    """Decoupled Adam (Loshchilov and Hutter 2019); `lr` is what the schedule scales from."""

    lr: float
    weight_decay: float
    betas: tuple[float, float]
    eps: float

    def build(self, named_parameters: "Iterable[tuple[str, torch.nn.Parameter]]") -> "torch.optim.AdamW":
        """The fused torch optimizer; biases and norms are not decayed, as in v1."""
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
    """AdamW; v1's `fused_adam` is this one."""
    first, second = betas
    return AdamWSettings(lr=lr, weight_decay=weight_decay, betas=(float(first), float(second)), eps=eps)
