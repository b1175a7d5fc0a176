"""The layer that every model of ours is made of, from megatron-core's parts."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from megatron.core.fusions.fused_bias_dropout import get_bias_dropout_add
from megatron.core.tensor_parallel.layers import ColumnParallelLinear, RowParallelLinear
from megatron.core.transformer.attention import (
    CrossAttention,
    CrossAttentionSubmodules,
    SelfAttention,
    SelfAttentionSubmodules,
)
from megatron.core.transformer.enums import AttnMaskType
from megatron.core.transformer.identity_op import IdentityOp
from megatron.core.transformer.mlp import MLP, MLPSubmodules
from megatron.core.transformer.spec_utils import ModuleSpec
from megatron.core.transformer.transformer_block import TransformerBlockSubmodules
from megatron.core.transformer.transformer_config import TransformerConfig
from megatron.core.transformer.transformer_layer import TransformerLayer, TransformerLayerSubmodules
from torch import Tensor

from bionemo_core.errors import ConfigError
from bionemo_core.nn.attention import SdpaCoreAttention
from bionemo_core.parallel.groups import ProcessGroups


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
    """Return the tanh form of gelu, which v1's fused kernel computes."""
    return F.gelu(x, approximate="tanh")


_GATED = {"geglu": F.gelu, "geglu_tanh": gelu_tanh, "swiglu": F.silu, "reglu": F.relu}
_PLAIN = {"gelu": F.gelu, "gelu_tanh": gelu_tanh, "relu": F.relu}

_NORMS = {"layernorm": "LayerNorm", "rmsnorm": "RMSNorm"}
BLOCK_TYPES = ("pre_ln", "post_ln", "normformer")


# Long: one call whose arguments are all explained.
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
    kv_channels: int | None = None,
    softmax_scale: float | None = None,
    normalization: str = "layernorm",
    bias: bool = True,
    tensor_model_parallel_size: int = 1,
    deterministic: bool = False,
    params_dtype: torch.dtype = torch.float32,
) -> TransformerConfig:
    """megatron-core's config for one of our networks, with the fusions off that need Apex or Transformer Engine.

    Parameters are initialised on the CPU on every device and layout, so that one seed gives one set of weights.

    Args:
        activation: gelu (erf), gelu_tanh, relu; gated: geglu, geglu_tanh, swiglu, reglu.
        kv_channels: width of a head; hidden_size / num_attention_heads by default.
        softmax_scale: factor on attention scores; 1 / sqrt(kv_channels) by default, 1 in T5.
        normalization: layernorm or rmsnorm.
        bias: whether the linear layers of attention and MLP have one.

    Raises:
        ConfigError: sizes that do not divide, or an unknown word.
    """
    if kv_channels is None and hidden_size % num_attention_heads:
        raise ConfigError(
            f"model: hidden_size={hidden_size} is not a multiple of num_attention_heads={num_attention_heads}; "
            "change one, or give the width of a head as kv_channels."
        )
    if num_attention_heads % tensor_model_parallel_size:
        raise ConfigError(
            f"model: num_attention_heads={num_attention_heads} cannot be split over "
            f"parallel.tensor_model_parallel_size={tensor_model_parallel_size} ranks."
        )
    known = {**_PLAIN, **_GATED}
    if activation not in known:
        raise ConfigError(f"model: activation={activation!r} is unknown; choose one of {', '.join(sorted(known))}.")
    if normalization not in _NORMS:
        raise ConfigError(f"model: normalization={normalization!r} is unknown; choose one of {', '.join(_NORMS)}.")
    return TransformerConfig(
        num_layers=num_layers,
        hidden_size=hidden_size,
        num_attention_heads=num_attention_heads,
        ffn_hidden_size=ffn_hidden_size or 4 * hidden_size,
        kv_channels=kv_channels,
        softmax_scale=softmax_scale,
        normalization=_NORMS[normalization],
        add_bias_linear=bias,
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
        """Return a torch norm over the last dim, of width `hidden_size`."""
        kind = {"LayerNorm": torch.nn.LayerNorm, "RMSNorm": torch.nn.RMSNorm}[config.normalization]
        return kind(hidden_size, eps=eps, dtype=config.params_dtype)


def encoder_block_spec(config: TransformerConfig, final_norm: bool = True) -> TransformerBlockSubmodules:
    """Pre-norm bidirectional layers and, unless told otherwise, a norm at the end."""
    layers = [layer_spec(config)] * config.num_layers
    return TransformerBlockSubmodules(layer_specs=layers, layer_norm=Norm if final_norm else None)


def block_spec(
    config: TransformerConfig, block_type: str, *, causal: bool = False, cross_groups: ProcessGroups | None = None
) -> TransformerBlockSubmodules:
    """`config.num_layers` layers as `layer_spec` has them, and the norm at the end that goes with their type."""
    layers = [layer_spec(config, block_type, causal=causal, cross_groups=cross_groups)] * config.num_layers
    return TransformerBlockSubmodules(layer_specs=layers, layer_norm=Norm if block_type != "post_ln" else None)


# Long: one specification, from the outside to the inside.
def layer_spec(
    config: TransformerConfig,
    block_type: str = "pre_ln",
    *,
    causal: bool = False,
    cross_groups: ProcessGroups | None = None,
) -> ModuleSpec:
    """One transformer layer.

    Args:
        block_type: where the norms are. pre_ln: before each part. post_ln: after each residual sum, and none at the
            end. normformer: as pre_ln, and also after each attention and within the MLP (arXiv 2110.09456).
        causal: whether a position sees those after it.
        cross_groups: the process groups of cross attention; None for a layer without.

    Raises:
        ConfigError: an unknown type, or one that cannot be split over the config's tensor ranks.
    """
    if block_type not in BLOCK_TYPES:
        raise ConfigError(
            f"model: transformer_block_type={block_type!r} is unknown; choose one of {', '.join(BLOCK_TYPES)}."
        )
    normformer = block_type == "normformer"
    if normformer and config.tensor_model_parallel_size > 1:
        raise ConfigError(
            "model: transformer_block_type=normformer has a norm over the width that tensor parallelism splits. "
            "Use parallel.tensor_model_parallel_size=1, or pre_ln."
        )
    norm_before = IdentityOp if block_type == "post_ln" else Norm
    after_attention, after_mlp = {
        "pre_ln": (get_bias_dropout_add, get_bias_dropout_add),
        "post_ln": (_add(config, NormAfterSum), _add(config, NormAfterSum)),
        "normformer": (_add(config, NormBeforeSum), get_bias_dropout_add),
    }[block_type]
    cross: dict[str, object] = {}
    if cross_groups is not None:
        projection = partial(ColumnLinear, tp_group=cross_groups.tensor)  # megatron-core passes it everywhere but here
        cross = {
            "pre_cross_attn_layernorm": norm_before,
            "cross_attention": ModuleSpec(
                module=CrossAttention,
                params={"attn_mask_type": AttnMaskType.padding},
                submodules=CrossAttentionSubmodules(
                    linear_q=projection,
                    linear_kv=projection,
                    core_attention=SdpaCoreAttention,
                    linear_proj=RowLinear,
                ),
            ),
            "cross_attn_bda": after_attention,
        }
    return ModuleSpec(
        module=TransformerLayer,
        submodules=TransformerLayerSubmodules(
            input_layernorm=norm_before,
            self_attention=ModuleSpec(
                module=SelfAttention,
                params={"attn_mask_type": AttnMaskType.causal if causal else AttnMaskType.padding},
                submodules=SelfAttentionSubmodules(
                    linear_qkv=ColumnLinear, core_attention=SdpaCoreAttention, linear_proj=RowLinear
                ),
            ),
            self_attn_bda=after_attention,
            pre_mlp_layernorm=norm_before,
            mlp=ModuleSpec(
                module=MLP,
                params={"ffn_hidden_size": config.ffn_hidden_size},
                submodules=MLPSubmodules(
                    linear_fc1=ColumnLinear, linear_fc2=NormedRowLinear if normformer else RowLinear
                ),
            ),
            mlp_bda=after_mlp,
            **cross,
        ),
    )


WithBias = tuple[Tensor, Tensor | None]
"""What a linear layer returns that leaves its bias to be added later."""


class NormAfterSum(torch.nn.Module):
    """A norm after the residual sum; takes the place of megatron-core's bias-dropout-add."""

    def __init__(self, transformer: TransformerConfig, **_: object) -> None:
        super().__init__()
        self.norm = Norm(transformer, transformer.hidden_size, transformer.layernorm_epsilon)

    def forward(self, training: bool, fused: bool) -> Callable[[WithBias, Tensor, float], Tensor]:
        """Return the function of (output and bias, residual, dropout) that a layer calls."""

        def add(output: WithBias, residual: Tensor, dropout: float) -> Tensor:
            return self.norm(residual + F.dropout(_sum(output), dropout, training))

        return add


class NormBeforeSum(NormAfterSum):
    """A norm before the residual sum, as a NormFormer has it behind attention."""

    def forward(self, training: bool, fused: bool) -> Callable[[WithBias, Tensor, float], Tensor]:
        """Return the function of (output and bias, residual, dropout) that a layer calls."""

        def add(output: WithBias, residual: Tensor, dropout: float) -> Tensor:
            return residual + F.dropout(self.norm(_sum(output)), dropout, training)

        return add


class NormedRowLinear(RowLinear):
    """A row-parallel linear layer over a norm of its input, as a NormFormer has it in the MLP."""

    def __init__(self, input_size: int, output_size: int, *, config: TransformerConfig, **options: object) -> None:
        super().__init__(input_size, output_size, config=config, **options)
        self.norm = Norm(config, input_size, config.layernorm_epsilon)

    def forward(self, input_: Tensor) -> tuple[Tensor, Tensor | None]:
        return super().forward(self.norm(input_))


def _sum(output: WithBias) -> Tensor:
    value, bias = output
    return value if bias is None else value + bias


def _add(config: TransformerConfig, kind: type[NormAfterSum]) -> ModuleSpec:
    return ModuleSpec(module=kind, params={"transformer": config})
