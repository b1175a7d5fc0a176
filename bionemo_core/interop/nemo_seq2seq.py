"""Names and configurations that v1's encoder-decoders ProtT5nv, MegaMolBART and MolMIM share.

Fused rows have this framework's order, head by head: `[q | k | v]` and `[k | v]`.
"""

from collections.abc import Mapping
from typing import Any

from bionemo_core.errors import ArtefactError, ConfigError
from bionemo_core.interop.connector import ForeignModel
from bionemo_core.interop.foreign_config import ForeignConfig
from bionemo_core.interop.keys import Key, each_layer
from bionemo_core.interop.nemo_models import check_same_mathematics, recipe_config

MODEL = "enc_dec_model"
STACKS = "enc_dec_model.enc_dec_model"
SIDES = ("encoder", "decoder")

ENCODER_LAYER = (
    ("input_layernorm", "input_layernorm"),
    ("self_attention.linear_qkv", "self_attention.query_key_value"),
    ("self_attention.linear_proj", "self_attention.dense"),
    ("pre_mlp_layernorm", "post_attention_layernorm"),
    ("mlp.linear_fc1", "mlp.dense_h_to_4h"),
    ("mlp.linear_fc2", "mlp.dense_4h_to_h"),
)
DECODER_LAYER = (
    ("input_layernorm", "input_layernorm"),
    ("self_attention.linear_qkv", "self_attention.query_key_value"),
    ("self_attention.linear_proj", "self_attention.dense"),
    ("pre_cross_attn_layernorm", "post_attention_layernorm"),
    ("cross_attention.linear_q", "inter_attention.query"),
    ("cross_attention.linear_kv", "inter_attention.key_value"),
    ("cross_attention.linear_proj", "inter_attention.dense"),
    ("pre_mlp_layernorm", "post_inter_attention_layernorm"),
    ("mlp.linear_fc1", "mlp.dense_h_to_4h"),
    ("mlp.linear_fc2", "mlp.dense_4h_to_h"),
)

_OF_A_SIDE = (
    "num_layers",
    "hidden_size",
    "ffn_hidden_size",
    "num_attention_heads",
    "kv_channels",
    "hidden_dropout",
    "attention_dropout",
    "layernorm_epsilon",
    "init_method_std",
    "position_embedding_type",
)


def layer_keys(count: int, ours: str, theirs: str, parts: tuple[tuple[str, str], ...], inner: str = "") -> list[Key]:
    """Return the keys of `count` layers, named `ours.N` here and `theirs.N` plus `inner` in an archive."""
    return each_layer(
        count, *(Key(f"{ours}.{{i}}.{part}", f"{theirs}.{{i}}{inner}.{foreign}") for part, foreign in parts)
    )


def embedding_keys(*, share_token_embeddings: bool = True) -> list[Key]:
    """Return the keys of the word and position tables; an archive holds a shared word table twice."""
    words = {side: f"{MODEL}.{side}_embedding.word_embeddings" for side in SIDES}
    if share_token_embeddings:
        copy = (words["decoder"],)
        tables = [Key("encoder_embedding.word_embeddings", words["encoder"], ("weight",), also=copy, write_also=True)]
    else:
        tables = [Key(f"{side}_embedding.word_embeddings", words[side], ("weight",)) for side in SIDES]
    places = [
        Key(f"{side}_embedding.position_embeddings", f"{MODEL}.{side}_embedding.position_embeddings", ("weight",))
        for side in SIDES
    ]
    return [*tables, *places]


def encoder_keys(num_layers: int) -> list[Key]:
    """Return the keys of a transformer encoder."""
    theirs = f"{STACKS}.encoder.model"
    layers = layer_keys(num_layers, "encoder.block.layers", f"{theirs}.layers", ENCODER_LAYER)
    return [*layers, Key("encoder.block.final_layernorm", f"{theirs}.final_layernorm")]


def decoder_keys(num_layers: int) -> list[Key]:
    """Return the keys of a transformer decoder."""
    theirs = f"{STACKS}.decoder.model"
    layers = layer_keys(num_layers, "decoder.block.layers", f"{theirs}.layers", DECODER_LAYER)
    return [*layers, Key("decoder.block.final_layernorm", f"{theirs}.final_layernorm")]


def head_keys(*, tied: bool, bias: bool) -> list[Key]:
    """Return the keys of the token head: its weight unless it is tied to the word table, and its bias if it has one."""
    kinds = tuple(kind for kind, present in (("weight", not tied), ("bias", bias)) if present)
    return [Key("head.output", f"{MODEL}.tokens_head", kinds)] if kinds else []


def read_params(source: ForeignModel, encoder_arch: str) -> dict[str, Any]:
    """Read the parameters that all three models have from the configuration and, for the head, from the tensors.

    Raises:
        ArtefactError: encoder and decoder differ in size, or a layer computes something that is not supported.
    """
    config = source.config
    sides = {side: _side(config, side) for side in SIDES}
    params: dict[str, Any] = {}
    for side, arch in zip(SIDES, (encoder_arch, "transformer"), strict=True):
        settings = sides[side]
        check_same_mathematics(settings)
        settings.must_be("arch", arch, None)
        settings.must_be("activation", "gelu", None)
        settings.must_be("normalize_attention_scores", True, None)
        settings.must_be("num_moe_experts", 1, None)
        read = _side_params(settings, config)
        if params and read != params:
            differing = ", ".join(key for key in read if read[key] != params[key])
            raise ArtefactError(
                f"{source.where}: encoder and decoder differ in {differing}; only equal ones are supported."
            )
        params = read
    return params | {
        "share_token_embeddings": config.flag("share_token_embeddings", True),
        "share_decoder_tokens_head_embeddings": f"{MODEL}.tokens_head.weight" not in source.tensors,
        "tokens_head_bias": f"{MODEL}.tokens_head.bias" in source.tensors,
    }


def position_rows(source: ForeignModel, side: str) -> int:
    """Return the number of rows in the position table of the encoder or decoder (`side`).

    Raises:
        ArtefactError: there is no such table.
    """
    name = f"{MODEL}.{side}_embedding.position_embeddings.weight"
    if name not in source.tensors:
        raise ArtefactError(f"{source.where}: the weights have no '{name}'; only learned positions are supported.")
    return int(source.tensors[name].shape[0])


def archive_config(params: Mapping[str, Any], encoder_arch: str, where: str) -> dict[str, Any]:
    """Return the configuration of an archive in NeMo's complete form: flat keys, and a section for each side.

    Raises:
        ConfigError: a parameter has a value that v1's models of this kind do not support.
    """
    for key, value in {"normalization": "layernorm", "bias": True, "transformer_block_type": "pre_ln"}.items():
        if params[key] != value:
            raise ConfigError(f"{where}: {key} is {params[key]!r}; a v1 archive can only hold {value!r}.")
    if params["activation"] != "gelu" or params["position_embedding_type"] != "learned_absolute":
        raise ConfigError(
            f"{where}: activation is {params['activation']!r} and position_embedding_type is "
            f"{params['position_embedding_type']!r}; a v1 archive can only hold 'gelu' and 'learned_absolute'."
        )
    flat = recipe_config(params)
    switches = {
        "activation": "gelu",
        "bias": True,
        "normalization": "layernorm",
        "transformer_block_type": "pre_ln",
        "headscale": False,
        "bias_activation_fusion": params["bias_activation_fusion"],
    }
    section = {**{key: flat[key] for key in _OF_A_SIDE}, **switches, "apply_query_key_layer_scaling": False}
    return {
        **flat,
        **{key: value for key, value in switches.items() if key != "bias_activation_fusion"},
        "bias_gelu_fusion": params["bias_activation_fusion"],
        "apply_query_key_layer_scaling": False,
        "pipeline_model_parallel_split_rank": 0,
        "encoder_arch": encoder_arch,
        "decoder_arch": "transformer",
        "share_token_embeddings": params["share_token_embeddings"],
        "share_decoder_tokens_head_embeddings": params["share_decoder_tokens_head_embeddings"],
        "tokens_head_bias": params["tokens_head_bias"],
        "encoder": {**section, "arch": encoder_arch},
        "decoder": {**section, "arch": "transformer"},
    }


def _side(config: ForeignConfig, side: str) -> ForeignConfig:
    """Return the section of a side; older archives have only the flat keys."""
    if config.has(side):
        return config.section(side)
    arch = config.values.get(f"{side}_arch")
    return ForeignConfig({**config.values, "arch": arch}, f"{config.where}: {side}")


def _side_params(settings: ForeignConfig, config: ForeignConfig) -> dict[str, Any]:
    hidden = settings.size("hidden_size")
    fused = settings if settings.has("bias_activation_fusion") else config
    key = "bias_activation_fusion" if settings.has("bias_activation_fusion") else "bias_gelu_fusion"
    return {
        "num_layers": settings.size("num_layers"),
        "hidden_size": hidden,
        "num_attention_heads": settings.size("num_attention_heads"),
        "ffn_hidden_size": settings.size("ffn_hidden_size", 4 * hidden),
        "bias_activation_fusion": fused.flag(key, True),
        "hidden_dropout": settings.number("hidden_dropout", 0.1),
        "attention_dropout": settings.number("attention_dropout", 0.1),
        "layernorm_epsilon": settings.number("layernorm_epsilon", 1e-5),
        "init_method_std": settings.number("init_method_std", 0.02),
    }
