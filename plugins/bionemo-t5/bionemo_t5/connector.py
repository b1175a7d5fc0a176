"""The family's weights elsewhere: v1 archives of ProtT5nv, Hugging Face folders of T5 and ProtT5."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import torch

from bionemo_core.errors import ArtefactError, ConfigError
from bionemo_core.interop.connector import ForeignModel, OurModel, Reading, absent_by_kind, check_pieces
from bionemo_core.interop.foreign_config import ForeignConfig
from bionemo_core.interop.keys import Key, KeyTable, each_layer
from bionemo_core.interop.nemo_models import (
    PROTEIN_PIECES,
    carried_files,
    sentencepiece_files,
    sentencepiece_pieces,
)
from bionemo_core.interop.nemo_seq2seq import (
    DECODER_KEYS,
    archive_config,
    decoder_keys,
    decoder_params,
    embedding_keys,
    encoder_keys,
    head_keys,
    position_rows,
    read_params,
    stack_options,
)
from bionemo_core.interop.sentencepiece_model import Kind, ModelType, VocabularyPiece, read_pieces, write_model
from bionemo_core.interop.stored import Carried
from bionemo_t5.tokenizer import NUM_PROTT5_SENTINELS, PROTT5_PIECES, PROTT5NV_PIECES, prott5_tokenizer

_NEMO_TARGET = "bionemo.model.protein.prott5nv.prott5_model.ProtT5nvModel"
_SENTENCEPIECE = "spiece.model"
_WORD = "\N{LOWER ONE EIGHTH BLOCK}"
"""How SentencePiece writes the space before a word; in ProtT5 each residue is one."""

_WHOLE = "T5ForConditionalGeneration"
_DECODER = ("decoder.", "decoder_embedding.", "head.")
"""What a folder with an encoder only does not have, by our names."""

_ACTIVATIONS = {"relu": "relu", "gated-gelu": "geglu_tanh"}
"""Hugging Face's `feed_forward_proj` and our activation."""


def nemo_keys(
    num_layers: int,
    *,
    tied_head: bool,
    head_bias: bool,
    share_token_embeddings: bool = True,
    num_decoder_layers: int | None = None,
    gated: tuple[bool, bool] = (False, False),
) -> KeyTable:
    """Names in a v1 archive of ProtT5nv; `gated` says whether the MLPs of encoder and decoder are."""
    return KeyTable(
        [
            *embedding_keys(share_token_embeddings=share_token_embeddings),
            *encoder_keys(num_layers, gated=gated[0]),
            *decoder_keys(num_decoder_layers or num_layers, gated=gated[1]),
            *head_keys(tied=tied_head, bias=head_bias),
        ]
    )


def huggingface_keys(
    num_layers: int,
    heads: int,
    *,
    gated: bool,
    tied_head: bool,
    num_decoder_layers: int | None = None,
    body: str = "",
    decoder: bool = True,
) -> KeyTable:
    """Names in a Hugging Face `T5ForConditionalGeneration`.

    A `T5EncoderModel` has no `decoder`, and a classifier has everything but its head under the `body` "transformer.".
    """
    sides = {"encoder": num_layers} | ({"decoder": num_decoder_layers or num_layers} if decoder else {})
    copies = (*(f"{body}{side}.embed_tokens" for side in sides), *(("lm_head",) if tied_head else ()))
    keys = [
        Key("encoder_embedding.word_embeddings", f"{body}shared", ("weight",), vocabulary=True, also=copies),
        *(key for side, layers in sides.items() for key in _side_keys(side, layers, heads, gated, body)),
    ]
    if not tied_head:
        keys.append(Key("head.output", "lm_head", ("weight",), vocabulary=True))
    # The first is written by early versions and never used; classifiers are no part of the language model.
    unused = f"{body}decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"
    return KeyTable(keys, ignored=(unused, "classifier.*", "classification_head.*"))


def _side_keys(side: str, num_layers: int, heads: int, gated: bool, body: str) -> list[Key]:
    ours, theirs = f"{side}.block.layers.{{i}}", f"{body}{side}.block.{{i}}.layer"
    last = 2 if side == "decoder" else 1
    inner = f"{theirs}.{last}.DenseReluDense"

    def attention(name: str, parts: str) -> tuple[str, ...]:
        return tuple(f"{theirs}.{name}.{part}" for part in parts)

    def key(one: str, other: str | tuple[str, ...], **options: Any) -> Key:
        return Key(f"{ours}.{one}", other, ("weight",), **options)

    keys = [
        key("input_layernorm", f"{theirs}.0.layer_norm"),
        key("self_attention.linear_qkv", attention("0.SelfAttention", "qkv"), heads=heads),
        key("self_attention.linear_proj", f"{theirs}.0.SelfAttention.o"),
        key("pre_mlp_layernorm", f"{theirs}.{last}.layer_norm"),
        key("mlp.linear_fc1", (f"{inner}.wi_0", f"{inner}.wi_1") if gated else f"{inner}.wi"),
        key("mlp.linear_fc2", f"{inner}.wo"),
    ]
    if side == "decoder":
        keys += [
            key("pre_cross_attn_layernorm", f"{theirs}.1.layer_norm"),
            key("cross_attention.linear_q", f"{theirs}.1.EncDecAttention.q"),
            key("cross_attention.linear_kv", attention("1.EncDecAttention", "kv"), heads=heads),
            key("cross_attention.linear_proj", f"{theirs}.1.EncDecAttention.o"),
        ]
    relative = f"{body}{side}.block.0.layer.0.SelfAttention.relative_attention_bias"
    return [
        *each_layer(num_layers, *keys),
        Key(f"{side}.positions.relative", relative, ("weight",)),
        Key(f"{side}.block.final_layernorm", f"{body}{side}.final_layer_norm", ("weight",)),
    ]


class ProtT5nvNemo:
    """ProtT5nv to and from v1's `.nemo`; a T5 of another vocabulary comes in to seed a model."""

    format = "nemo"
    models = frozenset({"prott5nv", "prott5nv_tiny"})

    def recognises(self, config: ForeignConfig) -> bool:
        """Return whether the archive states that it is a ProtT5nv, or NeMo's T5, which has the same structure."""
        return str(config.values.get("target", "")).rpartition(".")[2] in ("ProtT5nvModel", "MegatronT5Model")

    def read(self, source: ForeignModel) -> Reading:
        """Return the model that the archive holds.

        Raises:
            ArtefactError: it computes something else, or says that it is ProtT5nv and has another vocabulary.
        """
        params = read_params(source, "transformer")
        params |= {"seq_length": position_rows(source, "encoder"), "seq_length_dec": position_rows(source, "decoder")}
        data = source.config.section("data")
        params |= {"masked_lm_prob": data.number("masked_lm_prob")} if data.has("masked_lm_prob") else {}
        found = self._keys(params).to_ours(source.tensors, source.where)
        tokenizer = source.config.section("tokenizer")
        if str(source.config.values["target"]).endswith("ProtT5nvModel"):
            check_pieces(sentencepiece_pieces(source), PROTT5NV_PIECES, source.where)
            sentinels = {"num_sentinel_tokens": tokenizer.size("num_sentinel_tokens", 96)}
            name, vocab_size = "prott5nv", None
        else:
            rows = int(source.tensors["enc_dec_model.encoder_embedding.word_embeddings.weight"].shape[0])
            name, sentinels, vocab_size = None, {}, rows
        return Reading(
            model="prott5nv",
            params=params,
            tokenizer=name,
            tensors=found.tensors,
            tokenizer_params=sentinels,
            unexpected=found.unexpected,
            notes=found.notes(),
            carried=carried_files(source),
            vocab_size=vocab_size,
        )

    def write(self, model: OurModel) -> ForeignModel:
        """Return the content of the archive.

        Raises:
            ConfigError: it has sizes, switches or a vocabulary that v1's archives have not.
        """
        params, where = model.params, f"model {model.name} as .nemo"
        plain = len(PROTT5NV_PIECES)
        if tuple(model.tokenizer.pieces[:plain]) != PROTT5NV_PIECES or params["kv_channels"]:
            raise ConfigError(f"{where}: expected the tokenizer prott5nv, and no kv_channels of its own.")
        config = archive_config(params, "transformer", where)
        files, section = sentencepiece_files(PROTEIN_PIECES, model.tokenizer.pad_id, model.carried)
        config |= {
            "tokenizer": section | {"num_sentinel_tokens": model.tokenizer.vocab_size - plain},
            "data": {
                "seq_length": params["seq_length"],
                "seq_length_dec": params["seq_length_dec"],
                "masked_lm_prob": params["masked_lm_prob"],
                "dataset_type": "t5",
            },
            "target": _NEMO_TARGET,
        }
        tensors = self._keys(params).to_theirs(model.tensors, model.tokenizer.vocab_size)
        return ForeignModel(ForeignConfig(config, where), tensors, files)

    @staticmethod
    def _keys(params: Mapping[str, Any]) -> KeyTable:
        return nemo_keys(params["num_layers"], **stack_options(params))


class T5HuggingFace:
    """T5 and ProtT5 to and from Hugging Face's `T5ForConditionalGeneration`; from `T5EncoderModel`, the encoder."""

    format = "huggingface"
    models = frozenset({"prott5_xl"})

    def recognises(self, config: ForeignConfig) -> bool:
        """Return whether the folder states that it is a T5."""
        return config.values.get("model_type") == "t5"

    def read(self, source: ForeignModel) -> Reading:
        """Return the model that the folder holds; its tokenizer is ours if its pieces are those of ProtT5.

        Raises:
            ArtefactError: it computes something that ours does not.
        """
        config = source.config
        config.must_be("feed_forward_proj", *_ACTIVATIONS, default="relu")
        layers = config.size("num_layers")
        body = "transformer." if any(name.startswith("transformer.") for name in source.tensors) else ""
        absent = absent_by_kind(source, _WHOLE, f"{body}decoder.block.", _DECODER, "decoder")
        decoder = not absent.prefixes
        decoder_layers = config.size("num_decoder_layers", layers) if decoder else layers
        tied = not decoder or _is_tied(source, body)
        if not tied:
            absent = absent_by_kind(source, _WHOLE, "lm_head.", ("head.",), "language-model head")
        activation = _ACTIVATIONS[config.text("feed_forward_proj", "relu")]
        params: dict[str, Any] = {
            "num_layers": layers,
            "num_decoder_layers": None if decoder_layers == layers else decoder_layers,
            "hidden_size": config.size("d_model"),
            "num_attention_heads": config.size("num_heads"),
            "ffn_hidden_size": config.size("d_ff"),
            "kv_channels": config.size("d_kv"),
            "relative_attention_num_buckets": config.size("relative_attention_num_buckets", 32),
            "relative_attention_max_distance": config.size("relative_attention_max_distance", 128),
            "activation": activation,
            "hidden_dropout": config.number("dropout_rate", 0.1),
            "attention_dropout": config.number("dropout_rate", 0.1),
            "layernorm_epsilon": config.number("layer_norm_epsilon", 1e-6),
            "share_decoder_tokens_head_embeddings": tied,
        }
        found = self._keys(params, body, decoder).to_ours(source.tensors, source.where)
        rows = config.size("vocab_size")
        ours = _is_prott5(source, rows)
        return Reading(
            model="prott5_xl",
            params=params,
            tokenizer="prott5" if ours else None,
            tensors=found.tensors,
            unexpected=found.unexpected,
            notes=found.notes(),
            absent=absent,
            carried=Carried(self.format, files=source.files),
            vocab_size=None if ours else rows,
        )

    def write(self, model: OurModel) -> ForeignModel:
        """Return the content of the folder.

        Raises:
            ConfigError: its activation or vocabulary is one that Hugging Face's has not.
        """
        params, where = model.params, f"model {model.name} as a Hugging Face folder"
        words = {ours: theirs for theirs, ours in _ACTIVATIONS.items()}
        _check_alike(params, where)
        if params["activation"] not in words or params["hidden_dropout"] != params["attention_dropout"]:
            raise ConfigError(f"{where}: expected activation {' or '.join(words)} and one dropout for all.")
        tokenizer = model.tokenizer
        config: dict[str, Any] = {
            "architectures": [_WHOLE],
            "model_type": "t5",
            "is_encoder_decoder": True,
            "num_layers": params["num_layers"],
            "num_decoder_layers": params["num_decoder_layers"] or params["num_layers"],
            "d_model": params["hidden_size"],
            "num_heads": params["num_attention_heads"],
            "d_ff": params["ffn_hidden_size"],
            "d_kv": params["kv_channels"] or params["hidden_size"] // params["num_attention_heads"],
            "feed_forward_proj": words[params["activation"]],
            "relative_attention_num_buckets": params["relative_attention_num_buckets"],
            "relative_attention_max_distance": params["relative_attention_max_distance"],
            "dropout_rate": params["hidden_dropout"],
            "layer_norm_epsilon": params["layernorm_epsilon"],
            "tie_word_embeddings": params["share_decoder_tokens_head_embeddings"],
            "scale_decoder_outputs": params["share_decoder_tokens_head_embeddings"],
            "vocab_size": tokenizer.vocab_size,
            "pad_token_id": tokenizer.pad_id,
            "eos_token_id": tokenizer.eos_id,
            "decoder_start_token_id": tokenizer.bos_id,
            "dtype": "float32",
        }
        tensors = self._keys(params).to_theirs(model.tensors, tokenizer.vocab_size)
        files = dict(model.carried.files)
        if not files and tuple(tokenizer.pieces) == tuple(prott5_tokenizer().pieces):
            settings = {"tokenizer_class": "T5Tokenizer", "extra_ids": NUM_PROTT5_SENTINELS}
            model_file = write_model(_words(), tokenizer.pad_id, ModelType.UNIGRAM)
            files = {_SENTENCEPIECE: model_file, "tokenizer_config.json": json.dumps(settings).encode()}
        return ForeignModel(ForeignConfig(config, where), tensors, files)

    @staticmethod
    def _keys(params: Mapping[str, Any], body: str = "", decoder: bool = True) -> KeyTable:
        return huggingface_keys(
            params["num_layers"],
            params["num_attention_heads"],
            gated=params["activation"] != "relu",
            tied_head=params["share_decoder_tokens_head_embeddings"],
            num_decoder_layers=params["num_decoder_layers"],
            body=body,
            decoder=decoder,
        )


def _check_alike(params: Mapping[str, Any], where: str) -> None:
    """Check that encoder and decoder differ in the number of their layers at most.

    Raises:
        ConfigError: they differ in something else, which Hugging Face's T5 cannot.
    """
    decoder = decoder_params(params)
    sized = [key for key in DECODER_KEYS if key in params and key != "num_layers"]
    if differing := [DECODER_KEYS[key] for key in sized if decoder[key] != params[key]]:
        raise ConfigError(f"{where}: the format has no place for {', '.join(differing)}; both sides must be alike.")


def _is_tied(source: ForeignModel, body: str) -> bool:
    """Whether the head is the word table; the tensors say it, since configurations say so of a head of its own too.

    Raises:
        ArtefactError: a tied head's states are not scaled, or those of a head of its own are.
    """
    config, head = source.config, source.tensors.get("lm_head.weight")
    tied = head is None or torch.equal(head, source.tensors.get(f"{body}shared.weight", head))
    scaled = config.flag("scale_decoder_outputs", config.flag("tie_word_embeddings", True))
    if head is None and config.values.get("architectures") not in ([_WHOLE], None):
        return scaled  # of a class without a head
    if scaled != tied:
        raise ArtefactError(
            f"{source.where}: scale_decoder_outputs is {scaled} and the head is {'tied' if tied else 'its own'}; this "
            "model scales the states before a tied head, and only before it."
        )
    return tied


def _words() -> list[VocabularyPiece]:
    """ProtT5's SentencePiece pieces: three special ones, and a word of one letter for each residue."""
    kinds = (Kind.CONTROL, Kind.CONTROL, Kind.UNKNOWN)
    special = [VocabularyPiece(text, 0.0, kind) for text, kind in zip(PROTT5_PIECES, kinds, strict=False)]
    return [*special, *(VocabularyPiece(_WORD + letter, -1.0) for letter in PROTT5_PIECES[len(kinds) :])]


def _is_prott5(source: ForeignModel, rows: int) -> bool:
    """Whether its pieces are ProtT5's; without a SentencePiece model beside it, whether it has as many."""
    if _SENTENCEPIECE in source.files:
        pieces = [one.text.removeprefix(_WORD) for one in read_pieces(source.files[_SENTENCEPIECE], source.where)]
        return pieces == list(PROTT5_PIECES)
    return rows == len(PROTT5_PIECES) + NUM_PROTT5_SENTINELS
