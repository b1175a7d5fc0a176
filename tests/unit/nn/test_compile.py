"""A transformer layer compiles as one graph, without graph breaks that would slow it down on a GPU."""

import pytest
import torch

from bionemo_core.nn.layers import BLOCK_TYPES, block_spec, transformer_config
from bionemo_core.nn.relative import RelativeBias
from bionemo_core.nn.rotary import RotaryAngles
from bionemo_core.parallel.groups import start_groups


@pytest.fixture(autouse=True)
def reset_compiler() -> None:
    torch._dynamo.reset()


@pytest.mark.parametrize("inference", [False, True])
@pytest.mark.parametrize("rotary", [False, True])
@pytest.mark.parametrize("padded", [False, True])
def test_a_layer_has_no_graph_break(rotary: bool, padded: bool, inference: bool) -> None:
    from bionemo_core.megatron import TransformerBlock

    config = transformer_config(num_layers=1, hidden_size=32, num_attention_heads=4, hidden_dropout=0.1)
    groups = start_groups()
    block = TransformerBlock(config, block_spec(config), pg_collection=groups.collection)
    layer = block.layers[0]
    hidden = torch.randn(10, 2, 32)
    mask = torch.zeros(2, 1, 1, 10, dtype=torch.bool) if padded else None
    if padded:
        mask[1, ..., 7:] = True
    angles = RotaryAngles(8)(torch.arange(10).unsqueeze(0)) if rotary else None
    layer.eval()
    expected, _ = layer(hidden, mask, rotary_pos_emb=angles)
    compiled = torch.compile(layer, fullgraph=True, backend="eager", dynamic=False)
    with torch.inference_mode(inference):  # where megatron-core would add in place
        got, _ = compiled(hidden, mask, rotary_pos_emb=angles)
    torch.testing.assert_close(got, expected)


@pytest.mark.parametrize("inference", [False, True])
@pytest.mark.parametrize("block_type", BLOCK_TYPES)
@pytest.mark.parametrize("relative", [False, True])
def test_a_decoder_layer_has_no_graph_break(block_type: str, relative: bool, inference: bool) -> None:
    from bionemo_core.megatron import TransformerBlock

    config = transformer_config(num_layers=1, hidden_size=32, num_attention_heads=4, hidden_dropout=0.1)
    groups = start_groups()
    spec = block_spec(config, block_type, causal=True, cross_groups=groups)
    layer = TransformerBlock(config, spec, pg_collection=groups.collection).layers[0].eval()
    bias = RelativeBias(config, groups, bidirectional=False)(10).detach().requires_grad_() if relative else None
    hidden, memory = torch.randn(10, 2, 32), torch.randn(7, 2, 32)
    hidden_keys = torch.zeros(2, 1, 1, 7, dtype=torch.bool)
    hidden_keys[1, ..., 4:] = True
    inputs = {"context": memory, "context_mask": hidden_keys, "attention_bias": bias}
    expected, _ = layer(hidden, None, **inputs)
    compiled = torch.compile(layer, fullgraph=True, backend="eager", dynamic=False)
    with torch.inference_mode(inference):
        got, _ = compiled(hidden, None, **inputs)
    torch.testing.assert_close(got, expected)
