"""The family's weights elsewhere: v1 archives of ESM-1nv, Hugging Face folders of ESM-2 and ESM-1b."""

from __future__ import annotations

import json
from typing import Any

from bionemo_core.errors import ConfigError
from bionemo_core.interop.connector import ForeignModel, OurModel, Reading, absent_by_kind, check_pieces
from bionemo_core.interop.foreign_config import ForeignConfig
from bionemo_core.interop.keys import Key, KeyTable, each_layer
from bionemo_core.interop.nemo_models import (
    PROTEIN_PIECES,
    carried_files,
    check_same_mathematics,
    recipe_config,
    sentencepiece_files,
    sentencepiece_pieces,
)
from bionemo_core.interop.stored import Carried
from bionemo_esm.sizes import ESM2_SIZES
from bionemo_esm.tokenizer import ESM1NV_PIECES, ESM2_PIECES

_NEMO_TARGET = "bionemo.model.protein.esm1nv.esm1nv_model.ESM1nvModel"

# The switches of a preset and the names under which Hugging Face has them.
_SWITCHES = {
    "token_dropout": "token_dropout",
    "hidden_dropout": "hidden_dropout_prob",
    "attention_dropout": "attention_probs_dropout_prob",
    "layernorm_epsilon": "layer_norm_eps",
    "init_method_std": "initializer_range",
}
_POSITION_OFFSET = 2
"""Rows before the first position in ESM's tables; Hugging Face counts them for rotary positions too."""

_HALF_PRECISION = (
    "rotary angles are computed from float32 frequencies; transformers rounds them (inv_freq) to the model's 16 bit, "
    "so its hidden states differ from these by about 2e-3"
)


def nemo_keys(num_layers: int) -> KeyTable:
    """Names in a v1 archive; fused rows lie as ours do, head by head `[q | k | v]`."""
    theirs = "model.language_model"
    return KeyTable(
        [
            Key(
                "embedding.word_embeddings",
                f"{theirs}.embedding.word_embeddings",
                ("weight",),
                also=("model.word_embeddings",),  # a pipeline's last stage keeps a copy for its head
            ),
            Key("embedding.position_embeddings", f"{theirs}.embedding.position_embeddings", ("weight",)),
            *each_layer(
                num_layers,
                _layer("self_attention.linear_qkv", "self_attention.query_key_value"),
                _layer("self_attention.linear_proj", "self_attention.dense"),
                _layer("input_layernorm", "input_layernorm"),
                _layer("pre_mlp_layernorm", "post_attention_layernorm"),
                _layer("mlp.linear_fc1", "mlp.dense_h_to_4h"),
                _layer("mlp.linear_fc2", "mlp.dense_4h_to_h"),
            ),
            Key("encoder.final_layernorm", f"{theirs}.encoder.final_layernorm"),
            Key("head.dense", "model.lm_head.dense"),
            Key("head.layer_norm", "model.lm_head.layernorm"),
            Key("head.output", "model.lm_head", ("bias",)),
        ]
    )


def _layer(ours: str, theirs: str) -> Key:
    return Key(f"encoder.layers.{{i}}.{ours}", f"model.language_model.encoder.layers.{{i}}.{theirs}")


def huggingface_keys(
    num_layers: int,
    heads: int,
    *,
    absolute: bool,
    norm: bool | None = None,
    body: str = "esm.",
    head: bool = True,
    tied: bool = True,
) -> KeyTable:
    """Names in a Hugging Face `EsmForMaskedLM`; an `EsmModel` has an empty `body`, and only that one has the `head`.

    `absolute` is for learned positions; `norm` for a norm on the embeddings, by default with learned positions only;
    `tied` for a head whose weight is the word embeddings.
    """
    theirs, layer = f"{body}encoder", f"{body}encoder.layer.{{i}}"
    qkv = tuple(f"{layer}.attention.self.{part}" for part in ("query", "key", "value"))
    ours = "encoder.layers.{i}"
    keys = [
        Key(
            "embedding.word_embeddings",
            f"{body}embeddings.word_embeddings",
            ("weight",),
            vocabulary=True,
            also=("lm_head.decoder",) if tied else (),
        ),
        *each_layer(
            num_layers,
            Key(f"{ours}.self_attention.linear_qkv", qkv, heads=heads),
            Key(f"{ours}.self_attention.linear_proj", f"{layer}.attention.output.dense"),
            Key(f"{ours}.input_layernorm", f"{layer}.attention.LayerNorm"),
            Key(f"{ours}.pre_mlp_layernorm", f"{layer}.LayerNorm"),
            Key(f"{ours}.mlp.linear_fc1", f"{layer}.intermediate.dense"),
            Key(f"{ours}.mlp.linear_fc2", f"{layer}.output.dense"),
        ),
        Key("encoder.final_layernorm", f"{theirs}.emb_layer_norm_after"),
    ]
    if head:
        keys += _head_keys(tied)
    if absolute:
        keys.append(Key("embedding.position_embeddings", f"{body}embeddings.position_embeddings", ("weight",)))
    if absolute if norm is None else norm:
        keys.append(Key("embedding.layer_norm", f"{body}embeddings.layer_norm"))
    # Contact heads, poolers and classifiers are no part of the language model; the rest is computed.
    computed = [f"{body}embeddings.position_ids", "*.rotary_embeddings.inv_freq"]
    unused = [] if absolute else [f"{body}embeddings.position_embeddings.weight"]
    return KeyTable(keys, ignored=(*computed, *unused, f"{body}contact_head.*", f"{body}pooler.*", "classifier.*"))


def _head_keys(tied: bool) -> list[Key]:
    keys = [
        Key("head.dense", "lm_head.dense"),
        Key("head.layer_norm", "lm_head.layer_norm"),
        Key("head.output", "lm_head", ("bias",), vocabulary=True),
    ]
    return keys if tied else [*keys, Key("head.output", "lm_head.decoder", ("weight",), vocabulary=True)]


class Esm1nvNemo:
    """ESM-1nv to and from v1's `.nemo`."""

    format = "nemo"
    models = frozenset({"esm1nv", "esm1nv_tiny"})

    def recognises(self, config: ForeignConfig) -> bool:
        """Return whether the archive states that it is an ESM-1nv."""
        return str(config.values.get("target", "")).rpartition(".")[2] == "ESM1nvModel"

    def read(self, source: ForeignModel) -> Reading:
        """Return the model that the archive holds.

        Raises:
            ArtefactError: it computes something else, or has another vocabulary.
        """
        config = source.config
        check_same_mathematics(config)
        config.must_be("bert_binary_head", False)
        config.must_be("activation", "gelu", None)
        check_pieces(sentencepiece_pieces(source), ESM1NV_PIECES, source.where)
        params: dict[str, Any] = {
            "num_layers": config.size("num_layers"),
            "hidden_size": config.size("hidden_size"),
            "num_attention_heads": config.size("num_attention_heads"),
            "ffn_hidden_size": config.size("ffn_hidden_size", 4 * config.size("hidden_size")),
            "seq_length": config.size("max_position_embeddings"),
            "bias_gelu_fusion": config.flag("bias_gelu_fusion", True),
            "hidden_dropout": config.number("hidden_dropout", 0.1),
            "attention_dropout": config.number("attention_dropout", 0.1),
            "layernorm_epsilon": config.number("layernorm_epsilon", 1e-5),
            "init_method_std": config.number("init_method_std", 0.02),
        }
        found = nemo_keys(params["num_layers"]).to_ours(source.tensors, source.where)
        carried = carried_files(source)
        return Reading("esm1nv", params, "esm1nv", found.tensors, {}, found.unexpected, found.notes(), carried)

    def write(self, model: OurModel) -> ForeignModel:
        """Return the content of the archive.

        Raises:
            ConfigError: its activation or vocabulary is one that v1's ESM-1nv has not.
        """
        params, where = model.params, f"model {model.name} as .nemo"
        if params["activation"] != "gelu" or tuple(model.tokenizer.pieces) != ESM1NV_PIECES:
            raise ConfigError(f"{where}: expected activation gelu and the tokenizer esm1nv.")
        files, section = sentencepiece_files(PROTEIN_PIECES, model.tokenizer.pad_id, model.carried)
        config: dict[str, Any] = {
            **recipe_config(params),
            "encoder_seq_length": params["seq_length"],
            "bias_gelu_fusion": params["bias_gelu_fusion"],
            "bert_binary_head": False,
            "tokenizer": section,
            "data": {
                **{key: params[key] for key in params if key.endswith("_percent")},
                "max_seq_length": params["seq_length"],
            },
            "target": _NEMO_TARGET,
        }
        tensors = nemo_keys(params["num_layers"]).to_theirs(model.tensors, model.tokenizer.vocab_size)
        return ForeignModel(ForeignConfig(config, where), tensors, files)


class EsmHuggingFace:
    """ESM-2 and ESM-1b to and from Hugging Face's `EsmForMaskedLM`; from `EsmModel` and classifiers, the encoder."""

    format = "huggingface"
    models = frozenset({*ESM2_SIZES, "esm1b"})

    def recognises(self, config: ForeignConfig) -> bool:
        """Return whether the folder states that it is an ESM."""
        return config.values.get("model_type") == "esm"

    def read(self, source: ForeignModel) -> Reading:
        """Return the model that the folder holds.

        Raises:
            ArtefactError: it computes something else, or has another vocabulary.
        """
        config = source.config
        config.must_be("is_folding_model", False, None)
        config.must_be("hidden_act", "gelu", default="gelu")
        config.must_be("vocab_size", len(ESM2_PIECES))
        config.must_be("mask_token_id", ESM2_PIECES.index("<mask>"))
        config.must_be("pad_token_id", ESM2_PIECES.index("<pad>"))
        config.must_be("position_embedding_type", "rotary", "absolute", default="absolute")
        absolute = config.text("position_embedding_type", "absolute") == "absolute"
        if "vocab.txt" in source.files:
            check_pieces(_lines(source.files["vocab.txt"]), ESM2_PIECES, source.where)
        params = _params_of(config)
        absent = absent_by_kind(source, "EsmForMaskedLM", "lm_head.", ("head.",), "language-model head")
        table = huggingface_keys(
            params["num_layers"],
            params["num_attention_heads"],
            absolute=absolute,
            norm=params["embedding_norm"],
            tied=params["tied_head"],
            body="esm." if any(name.startswith("esm.") for name in source.tensors) else "",
            head=not absent.prefixes,
        )
        found = table.to_ours(source.tensors, source.where)
        kept = {name: source.tensors[name] for name in found.left_out}
        return Reading(
            model="esm1b" if absolute else _esm2_name(params),
            params=params,
            tokenizer="esm2",
            tensors=found.tensors,
            unexpected=found.unexpected,
            notes=found.notes(),
            absent=absent,
            half_precision_notes=() if absolute else (_HALF_PRECISION,),
            carried=Carried(self.format, kept, source.files),
        )

    def write(self, model: OurModel) -> ForeignModel:
        """Return the content of the folder.

        Raises:
            ConfigError: its activation is one that Hugging Face's has not.
        """
        params, where = model.params, f"model {model.name} as a Hugging Face folder"
        if params["activation"] != "gelu" or tuple(model.tokenizer.pieces) != ESM2_PIECES:
            raise ConfigError(f"{where}: expected activation gelu and the tokenizer esm2.")
        absolute = model.name == "esm1b"
        config: dict[str, Any] = {
            "architectures": ["EsmForMaskedLM"],
            "model_type": "esm",
            "num_hidden_layers": params["num_layers"],
            "hidden_size": params["hidden_size"],
            "num_attention_heads": params["num_attention_heads"],
            "intermediate_size": params["ffn_hidden_size"] or 4 * params["hidden_size"],
            "max_position_embeddings": params["seq_length"] + _POSITION_OFFSET,
            "position_embedding_type": "absolute" if absolute else "rotary",
            "emb_layer_norm_before": params["embedding_norm"],
            "hidden_act": "gelu",
            "is_folding_model": False,
            "vocab_size": len(ESM2_PIECES),
            "mask_token_id": model.tokenizer.mask_id,
            "pad_token_id": model.tokenizer.pad_id,
            "tie_word_embeddings": params["tied_head"],
            "dtype": "float32",
            **{theirs: params[ours] for ours, theirs in _SWITCHES.items()},
        }
        table = huggingface_keys(
            params["num_layers"],
            params["num_attention_heads"],
            absolute=absolute,
            norm=params["embedding_norm"],
            tied=params["tied_head"],
        )
        tensors = table.to_theirs(model.tensors, model.tokenizer.vocab_size) | dict(model.carried.tensors)
        files = dict(model.carried.files) or {
            "vocab.txt": "\n".join(ESM2_PIECES).encode(),
            "tokenizer_config.json": json.dumps({"tokenizer_class": "EsmTokenizer"}).encode(),
        }
        return ForeignModel(ForeignConfig(config, where), tensors, files)


def _params_of(config: ForeignConfig) -> dict[str, Any]:
    """Return the parameters that a folder of ESM-2 or ESM-1b states."""
    return {
        "num_layers": config.size("num_hidden_layers"),
        "hidden_size": config.size("hidden_size"),
        "num_attention_heads": config.size("num_attention_heads"),
        "ffn_hidden_size": config.size("intermediate_size"),
        "seq_length": max(1, config.size("max_position_embeddings", 1026) - _POSITION_OFFSET),
        "embedding_norm": config.flag("emb_layer_norm_before", False),
        "tied_head": config.flag("tie_word_embeddings", True),
        "token_dropout": config.flag("token_dropout", False),
        "hidden_dropout": config.number("hidden_dropout_prob", 0.1),
        "attention_dropout": config.number("attention_probs_dropout_prob", 0.1),
        "layernorm_epsilon": config.number("layer_norm_eps", 1e-12),
        "init_method_std": config.number("initializer_range", 0.02),
    }


def _esm2_name(params: dict[str, Any]) -> str:
    sizes = (params["num_layers"], params["hidden_size"], params["num_attention_heads"])
    return next((name for name, known in ESM2_SIZES.items() if known == sizes), "esm2_8m")


def _lines(content: bytes) -> list[str]:
    return content.decode("utf-8", errors="replace").split()
