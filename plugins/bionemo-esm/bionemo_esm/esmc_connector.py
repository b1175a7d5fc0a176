"""ESM C's weights elsewhere: Hugging Face folders."""

from __future__ import annotations

import json
from typing import Any

from bionemo_core.errors import ArtefactError, ConfigError
from bionemo_core.interop.connector import ForeignModel, OurModel, Reading, absent_by_kind
from bionemo_core.interop.foreign_config import ForeignConfig
from bionemo_core.interop.keys import Key, KeyTable, each_layer
from bionemo_core.interop.stored import Carried
from bionemo_esm.sizes import ESMC_SIZES, EsmcShape
from bionemo_esm.tokenizer import ESMC_PIECES

_ROPE = {"rope_type": "default", "rope_theta": 10000.0}
_WEIGHT = ("weight",)


def esmc_keys(num_layers: int, heads: int, *, body: str = "esmc.", head: bool = True) -> KeyTable:
    """Names in a Hugging Face `EsmcForMaskedLM`; an `EsmcModel` has an empty `body` and no `head`."""
    ours, theirs = "encoder.layers.{i}", f"{body}layers.{{i}}"
    qkv = tuple(f"{theirs}.self_attn.{part}_proj" for part in "qkv")
    gated = (f"{theirs}.mlp.gate_proj", f"{theirs}.mlp.up_proj")
    keys = [
        Key("embedding.word_embeddings", f"{body}embed_tokens", _WEIGHT, vocabulary=True),
        *each_layer(
            num_layers,
            Key(f"{ours}.self_attention.linear_qkv", qkv, _WEIGHT, heads=heads),
            Key(f"{ours}.self_attention.q_layernorm", f"{theirs}.self_attn.q_norm", _WEIGHT),
            Key(f"{ours}.self_attention.k_layernorm", f"{theirs}.self_attn.k_norm", _WEIGHT),
            Key(f"{ours}.self_attention.linear_proj", f"{theirs}.self_attn.o_proj", _WEIGHT),
            Key(f"{ours}.input_layernorm", f"{theirs}.input_layernorm"),
            Key(f"{ours}.pre_mlp_layernorm", f"{theirs}.post_attention_layernorm"),
            Key(f"{ours}.mlp.linear_fc1", gated, _WEIGHT),
            Key(f"{ours}.mlp.linear_fc2", f"{theirs}.mlp.down_proj", _WEIGHT),
        ),
        Key("encoder.final_layernorm", f"{body}norm", _WEIGHT),
    ]
    if head:
        keys.append(Key("head.dense", "lm_head.dense"))
        keys.append(Key("head.layer_norm", "lm_head.layer_norm"))
        keys.append(Key("head.output", "lm_head.decoder", vocabulary=True))
    return KeyTable(keys, ignored=("*.inv_freq", "*.original_inv_freq", "classifier.*", "score.*"))


class EsmcHuggingFace:
    """ESM C to and from Hugging Face's `EsmcForMaskedLM`; from `EsmcModel` and classifiers, the encoder."""

    format = "huggingface"
    models = frozenset({*ESMC_SIZES, "esmc_tiny"})

    def recognises(self, config: ForeignConfig) -> bool:
        """Return whether the folder states that it is an ESM C."""
        return config.values.get("model_type") == "esmc"

    def read(self, source: ForeignModel) -> Reading:
        """Return the model that the folder holds.

        Raises:
            ArtefactError: it computes something else, or has another vocabulary.
        """
        config = source.config
        params = _params_of(config)
        absent = absent_by_kind(source, "EsmcForMaskedLM", "lm_head.", ("head.",), "language-model head")
        table = esmc_keys(
            params["num_layers"],
            params["num_attention_heads"],
            body="esmc." if any(name.startswith("esmc.") for name in source.tensors) else "",
            head=not absent.prefixes,
        )
        found = table.to_ours(source.tensors, source.where)
        sizes = (params["num_layers"], params["hidden_size"], params["num_attention_heads"])
        return Reading(
            model=next((name for name, known in ESMC_SIZES.items() if known == sizes), "esmc_tiny"),
            params=params,
            tokenizer="esmc",
            tensors=found.tensors,
            unexpected=found.unexpected,
            notes=found.notes(),
            absent=absent,
            carried=Carried(self.format, {name: source.tensors[name] for name in found.left_out}, source.files),
        )

    def write(self, model: OurModel) -> ForeignModel:
        """Return the content of the folder.

        Raises:
            ConfigError: its vocabulary, or the epsilon of its norms, is one that Hugging Face's has not.
        """
        params, where = model.params, f"model {model.name} as a Hugging Face folder"
        if tuple(model.tokenizer.pieces) != ESMC_PIECES or params["layernorm_epsilon"] != 1e-5:
            raise ConfigError(f"{where}: expected the tokenizer esmc and layernorm_epsilon 1e-5.")
        shape = EsmcShape(**{key: params[key] for key in ("hidden_size", "ffn_hidden_size")})
        config: dict[str, Any] = {
            "architectures": ["EsmcForMaskedLM"],
            "model_type": "esmc",
            "num_hidden_layers": params["num_layers"],
            "hidden_size": params["hidden_size"],
            "num_attention_heads": params["num_attention_heads"],
            "intermediate_size": shape.mlp_width,
            "max_position_embeddings": params["seq_length"],
            "hidden_act": "silu",
            "attention_dropout": params["attention_dropout"],
            "initializer_range": params["init_method_std"],
            "attention_bias": False,
            "mlp_bias": False,
            "rope_parameters": _ROPE,
            "vocab_size": len(ESMC_PIECES),
            "mask_token_id": model.tokenizer.mask_id,
            "pad_token_id": model.tokenizer.pad_id,
            "tie_word_embeddings": False,
            "dtype": "float32",
        }
        table = esmc_keys(params["num_layers"], params["num_attention_heads"])
        tensors = table.to_theirs(model.tensors, model.tokenizer.vocab_size) | dict(model.carried.tensors)
        files = dict(model.carried.files) or {
            "tokenizer_config.json": json.dumps({"tokenizer_class": "EsmcTokenizer"}).encode(),
        }
        return ForeignModel(ForeignConfig(config, where), tensors, files)


def _params_of(config: ForeignConfig) -> dict[str, Any]:
    """Return the parameters that a configuration says.

    Raises:
        ArtefactError: it says something that ESM C does not compute.
    """
    config.must_be("hidden_act", "silu", default="silu")
    config.must_be("attention_bias", False, None)
    config.must_be("mlp_bias", False, None)
    config.must_be("tie_word_embeddings", False, None)
    config.must_be("vocab_size", len(ESMC_PIECES), default=len(ESMC_PIECES))
    config.must_be("mask_token_id", ESMC_PIECES.index("<mask>"), None)
    config.must_be("pad_token_id", ESMC_PIECES.index("<pad>"), None)
    heads, hidden = config.size("num_attention_heads"), config.size("hidden_size")
    config.must_be("num_key_value_heads", heads, None)
    config.must_be("head_dim", hidden // heads, None)
    rope = config.values.get("rope_parameters") or _ROPE
    if rope != _ROPE:
        raise ArtefactError(f"{config.where}: rope_parameters is {str(rope)[:80]}, expected {_ROPE}.")
    return {
        "num_layers": config.size("num_hidden_layers"),
        "hidden_size": hidden,
        "num_attention_heads": heads,
        "ffn_hidden_size": config.size("intermediate_size"),
        "seq_length": config.size("max_position_embeddings", 2048),
        "attention_dropout": config.number("attention_dropout", 0.0),
        "init_method_std": config.number("initializer_range", 0.02),
    }
