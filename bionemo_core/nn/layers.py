"""The layer that every model of ours is made of, from megatron-core's parts."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from megatron.core.fusions.fused_bias_dropout import get_bias_dropout_add
from megatron.core.tensor_parallel.layers import ColumnParallelLinear, RowParallelLinear
from megatron.core.transformer.attention import SelfAttention, SelfAttentionSubmodules
from megatron.core.transformer.enums import AttnMaskType
from megatron.core.transformer.mlp import MLP, MLPSubmodules
from megatron.core.transformer.spec_utils import ModuleSpec
from megatron.core.transformer.transformer_block import TransformerBlockSubmodules
from megatron.core.transformer.transformer_config import TransformerConfig
from megatron.core.transformer.transformer_layer import TransformerLayer, TransformerLayerSubmodules
from torch import Tensor

from bionemo_core.errors import ConfigError
from bionemo_core.nn.attention import SdpaCoreAttention


class ColumnLinear(ColumnParallelLinear):
    """A column-parallel linear layer that is one fused product on a single tensor-parallel rank."""

    def forward(self, input_: Tensor, weight: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        if self.tp_group.size() > 1:
            return super().forward(input_, weight)
        return F.linear(input_, self.weight if weight is None else weight, self.bias), None


class RowLinear(RowParallelLinear):
    """A row-parallel linear layer that is one fused product on a single tensor-parallel rank."""

    def forward(self, input_: Tensor) -> tuple[Tensor, Tensor | None]:
        if self.tp_group.size() > 1:
            return super().forward(input_)
        return F.linear(input_, self.weight, self.bias), None


def gelu_tanh(x: Tensor) -> Tensor:
    """The tanh form of gelu, which v1's fused kernel computes."""
    return F.gelu(x, approximate="tanh")


_GATED = {"geglu": F.gelu, "swiglu": F.silu, "reglu": F.relu}
_PLAIN = {"gelu": F.gelu, "gelu_tanh": gelu_tanh, "relu": F.relu}


def transformer_config(
    *,
    num_layers: int,
    hidden_size: int,
    num_attention_heads: int,
    ffn_hidden_size: int | None = None,
    activation: str = "gelu",
    hidden_dropout: float = 0.0,
    attention_dropout: float = 0.0,
    layernorm_epsilon: float = 1e-5,
    init_method_std: float = 0.02,
    tensor_model_parallel_size: int = 1,
    deterministic: bool = False,
    params_dtype: torch.dtype = torch.float32,
) -> TransformerConfig:
    """megatron-core's config for one of our networks, with the fusions off that need Apex or Transformer Engine.

    `activation` is gelu (erf), gelu_tanh, relu, geglu, swiglu or reglu. Parameters are initialised on the
    CPU on every device and layout, so that one seed gives one set of weights.

    Raises:
        ConfigError: sizes that do not divide, or an unknown activation.
    """
    if hidden_size % num_attention_heads:
        raise ConfigError(
            f"model: hidden_size={hidden_size} is not a multiple of num_attention_heads={num_attention_heads}."
        )
    if num_attention_heads % tensor_model_parallel_size:
        raise ConfigError(
            f"model: num_attention_heads={num_attention_heads} cannot be split over "
            f"parallel.tensor_model_parallel_size={tensor_model_parallel_size} ranks."
        )
    known = {**_PLAIN, **_GATED}
    if activation not in known:
        raise ConfigError(f"model: activation={activation!r} is unknown; choose one of {', '.join(sorted(known))}.")
    return TransformerConfig(
        num_layers=num_layers,
        hidden_size=hidden_size,
        num_attention_heads=num_attention_heads,
        ffn_hidden_size=ffn_hidden_size or 4 * hidden_size,
        activation_func=known[activation],
        gated_linear_unit=activation in _GATED,
        hidden_dropout=hidden_dropout,
        attention_dropout=attention_dropout,
        layernorm_epsilon=layernorm_epsilon,
        init_method_std=init_method_std,
        tensor_model_parallel_size=tensor_model_parallel_size,
        deterministic_mode=deterministic,
        params_dtype=params_dtype,
        use_cpu_initialization=True,
        gradient_accumulation_fusion=False,
        masked_softmax_fusion=False,
        bias_activation_fusion=False,
        bias_dropout_fusion=False,
        apply_rope_fusion=False,
        persist_layer_norm=False,
        cuda_graph_scope=[],
    )


class Norm:
    """Builds the norm that `config` asks for; a class, because megatron-core calls classes and passes functions on."""

    def __new__(  # type: ignore[misc]  # torch's own norm comes out, not an instance of this class
        cls, config: TransformerConfig, hidden_size: int, eps: float = 1e-5, **_: object
    ) -> torch.nn.Module:
        """A torch norm over the last dim, of width `hidden_size`."""
        kind = {"LayerNorm": torch.nn.LayerNorm, "RMSNorm": torch.nn.RMSNorm}[config.normalization]
        return kind(hidden_size, eps=eps, dtype=config.params_dtype)


def encoder_block_spec(config: TransformerConfig, final_norm: bool = True) -> TransformerBlockSubmodules:
    """Pre-norm bidirectional layers and, unless told otherwise, a norm at the end."""
    layer = ModuleSpec(
        module=TransformerLayer,
        submodules=TransformerLayerSubmodules(
            input_layernorm=Norm,
            self_attention=ModuleSpec(
                module=SelfAttention,
                params={"attn_mask_type": AttnMaskType.padding},
                submodules=SelfAttentionSubmodules(
                    linear_qkv=ColumnLinear, core_attention=SdpaCoreAttention, linear_proj=RowLinear
                ),
            ),
            self_attn_bda=get_bias_dropout_add,
            pre_mlp_layernorm=Norm,
            mlp=ModuleSpec(
                module=MLP,
                params={"ffn_hidden_size": config.ffn_hidden_size},
                submodules=MLPSubmodules(linear_fc1=ColumnLinear, linear_fc2=RowLinear),
            ),
            mlp_bda=get_bias_dropout_add,
        ),
    )
    return TransformerBlockSubmodules(layer_specs=[layer] * config.num_layers, layer_norm=Norm if final_norm else None)
