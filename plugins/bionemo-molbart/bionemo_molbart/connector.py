"""The family's weights in v1's `.nemo` archives: names, sizes and vocabulary, there and here."""

from collections.abc import Mapping
from typing import Any

from bionemo_core.errors import ArtefactError, ConfigError
from bionemo_core.interop.connector import ForeignModel, OurModel, Reading, check_pieces
from bionemo_core.interop.foreign_config import ForeignConfig
from bionemo_core.interop.keys import Key, KeyTable
from bionemo_core.interop.nemo_seq2seq import (
    DECODER_LAYER,
    ENCODER_LAYER,
    STACKS,
    archive_config,
    decoder_keys,
    embedding_keys,
    encoder_keys,
    head_keys,
    layer_keys,
    position_rows,
    read_params,
    stack_options,
)
from bionemo_core.interop.stored import Carried
from bionemo_core.protocols import Tokenizer
from bionemo_molbart.sizes import MEGAMOLBART_SIZES, MOLMIM_SIZES
from bionemo_molbart.tokenizer import EXPRESSION
from bionemo_molbart.vocabulary import molbart_pieces

LATENT_LINEAR = {
    "cond_gaussian": "hiddens_to_mean_logvar",
    "sampled_var_cond_gaussian": "hiddens_to_mean",
    "interp_var_cond_gaussian": "hiddens_to_mean_logvar",
}
"""The linear layer of each latent transform."""

_TARGETS = {
    "MegaMolBARTModel": "bionemo.model.molecule.megamolbart.megamolbart_model.MegaMolBARTModel",
    "MolMIMModel": "bionemo.model.molecule.molmim.molmim_model.MolMIMModel",
}
_EXPRESSION_FILE, _TABLE_FILE = "molecule_tokenizer.model", "molecule_tokenizer.vocab"


def megamolbart_keys(
    num_layers: int,
    *,
    num_decoder_layers: int | None = None,
    gated: tuple[bool, bool] = (False, False),
    tied_head: bool = False,
    head_bias: bool = False,
    share_token_embeddings: bool = True,
) -> KeyTable:
    """Names in an archive of MegaMolBART; `gated` says whether the MLPs of encoder and decoder are."""
    return KeyTable(
        [
            *embedding_keys(share_token_embeddings=share_token_embeddings),
            *encoder_keys(num_layers, gated=gated[0]),
            *decoder_keys(num_decoder_layers or num_layers, gated=gated[1]),
            *head_keys(tied=tied_head, bias=head_bias),
        ]
    )


def molmim_keys(
    num_layers: int,
    *,
    transform: str,
    num_decoder_layers: int | None = None,
    gated: tuple[bool, bool] = (False, False),
    num_self_attention_per_cross_attention: int = 1,
    tied_head: bool = False,
    head_bias: bool = True,
    share_token_embeddings: bool = True,
) -> KeyTable:
    """Names in an archive of MolMIM: layers of the perceiver with cross attention are built like a decoder's."""
    encoder = f"{STACKS}.encoder"
    count = num_layers * num_self_attention_per_cross_attention
    linear = LATENT_LINEAR[transform]
    stacks = [
        ("encoder.cross_layers", f"{encoder}.cross_attn_layers", num_layers, DECODER_LAYER),
        ("encoder.self_layers", f"{encoder}.self_attn_layers", count, ENCODER_LAYER),
    ]
    return KeyTable(
        [
            *embedding_keys(share_token_embeddings=share_token_embeddings),
            Key("encoder.init_hidden", f"{encoder}.init_hidden", ("",)),
            *(
                key
                for ours, theirs, number, parts in stacks
                for key in layer_keys(number, ours, theirs, parts, ".layers.0", gated=gated[0])
            ),
            Key("encoder.final_layernorm", f"{encoder}.final_layernorm"),
            *decoder_keys(num_decoder_layers or num_layers, gated=gated[1]),
            Key(f"latent.{linear}", f"{STACKS}.hiddens_module.hidden_transforms.0.{linear}"),
            *head_keys(tied=tied_head, bias=head_bias),
        ]
    )


class MegaMolBartNemo:
    """MegaMolBART to and from v1's `.nemo`."""

    format = "nemo"
    models = frozenset(MEGAMOLBART_SIZES)

    def recognises(self, config: ForeignConfig) -> bool:
        """Return whether the archive states that it is a MegaMolBART."""
        return _class_of(config) == "MegaMolBARTModel"

    def read(self, source: ForeignModel) -> Reading:
        """Return the model that the archive holds.

        Raises:
            ArtefactError: it computes something else, or has another vocabulary.
        """
        params = read_params(source, "transformer") | _positions(source) | _masking_params(source.config)
        return _reading("megamolbart", params, self._keys(params), source)

    def write(self, model: OurModel) -> ForeignModel:
        """Return the content of the archive.

        Raises:
            ConfigError: it has sizes, switches or a vocabulary that v1's archives have not.
        """
        config = archive_config(model.params, "transformer", f"model {model.name} as .nemo")
        return _foreign(model, config, "MegaMolBARTModel", self._keys(model.params))

    @staticmethod
    def _keys(params: Mapping[str, Any]) -> KeyTable:
        return megamolbart_keys(params["num_layers"], **stack_options(params))


class MolMimNemo:
    """MolMIM to and from v1's `.nemo`."""

    format = "nemo"
    models = frozenset(MOLMIM_SIZES)

    def recognises(self, config: ForeignConfig) -> bool:
        """Return whether the archive states that it is a MolMIM."""
        return _class_of(config) == "MolMIMModel"

    def read(self, source: ForeignModel) -> Reading:
        """Return the model that the archive holds.

        Raises:
            ArtefactError: it computes something else, or has another vocabulary.
        """
        params = read_params(source, "perceiver") | _positions(source) | _masking_params(source.config)
        params |= _latent_params(source.config)
        return _reading("molmim", params, self._keys(params), source)

    def write(self, model: OurModel) -> ForeignModel:
        """Return the content of the archive.

        Raises:
            ConfigError: it has sizes, switches or a vocabulary that v1's archives have not.
        """
        params = model.params
        config = archive_config(params, "perceiver", f"model {model.name} as .nemo")
        count = "num_self_attention_per_cross_attention"
        config["encoder"] |= {"hidden_steps": params["hidden_steps"], count: params[count]}
        config["hiddens"] = {
            "enc_output_name": "z",
            "enc_inference_output_name": "z_mean",
            "token_aggregation_method": "mean",
            "hidden_aggregation_method": params["hidden_aggregation_method"],
            "tokens_loss_weight": params["tokens_loss_weight"],
            "transform": {
                "q_z_given_x": {
                    "cls_name": params["hidden_transform"],
                    "hidden_size": params["hidden_size"],
                    "min_logvar": params["min_logvar"],
                    **_own_arguments(params),
                }
            },
            "loss": {"mim": {"cls_name": params["hidden_loss"], "loss_weight": params["loss_weight"]}},
        }
        return _foreign(model, config, "MolMIMModel", self._keys(params))

    @staticmethod
    def _keys(params: Mapping[str, Any]) -> KeyTable:
        return molmim_keys(
            params["num_layers"],
            transform=params["hidden_transform"],
            num_self_attention_per_cross_attention=params["num_self_attention_per_cross_attention"],
            **stack_options(params),
        )


def _own_arguments(params: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments that only this transform's constructor takes; v1 passes on all that it finds."""
    return {
        "cond_gaussian": {},
        "sampled_var_cond_gaussian": {"max_logvar": params["max_logvar"], "map_var_to_hiddens": False},
        "interp_var_cond_gaussian": {"map_coef_to_hiddens": False},
    }[params["hidden_transform"]]


def _class_of(config: ForeignConfig) -> str:
    return str(config.values.get("target", "")).rpartition(".")[2]


def _positions(source: ForeignModel) -> dict[str, int]:
    rows = {side: position_rows(source, side) for side in ("encoder", "decoder")}
    if rows["encoder"] != rows["decoder"]:
        raise ArtefactError(f"{source.where}: {rows} positions; both sides must have the same number.")
    return {"seq_length": rows["encoder"]}


def _masking_params(config: ForeignConfig) -> dict[str, Any]:
    """Read how the model was masked in its training, as far as the archive says it."""
    data = config.section("data")
    params: dict[str, Any] = {key: data.number(key) for key in ("mask_prob", "span_lambda") if data.has(key)}
    return params | ({"encoder_mask": data.flag("encoder_mask")} if data.has("encoder_mask") else {})


def _latent_params(config: ForeignConfig) -> dict[str, Any]:
    """Read the latent space from the configuration: one transform and one loss, in a list or under any names."""
    encoder, hiddens = config.section("encoder"), config.section("hiddens")
    transform, loss = _only(hiddens, "transform"), _only(hiddens, "loss")
    transform.must_be("cls_name", *LATENT_LINEAR)
    transform.must_be("map_var_to_hiddens", False, None)
    transform.must_be("map_coef_to_hiddens", False, None)
    # The defaults of v1's classes are those of ours.
    params: dict[str, Any] = {"hidden_transform": transform.text("cls_name")}
    params |= {key: transform.number(key) for key in ("min_logvar", "max_logvar") if transform.has(key)}
    loss.must_be("cls_name", "a_mim", "vae")
    return params | {
        "hidden_loss": loss.text("cls_name"),
        "loss_weight": loss.number("loss_weight", 1.0),
        "tokens_loss_weight": hiddens.number("tokens_loss_weight", 1.0),
        "hidden_aggregation_method": hiddens.text("hidden_aggregation_method", "sum"),
        "hidden_steps": encoder.size("hidden_steps"),
        "num_self_attention_per_cross_attention": encoder.size("num_self_attention_per_cross_attention", 1),
    }


def _only(hiddens: ForeignConfig, key: str) -> ForeignConfig:
    value = hiddens.values.get(key)
    entries = list(value.values()) if isinstance(value, dict) else value
    if isinstance(entries, list) and len(entries) == 1 and isinstance(entries[0], dict):
        return ForeignConfig(entries[0], f"{hiddens.where}: {key}")
    raise hiddens.refusal(key, value, "one entry")


def _reading(name: str, params: dict[str, Any], keys: KeyTable, source: ForeignModel) -> Reading:
    section = source.config.section("tokenizer")
    section.must_be("library", "regex")
    files = {}
    for key, ours in (("model", _EXPRESSION_FILE), ("vocab_file", _TABLE_FILE)):
        name_there = section.text(key)
        if name_there not in source.files:
            raise ArtefactError(f"{section.where}: {key} is {name_there[:120]!r}, which is no member of the archive.")
        files[ours] = source.files[name_there]
    check_pieces(_lines(files[_EXPRESSION_FILE]), [EXPRESSION], f"{section.where}: model")
    check_pieces(_lines(files[_TABLE_FILE]), molbart_pieces(), f"{section.where}: vocab_file")
    found = keys.to_ours(source.tensors, source.where)
    return Reading(
        name, params, "smiles", found.tensors, {}, found.unexpected, found.notes(), Carried("nemo", files=files)
    )


def _foreign(model: OurModel, config: dict[str, Any], kind: str, keys: KeyTable) -> ForeignModel:
    where = f"model {model.name} as .nemo"
    if tuple(model.tokenizer.pieces) != molbart_pieces():
        raise ConfigError(f"{where}: its vocabulary is not the one of v1's molecule models.")
    config |= {
        "tokenizer": {
            "library": "regex",
            "type": None,
            "model": _EXPRESSION_FILE,
            "vocab_file": _TABLE_FILE,
            "merge_file": None,
        },
        "data": {
            "max_seq_length": model.params["seq_length"],
            "encoder_mask": model.params["encoder_mask"],
            "mask_prob": model.params["mask_prob"],
            "span_lambda": model.params["span_lambda"],
        },
        "target": _TARGETS[kind],
    }
    tensors = keys.to_theirs(model.tensors, model.tokenizer.vocab_size)
    return ForeignModel(ForeignConfig(config, where), tensors, _files(model.tokenizer, model.carried))


def _files(tokenizer: Tokenizer, carried: Carried) -> dict[str, bytes]:
    table = "".join(f"{piece}\n" for piece in tokenizer.pieces)
    files = {_EXPRESSION_FILE: EXPRESSION.encode(), _TABLE_FILE: table.encode()}
    return {name: carried.files.get(name, content) for name, content in files.items()}


def _lines(content: bytes) -> list[str]:
    return content.decode("utf-8", errors="replace").splitlines()
