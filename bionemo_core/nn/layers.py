"""The transformer layers of all models, built from megatron-core's modules."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from bionemo_core.errors import ConfigError
from bionemo_core.megatron import (
    WITHOUT_CUDA_GRAPHS,
    AttnMaskType,
    ColumnParallelLinear,
    CrossAttention,
    CrossAttentionSubmodules,
    IdentityOp,
    MLPSubmodules,
    ModuleSpec,
    RowParallelLinear,
    SelfAttention,
    SelfAttentionSubmodules,
    TransformerBlockSubmodules,
    TransformerConfig,
    TransformerLayer,
    TransformerLayerSubmodules,
    mlp_spec,
)
from bionemo_core.nn.attention import SdpaCoreAttention
from bionemo_core.parallel.float8 import Float8Product
from bionemo_core.parallel.groups import ProcessGroups
from bionemo_core.parallel.sequence import SequenceShards
from bionemo_core.parallel.tensor import column_linear, sum_over_ranks


class ColumnLinear(ColumnParallelLinear):
    """A column-parallel linear layer that is compiled as a whole, on one tensor-parallel rank or several."""

    shards: SequenceShards | None = None
    """The split of the input's tokens over the ranks; None if every rank has all tokens."""
    float8: Float8Product | None = None
    """The product in float8, on one tensor-parallel rank; None: in the dtype of the input."""

    def forward(self, input_: Tensor, weight: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        weight = self.weight if weight is None else weight
        if self.shards is not None:
            return self.shards.gathered_linear(input_, weight, self.bias), None
        if self.tp_group.size() > 1:
            return column_linear(input_, weight, self.bias, self.tp_group), None
        return (self.float8 or F.linear)(input_, weight, self.bias), None


class RowLinear(RowParallelLinear):
    """A row-parallel linear layer that is compiled as a whole, on one tensor-parallel rank or several."""

    shards: SequenceShards | None = None
    """The split of the output's tokens over the ranks; None if every rank gets all tokens."""
    float8: Float8Product | None = None
    """The product in float8, on one tensor-parallel rank; None: in the dtype of the input."""

    def forward(self, input_: Tensor) -> tuple[Tensor, Tensor | None]:
        if self.shards is not None:
            output = self.shards.sum_and_scatter(F.linear(input_, self.weight))
            return (output if self.bias is None else output + self.bias), None
        if self.tp_group.size() > 1:
            output = sum_over_ranks(F.linear(input_, self.weight), self.tp_group)
            return (output if self.bias is None else output + self.bias), None
        return (self.float8 or F.linear)(input_, self.weight, self.bias), None


def gelu_tanh(x: Tensor) -> Tensor:
    """Compute the tanh form of gelu, as v1's fused kernel does."""
    return F.gelu(x, approximate="tanh")


_GATED = {"geglu": F.gelu, "geglu_tanh": gelu_tanh, "swiglu": F.silu, "reglu": F.relu}
_PLAIN = {"gelu": F.gelu, "gelu_tanh": gelu_tanh, "relu": F.relu}

_NORMS = {"layernorm": "LayerNorm", "rmsnorm": "RMSNorm"}
BLOCK_TYPES = ("pre_ln", "post_ln", "normformer")


# Long: the signature lists megatron-core's options, and the call passes each on.
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
    qk_layernorm: bool = False,
    tensor_model_parallel_size: int = 1,
    deterministic: bool = False,
    params_dtype: torch.dtype = torch.float32,
) -> TransformerConfig:
    """Return megatron-core's config for a network, without the fusions that need Apex or Transformer Engine.

    Parameters are always initialised on the CPU, so that a seed gives the same weights on every device and layout.

    Args:
        activation: gelu (erf), gelu_tanh, relu; gated: geglu, geglu_tanh, swiglu, reglu.
        kv_channels: width of a head; hidden_size / num_attention_heads by default.
        softmax_scale: factor on attention scores; 1 / sqrt(kv_channels) by default, 1 in T5.
        normalization: layernorm or rmsnorm.
        bias: whether the linear layers of attention and MLP have a bias.
        qk_layernorm: whether the spec of the layers names norms of queries and keys.

    Raises:
        ConfigError: a size is not divisible as needed, or an activation or normalization is unknown.
    """
    if kv_channels is None and hidden_size % num_attention_heads:
        raise ConfigError(
            f"model.hidden_size={hidden_size} is not a multiple of model.num_attention_heads={num_attention_heads}. "
            "Change one of them."
        )
    if num_attention_heads % tensor_model_parallel_size:
        raise ConfigError(
            f"model.num_attention_heads={num_attention_heads} is not divisible by "
            f"parallel.tensor_model_parallel_size={tensor_model_parallel_size}. Change one of them."
        )
    known = {**_PLAIN, **_GATED}
    if activation not in known:
        raise ConfigError(f"model.activation={activation!r} is unknown; choose one of {', '.join(sorted(known))}.")
    if normalization not in _NORMS:
        raise ConfigError(f"model.normalization={normalization!r} is unknown; choose one of {', '.join(_NORMS)}.")
    return TransformerConfig(
        num_layers=num_layers,
        hidden_size=hidden_size,
        num_attention_heads=num_attention_heads,
        ffn_hidden_size=ffn_hidden_size or 4 * hidden_size,
        kv_channels=kv_channels,
        softmax_scale=softmax_scale,
        normalization=_NORMS[normalization],
        add_bias_linear=bias,
        qk_layernorm=qk_layernorm,
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
        **WITHOUT_CUDA_GRAPHS,
    )


class Norm:
    """A builder of the norm that `config` names; a class, because megatron-core instantiates only classes."""

    def __new__(  # type: ignore[misc]  # returns torch's own norm, not an instance of this class
        cls, config: TransformerConfig, hidden_size: int, eps: float = 1e-5, **_: object
    ) -> torch.nn.Module:
        """Return a torch norm over the last dim, of width `hidden_size`."""
        kind = {"LayerNorm": torch.nn.LayerNorm, "RMSNorm": torch.nn.RMSNorm}[config.normalization]
        return kind(hidden_size, eps=eps, dtype=config.params_dtype)


def block_spec(
    config: TransformerConfig,
    block_type: str = "pre_ln",
    *,
    causal: bool = False,
    cross_groups: ProcessGroups | None = None,
) -> TransformerBlockSubmodules:
    """Return the spec of `config.num_layers` layers (see `layer_spec`), with a final norm unless they are post_ln."""
    layers = [layer_spec(config, block_type, causal=causal, cross_groups=cross_groups)] * config.num_layers
    return TransformerBlockSubmodules(layer_specs=layers, layer_norm=Norm if block_type != "post_ln" else None)


# Long: one nested megatron-core spec.
def layer_spec(
    config: TransformerConfig,
    block_type: str = "pre_ln",
    *,
    causal: bool = False,
    cross_groups: ProcessGroups | None = None,
) -> ModuleSpec:
    """Return the spec of one transformer layer.

    Args:
        block_type: where the norms are. pre_ln: before each part. post_ln: after each residual sum, and none at the
            end. normformer: as pre_ln, and also after each attention and within the MLP (arXiv 2110.09456).
        causal: whether a position attends only to itself and earlier positions.
        cross_groups: the process groups of cross attention; None for a layer without cross attention.

    Raises:
        ConfigError: the type is unknown, or cannot be split over the config's tensor-parallel ranks.
    """
    if block_type not in BLOCK_TYPES:
        raise ConfigError(
            f"model.transformer_block_type={block_type!r} is unknown; choose one of {', '.join(BLOCK_TYPES)}."
        )
    normformer = block_type == "normformer"
    if normformer and config.tensor_model_parallel_size > 1:
        raise ConfigError(
            "model.transformer_block_type=normformer has a norm over the dim that tensor parallelism splits. "
            "Use parallel.tensor_model_parallel_size=1, or model.transformer_block_type=pre_ln."
        )
    norm_before = IdentityOp if block_type == "post_ln" else Norm
    after_attention, after_mlp = {
        "pre_ln": (residual_sum, residual_sum),
        "post_ln": (_residual_spec(config, NormAfterSum), _residual_spec(config, NormAfterSum)),
        "normformer": (_residual_spec(config, NormBeforeSum), residual_sum),
    }[block_type]
    cross: dict[str, object] = {}
    if cross_groups is not None:
        projection = partial(
            ColumnLinear, tp_group=cross_groups.tensor
        )  # megatron-core passes the group everywhere but here
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
            mlp=mlp_spec(
                MLPSubmodules(linear_fc1=ColumnLinear, linear_fc2=NormedRowLinear if normformer else RowLinear),
                ffn_hidden_size=config.ffn_hidden_size,
            ),
            mlp_bda=after_mlp,
            **cross,
        ),
    )


WithBias = tuple[Tensor, Tensor | None]
"""The output of a linear layer and its bias, which is added later."""


def residual_sum(training: bool, fused: bool) -> Callable[[WithBias, Tensor, float], Tensor]:
    """Return the function of (output and bias, residual, dropout) that a layer calls.

    It is megatron-core's bias-dropout-add, but in an evaluation, too, the sum is a new tensor. A sum in place would cut
    a compiled layer into several graphs, and add a copy.
    """

    def add(output: WithBias, residual: Tensor, dropout: float) -> Tensor:
        return residual + F.dropout(_sum(output), dropout, training)

    return add


class NormAfterSum(torch.nn.Module):
    """A norm after the residual sum; replaces `residual_sum`."""

    def __init__(self, transformer: TransformerConfig, **_: object) -> None:
        super().__init__()
        self.norm = Norm(transformer, transformer.hidden_size, transformer.layernorm_epsilon)

    def forward(self, training: bool, fused: bool) -> Callable[[WithBias, Tensor, float], Tensor]:
        """Return the function of (output and bias, residual, dropout) that a layer calls."""

        def add(output: WithBias, residual: Tensor, dropout: float) -> Tensor:
            return self.norm(residual + F.dropout(_sum(output), dropout, training))

        return add


class NormBeforeSum(NormAfterSum):
    """A norm before the residual sum, as after a NormFormer's attention."""

    def forward(self, training: bool, fused: bool) -> Callable[[WithBias, Tensor, float], Tensor]:
        """Return the function of (output and bias, residual, dropout) that a layer calls."""

        def add(output: WithBias, residual: Tensor, dropout: float) -> Tensor:
            return residual + F.dropout(self.norm(_sum(output)), dropout, training)

        return add


class NormedRowLinear(RowLinear):
    """A row-parallel linear layer after a norm of its input, as in a NormFormer's MLP."""

    def __init__(self, input_size: int, output_size: int, *, config: TransformerConfig, **options: object) -> None:
        super().__init__(input_size, output_size, config=config, **options)
        self.norm = Norm(config, input_size, config.layernorm_epsilon)

    def forward(self, input_: Tensor) -> tuple[Tensor, Tensor | None]:
        return super().forward(self.norm(input_))


def _sum(output: WithBias) -> Tensor:
    value, bias = output
    return value if bias is None else value + bias


def _residual_spec(config: TransformerConfig, kind: type[NormAfterSum]) -> ModuleSpec:
    return ModuleSpec(module=kind, params={"transformer": config})
