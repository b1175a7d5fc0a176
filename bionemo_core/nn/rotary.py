"""Rotary position angles gathered by position, so that a packed row needs no loop over its sequences."""

from __future__ import annotations

import torch
from torch import Tensor

from bionemo_core.errors import ConfigError


class RotaryAngles(torch.nn.Module):
    """Angles for `apply_rotary_pos_emb` in the half-split form (RoFormer, arXiv 2104.09864; ESM-2's form).

    Raises:
        ConfigError: the width of a head is odd, so that it has no two halves.
    """

    inverse_frequency: Tensor

    def __init__(self, head_width: int, base: float = 10000.0) -> None:
        super().__init__()
        if head_width % 2:
            raise ConfigError(
                f"model.hidden_size / model.num_attention_heads is {head_width}, the width of a head. Rotary positions "
                "need an even width. Change one of the two keys."
            )
        exponents = torch.arange(0, head_width, 2, dtype=torch.float32) / head_width
        self.register_buffer("inverse_frequency", 1.0 / base**exponents, persistent=False)

    def forward(self, positions: Tensor) -> Tensor:
        """Return float32 angles, shape [length, batch or 1, 1, head_width], of positions of shape [batch, length]."""
        angles = positions.transpose(0, 1).unsqueeze(-1) * self.inverse_frequency.float()
        return torch.cat((angles, angles), dim=-1).unsqueeze(2)
