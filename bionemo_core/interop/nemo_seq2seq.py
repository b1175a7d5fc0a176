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

GATED = ("geglu", "geglu_tanh", "swiglu", "reglu")
"""The activations whose MLP has a second input; an archive has two tensors where ours has one."""
DECODER_KEYS = {
    "num_layers": "num_decoder_layers",
    "num_attention_heads": "decoder_num_attention_heads",
    "ffn_hidden_size": "decoder_ffn_hidden_size",
    "activation": "decoder_activation",
    "bias_activation_fusion": "decoder_bias_activation_fusion",
    "hidden_dropout": "decoder_hidden_dropout",
    "attention_dropout": "decoder_attention_dropout",
    "layernorm_epsilon": "decoder_layernorm_epsilon",
}
"""The parameters that a decoder may have of its own, by the encoder's."""

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


def layer_keys(
    count: int, ours: str, theirs: str, parts: tuple[tuple[str, str], ...], inner: str = "", *, gated: bool = False
) -> list[Key]:
    """Return the keys of `count` layers, named `ours.N` here and `theirs.N` plus `inner` in an archive."""

    def key(part: str, foreign: str) -> Key:
        name = f"{theirs}.{{i}}{inner}.{foreign}"
        return Key(f"{ours}.{{i}}.{part}", (name, f"{name}_2") if gated and part == "mlp.linear_fc1" else name)

    return each_layer(count, *(key(part, foreign) for part, foreign in parts))


def decoder_params(params: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameters as the decoder has them: its own values, and the encoder's where it has none."""
    own = {key: params.get(name) for key, name in DECODER_KEYS.items()}
    return {**params, **{key: value for key, value in own.items() if value is not None}}


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


def encoder_keys(num_layers: int, *, gated: bool = False) -> list[Key]:
    """Return the keys of a transformer encoder."""
    theirs = f"{STACKS}.encoder.model"
    layers = layer_keys(num_layers, "encoder.block.layers", f"{theirs}.layers", ENCODER_LAYER, gated=gated)
    return [*layers, Key("encoder.block.final_layernorm", f"{theirs}.final_layernorm")]


def decoder_keys(num_layers: int, *, gated: bool = False) -> list[Key]:
    """Return the keys of a transformer decoder."""
    theirs = f"{STACKS}.decoder.model"
    layers = layer_keys(num_layers, "decoder.block.layers", f"{theirs}.layers", DECODER_LAYER, gated=gated)
    return [*layers, Key("decoder.block.final_layernorm", f"{theirs}.final_layernorm")]


def head_keys(*, tied: bool, bias: bool) -> list[Key]:
    """Return the keys of the token head: its weight unless it is tied to the word table, and its bias if it has one."""
    kinds = tuple(kind for kind, present in (("weight", not tied), ("bias", bias)) if present)
    return [Key("head.output", f"{MODEL}.tokens_head", kinds)] if kinds else []


def stack_options(params: Mapping[str, Any]) -> dict[str, Any]:
    """Return what decides the names in an archive, besides the layers of the encoder."""
    decoder = decoder_params(params)
    return {
        "num_decoder_layers": decoder["num_layers"],
        "gated": (params["activation"] in GATED, decoder["activation"] in GATED),
        "tied_head": params["share_decoder_tokens_head_embeddings"],
        "head_bias": params["tokens_head_bias"],
        "share_token_embeddings": params["share_token_embeddings"],
    }


def read_params(source: ForeignModel, encoder_arch: str) -> dict[str, Any]:
    """Read the parameters that all three models have from the configuration and, for the head, from the tensors.

    Raises:
        ArtefactError: encoder and decoder differ in width, or a layer computes something that is not supported.
    """
    config = source.config
    sides = []
    for side, arch in zip(SIDES, (encoder_arch, "transformer"), strict=True):
        settings = _side(config, side)
        check_same_mathematics(settings)
        settings.must_be("arch", arch, None)
        settings.must_be("normalize_attention_scores", True, None)
        settings.must_be("num_moe_experts", 1, None)
        sides.append(_side_params(settings, config))
    params, decoder = sides
    if decoder["hidden_size"] != params["hidden_size"]:
        raise ArtefactError(
            f"{source.where}: the encoder has hidden_size {params['hidden_size']} and the decoder "
            f"{decoder['hidden_size']}; cross attention needs the same in both."
        )
    own = {name: decoder[key] if decoder[key] != params[key] else None for key, name in DECODER_KEYS.items()}
    return {**params, **own} | {
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
    if params["position_embedding_type"] != "learned_absolute":
        raise ConfigError(
            f"{where}: position_embedding_type is {params['position_embedding_type']!r}; a v1 archive can only hold "
            "'learned_absolute'."
        )
    encoder, decoder = (_side_config(one, where) for one in (params, decoder_params(params)))
    switches = ("activation", "bias", "normalization", "transformer_block_type", "headscale")
    return {
        **recipe_config(params),
        **{key: encoder[key] for key in switches},
        "bias_gelu_fusion": encoder["bias_activation_fusion"],
        "apply_query_key_layer_scaling": False,
        "pipeline_model_parallel_split_rank": 0,
        "encoder_arch": encoder_arch,
        "decoder_arch": "transformer",
        "share_token_embeddings": params["share_token_embeddings"],
        "share_decoder_tokens_head_embeddings": params["share_decoder_tokens_head_embeddings"],
        "tokens_head_bias": params["tokens_head_bias"],
        "encoder": {**encoder, "arch": encoder_arch},
        "decoder": {**decoder, "arch": "transformer"},
    }


def _side_config(params: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return the section of one side, from the parameters as it has them.

    Raises:
        ConfigError: v1 has no such activation.
    """
    activation = params["activation"]
    if activation not in ("gelu", *GATED):
        raise ConfigError(
            f"{where}: activation is {activation!r}; a v1 archive can only hold gelu, {', '.join(GATED)}."
        )
    flat = recipe_config(params)
    # v1's fused kernels compute the tanh form of gelu, and there are none for the other gates.
    fused = params["bias_activation_fusion"] if activation == "gelu" else activation == "geglu_tanh"
    return {
        **{key: flat[key] for key in _OF_A_SIDE},
        "activation": activation.removesuffix("_tanh"),
        "bias": True,
        "normalization": "layernorm",
        "transformer_block_type": "pre_ln",
        "headscale": False,
        "bias_activation_fusion": fused,
        "apply_query_key_layer_scaling": False,
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
    settings.must_be("activation", "gelu", "geglu", "swiglu", "reglu", None)
    activation, is_fused = settings.text("activation", "gelu"), fused.flag(key, True)
    return {
        "num_layers": settings.size("num_layers"),
        "hidden_size": hidden,
        "num_attention_heads": settings.size("num_attention_heads"),
        "ffn_hidden_size": settings.size("ffn_hidden_size", 4 * hidden),
        "activation": "geglu_tanh" if activation == "geglu" and is_fused else activation,
        "bias_activation_fusion": is_fused,
        "hidden_dropout": settings.number("hidden_dropout", 0.1),
        "attention_dropout": settings.number("attention_dropout", 0.1),
        "layernorm_epsilon": settings.number("layernorm_epsilon", 1e-5),
        "init_method_std": settings.number("init_method_std", 0.02),
    }
