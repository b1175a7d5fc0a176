"""A layer of each block type, activation and norm against a few lines of plain torch."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from bionemo_core.errors import ConfigError
from bionemo_core.nn.layers import block_spec, transformer_config
from bionemo_core.nn.stacks import TransformerBlock
from bionemo_core.parallel.groups import start_groups

HIDDEN, HEADS, WIDTH = 24, 3, 5
ACTIVATIONS = {
    "gelu": F.gelu,
    "gelu_tanh": lambda x: 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
    "relu": F.relu,
    "geglu": lambda x: F.gelu(x.chunk(2, -1)[0]) * x.chunk(2, -1)[1],
    "geglu_tanh": lambda x: F.gelu(x.chunk(2, -1)[0], approximate="tanh") * x.chunk(2, -1)[1],
    "swiglu": lambda x: F.silu(x.chunk(2, -1)[0]) * x.chunk(2, -1)[1],
    "reglu": lambda x: F.relu(x.chunk(2, -1)[0]) * x.chunk(2, -1)[1],
}


def block(block_type: str, **options: object) -> TransformerBlock:
    """Return two causal layers with cross attention, all of whose parameters are random."""
    config = transformer_config(
        num_layers=2, hidden_size=HIDDEN, num_attention_heads=HEADS, kv_channels=WIDTH, ffn_hidden_size=32, **options
    )
    groups = start_groups()
    torch.manual_seed(0)
    spec = block_spec(config, block_type, causal=True, cross_groups=groups)
    model = TransformerBlock(config, spec, pg_collection=groups.collection).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.5)
    return model


def linear(x: Tensor, module: torch.nn.Module) -> Tensor:
    return x @ module.weight.T + (0 if module.bias is None else module.bias)


def norm(x: Tensor, module: torch.nn.Module) -> Tensor:
    if isinstance(module, torch.nn.RMSNorm):
        return x / (x.square().mean(-1, keepdim=True) + module.eps).sqrt() * module.weight
    centred = x - x.mean(-1, keepdim=True)
    return centred / (centred.square().mean(-1, keepdim=True) + module.eps).sqrt() * module.weight + module.bias


def attend(query: Tensor, key: Tensor, value: Tensor, causal: bool, scale: float) -> Tensor:
    scores = torch.einsum("qbnd,kbnd->bnqk", query, key) * scale
    if causal:
        ahead = torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1)
        scores = scores.masked_fill(ahead, float("-inf"))
    return torch.einsum("bnqk,kbnd->qbnd", scores.softmax(-1), value).flatten(2)


def plain_layer(
    layer: torch.nn.Module, block_type: str, activation: str, x: Tensor, memory: Tensor, scale: float
) -> Tensor:
    def self_attention(x: Tensor) -> Tensor:
        attention = layer.self_attention
        q, k, v = linear(x, attention.linear_qkv).unflatten(-1, (HEADS, 3, WIDTH)).unbind(-2)
        return linear(attend(q, k, v, True, scale), attention.linear_proj)

    def cross_attention(x: Tensor) -> Tensor:
        attention = layer.cross_attention
        q = linear(x, attention.linear_q).unflatten(-1, (HEADS, WIDTH))
        k, v = linear(memory, attention.linear_kv).unflatten(-1, (HEADS, 2, WIDTH)).unbind(-2)
        return linear(attend(q, k, v, False, scale), attention.linear_proj)

    def mlp(x: Tensor) -> Tensor:
        inner = ACTIVATIONS[activation](linear(x, layer.mlp.linear_fc1))
        if block_type == "normformer":
            inner = norm(inner, layer.mlp.linear_fc2.norm)
        return linear(inner, layer.mlp.linear_fc2)

    parts = (
        (self_attention, layer.input_layernorm, layer.self_attn_bda),
        (cross_attention, layer.pre_cross_attn_layernorm, layer.cross_attn_bda),
        (mlp, layer.pre_mlp_layernorm, layer.mlp_bda),
    )
    for function, before, after in parts:
        if block_type == "post_ln":
            x = norm(x + function(x), after.norm)
            continue
        out = function(norm(x, before))
        x = x + (norm(out, after.norm) if block_type == "normformer" and function is not mlp else out)
    return x


@torch.no_grad()
@pytest.mark.parametrize(
    ("block_type", "activation", "options"),
    [
        ("pre_ln", "gelu", {}),
        ("pre_ln", "gelu_tanh", {"normalization": "rmsnorm", "bias": False, "softmax_scale": 1.0}),
        ("pre_ln", "geglu", {"bias": False}),
        ("post_ln", "relu", {}),
        ("post_ln", "swiglu", {"normalization": "rmsnorm"}),
        ("normformer", "reglu", {}),
        ("normformer", "geglu_tanh", {"normalization": "rmsnorm", "bias": False}),
    ],
)
def test_layers_against_plain_torch(block_type: str, activation: str, options: dict[str, object]) -> None:
    model = block(block_type, activation=activation, **options)
    hidden, memory = torch.randn(7, 2, HIDDEN).double(), torch.randn(4, 2, HIDDEN).double()
    scale = options.get("softmax_scale", WIDTH**-0.5)
    expected = hidden
    for layer in model.layers:
        expected = plain_layer(layer, block_type, activation, expected, memory, scale)
    if block_type != "post_ln":
        expected = norm(expected, model.final_layernorm)
    torch.testing.assert_close(model(hidden, None, context=memory), expected, rtol=0, atol=1e-11)


def test_a_normformer_cannot_be_split_over_ranks() -> None:
    config = transformer_config(num_layers=1, hidden_size=24, num_attention_heads=2, tensor_model_parallel_size=2)
    with pytest.raises(ConfigError, match="normformer"):
        block_spec(config, "normformer")


def test_a_hidden_size_that_heads_do_not_divide_needs_kv_channels() -> None:
    with pytest.raises(ConfigError, match=r"is not a multiple of model\.num_attention_heads"):
        transformer_config(num_layers=1, hidden_size=25, num_attention_heads=3)
    assert transformer_config(num_layers=1, hidden_size=25, num_attention_heads=3, kv_channels=8).kv_channels == 8
