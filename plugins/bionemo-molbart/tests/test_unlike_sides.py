"""Archives whose encoder and decoder differ, against a second implementation of v1's layers in plain torch."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from test_molmim_latents import batch
from torch import Tensor

from bionemo_core.builtin import load_registry
from bionemo_core.errors import ArtefactError, ConfigError
from bionemo_core.interop.connector import ForeignModel, OurModel
from bionemo_core.interop.foreign_config import ForeignConfig
from bionemo_core.interop.nemo import read_nemo, write_nemo
from bionemo_core.models.load import open_model
from bionemo_core.models.locate import complete_choice
from bionemo_core.models.named_weights import network_tensors
from bionemo_core.protocols import BuildContext
from bionemo_molbart.connector import MegaMolBartNemo, MolMimNemo
from bionemo_molbart.tokenizer import molbart_tokenizer

CONNECTORS = {"megamolbart": MegaMolBartNemo, "molmim": MolMimNemo}
SIZES = {"num_layers": 1, "hidden_size": 32, "num_attention_heads": 4, "ffn_hidden_size": 48, "seq_length": 64}
UNLIKE: dict[str, dict[str, Any]] = {
    "alike": {},
    "layers": {"num_decoder_layers": 3},
    "epsilon": {"decoder_layernorm_epsilon": 0.1},
    "erf gelu": {"decoder_bias_activation_fusion": False},
    "swiglu": {"decoder_activation": "swiglu", "decoder_bias_activation_fusion": False},
    "encoder geglu": {"activation": "geglu", "bias_activation_fusion": False, "decoder_activation": "gelu"},
    "fused geglu": {"activation": "geglu_tanh", "decoder_activation": "reglu", "decoder_bias_activation_fusion": False},
    "sizes": {"decoder_num_attention_heads": 2, "decoder_ffn_hidden_size": 40, "decoder_hidden_dropout": 0.3},
}
STACKS = "enc_dec_model.enc_dec_model"


def written(name: str, folder: Path, **unlike: Any) -> Path:
    """An archive of a small model with random weights, biases and gains."""
    registry, tokenizer = load_registry(), molbart_tokenizer()
    choice = complete_choice("model", name, {**SIZES, **unlike}, "bionemo-molbart", registry)
    network = registry.build(choice, tokenizer=tokenizer, context=BuildContext()).network
    torch.manual_seed(3)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    path = folder / f"{name}.nemo"
    write_nemo(path, CONNECTORS[name]().write(OurModel(name, choice.params, tokenizer, network_tensors(network))))
    return path


class Side:
    """The layers of one side as NeMo computes them: pre-norm, fused rows head by head, an MLP by its activation."""

    def __init__(self, source: ForeignModel, side: str) -> None:
        self.config, self.tensors = source.config.values[side], source.tensors
        self.name = f"{STACKS}.{side}.model"

    def linear(self, name: str, x: Tensor) -> Tensor:
        return F.linear(x, self.tensors[f"{name}.weight"], self.tensors[f"{name}.bias"])

    def norm(self, name: str, x: Tensor) -> Tensor:
        weight, bias = self.tensors[f"{name}.weight"], self.tensors[f"{name}.bias"]
        return F.layer_norm(x, x.shape[-1:], weight, bias, self.config["layernorm_epsilon"])

    def attention(self, name: str, x: Tensor, memory: Tensor | None, mask: Tensor) -> Tensor:
        heads, (rows, length, width) = self.config["num_attention_heads"], x.shape
        if memory is None:
            q, k, v = self.linear(f"{name}.query_key_value", x).view(rows, length, heads, -1).chunk(3, dim=-1)
        else:
            q = self.linear(f"{name}.query", x).view(rows, length, heads, -1)
            k, v = self.linear(f"{name}.key_value", memory).view(rows, memory.shape[1], heads, -1).chunk(2, dim=-1)
        scores = torch.einsum("bqhd,bkhd->bhqk", q, k) / q.shape[-1] ** 0.5
        weights = scores.masked_fill(~mask, float("-inf")).softmax(-1)
        return self.linear(f"{name}.dense", torch.einsum("bhqk,bkhd->bqhd", weights, v).reshape(rows, length, width))

    def mlp(self, name: str, x: Tensor) -> Tensor:
        fused, inner = self.config["bias_activation_fusion"], self.linear(f"{name}.dense_h_to_4h", x)
        gelu = F.gelu(inner, approximate="tanh" if fused else "none")
        by_name = {"gelu": gelu, "geglu": gelu, "swiglu": F.silu(inner), "reglu": F.relu(inner)}
        inner = by_name[self.config["activation"]]
        if self.config["activation"] != "gelu":
            inner = inner * self.linear(f"{name}.dense_h_to_4h_2", x)
        return self.linear(f"{name}.dense_4h_to_h", inner)

    def __call__(self, x: Tensor, mask: Tensor, memory: Tensor | None = None, seen: Tensor | None = None) -> Tensor:
        for number in range(self.config["num_layers"]):
            layer = f"{self.name}.layers.{number}"
            x = x + self.attention(f"{layer}.self_attention", self.norm(f"{layer}.input_layernorm", x), None, mask)
            after = "post_attention_layernorm"
            if memory is not None:
                x = x + self.attention(f"{layer}.inter_attention", self.norm(f"{layer}.{after}", x), memory, seen)
                after = "post_inter_attention_layernorm"
            x = x + self.mlp(f"{layer}.mlp", self.norm(f"{layer}.{after}", x))
        return self.norm(f"{self.name}.final_layernorm", x)


def embedded(source: ForeignModel, side: str, tokens: Tensor) -> Tensor:
    words, places = (
        source.tensors[f"enc_dec_model.{side}_embedding.{kind}_embeddings.weight"] for kind in ("word", "position")
    )
    return words[tokens] + places[: tokens.shape[1]]


@torch.no_grad()
@pytest.mark.parametrize("unlike", UNLIKE)
@pytest.mark.parametrize("name", CONNECTORS)
def test_unlike_sides_against_plain_torch(name: str, unlike: str, tmp_path: Path) -> None:
    path = written(name, tmp_path, **UNLIKE[unlike])
    opened, source, rows = open_model(str(path), load_registry()), read_nemo(path), batch(packing=False)
    assert opened.report.complete
    network = opened.module.network.eval()
    keys = rows.source.padding_mask[:, None, None, :]
    memory = network.encode(rows.source)
    if name == "megamolbart":
        expected = Side(source, "encoder")(embedded(source, "encoder", rows.source.tokens), keys)
        got = memory.states.transpose(0, 1)
        assert torch.allclose(got[rows.source.padding_mask], expected[rows.source.padding_mask], atol=1e-4)
        states, seen = expected, keys
    else:
        states = memory.states.transpose(0, 1)
        seen = torch.ones(len(states), 1, 1, states.shape[1], dtype=torch.bool)
    length = rows.target.tokens.shape[1]
    causal = torch.ones(length, length, dtype=torch.bool).tril() & rows.target.padding_mask[:, None, None, :]
    hidden = Side(source, "decoder")(embedded(source, "decoder", rows.target.tokens), causal, states, seen)
    logits = F.linear(
        hidden, source.tensors["enc_dec_model.tokens_head.weight"], source.tensors.get("enc_dec_model.tokens_head.bias")
    )
    real = rows.target.padding_mask
    assert torch.allclose(network.decoder_logits(memory, rows.target)[real], logits[real], atol=2e-4)


@pytest.mark.parametrize("unlike", UNLIKE)
@pytest.mark.parametrize("name", CONNECTORS)
def test_unlike_sides_come_back(name: str, unlike: str, tmp_path: Path) -> None:
    path = written(name, tmp_path, **UNLIKE[unlike])
    opened = open_model(str(path), load_registry())
    params = opened.spec.model.params
    asked = {key: value for key, value in UNLIKE[unlike].items() if not key.endswith("_fusion")}
    assert {key: params[key] for key in asked} == asked
    tensors = network_tensors(opened.module.network)
    again = CONNECTORS[name]().write(OurModel(name, params, opened.tokenizer, tensors))
    source = read_nemo(path)
    assert again.config.values["decoder"] == source.config.values["decoder"]
    assert again.config.values["encoder"] == source.config.values["encoder"]
    assert again.tensors.keys() == source.tensors.keys()
    assert all(torch.equal(again.tensors[key], tensor) for key, tensor in source.tensors.items())


@pytest.mark.parametrize(
    ("side", "change", "said"),
    [
        ("decoder", {"hidden_size": 64}, "hidden_size 32 and the decoder 64"),
        ("decoder", {"activation": "fast-geglu"}, "decoder: activation is 'fast-geglu'"),
        ("encoder", {"activation": "squared-relu"}, "encoder: activation is 'squared-relu'"),
        ("decoder", {"normalization": "rmsnorm"}, "decoder: normalization"),
    ],
)
def test_what_ours_does_not_compute_is_refused(side: str, change: dict[str, Any], said: str, tmp_path: Path) -> None:
    source = read_nemo(written("molmim", tmp_path))
    source.config.values[side].update(change)
    with pytest.raises(ArtefactError, match=said):
        MolMimNemo().read(ForeignModel(ForeignConfig(source.config.values, "here"), source.tensors, source.files))


def test_an_activation_that_v1_lacks_does_not_go_out(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="activation is 'relu'"):
        written("megamolbart", tmp_path, decoder_activation="relu")
