"""The parts in which ESM C's layers differ from the core's: norms of queries and keys, scaled residual sums."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from bionemo_core.megatron import ModuleSpec, TransformerBlockSubmodules, TransformerConfig
from bionemo_core.nn.layers import WithBias, block_spec


class HeadsNorm(torch.nn.LayerNorm):
    """A norm without bias over all heads together, of queries or keys [length, rows, heads, width]."""

    def __init__(self, hidden_size: int, config: TransformerConfig, eps: float) -> None:
        width = hidden_size * config.num_attention_heads
        super().__init__(width, eps=eps, bias=False, dtype=config.params_dtype)

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input.flatten(-2)).view(input.shape)


class FinalNorm(torch.nn.LayerNorm):
    """The norm after the last layer, without bias."""

    def __init__(self, config: TransformerConfig, hidden_size: int, eps: float = 1e-5, **_: object) -> None:
        super().__init__(hidden_size, eps=eps, bias=False, dtype=config.params_dtype)


class ScaledSum(torch.nn.Module):
    """A residual sum whose new term is divided; replaces megatron-core's bias-dropout-add."""

    def __init__(self, divisor: float, **_: object) -> None:
        super().__init__()
        self.divisor = divisor

    def forward(self, training: bool, fused: bool) -> Callable[[WithBias, Tensor, float], Tensor]:
        """Return the function of (output and bias, residual, dropout) that a layer calls."""

        def add(output: WithBias, residual: Tensor, dropout: float) -> Tensor:
            value, bias = output
            value = value if bias is None else value + bias
            return residual + F.dropout(value, dropout, training) / self.divisor

        return add


def esmc_block(config: TransformerConfig, divisor: float) -> TransformerBlockSubmodules:
    """Return the spec of ESM C's layers and final norm."""
    block = block_spec(config)
    scaled = ModuleSpec(module=ScaledSum, params={"divisor": divisor})
    layer = block.layer_specs[0].submodules  # all layers share one spec
    layer.self_attn_bda = layer.mlp_bda = scaled
    layer.self_attention.submodules.q_layernorm = HeadsNorm
    layer.self_attention.submodules.k_layernorm = HeadsNorm
    block.layer_norm = FinalNorm
    return block
