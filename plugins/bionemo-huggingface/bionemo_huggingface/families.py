"""The kinds of Hugging Face folders that can be opened, and why others cannot. Functions import transformers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from bionemo_core.errors import ArtefactError, ConfigError
from bionemo_core.interop.foreign_config import MAX_SIZE

MAX_LAYERS = 1_000
"""The most layers of a model that is read; a larger number is a mistake or an attack on memory, as is `MAX_SIZE`."""

MASKED = frozenset(
    {
        "albert",
        "bert",
        "camembert",
        "data2vec-text",
        "deberta",
        "deberta-v2",
        "distilbert",
        "electra",
        "ernie",
        "esm",
        "esmc",
        "eurobert",
        "megatron-bert",
        "modernbert",
        "mpnet",
        "rembert",
        "roberta",
        "roberta-prelayernorm",
        "roformer",
        "xlm-roberta",
    }
)
"""Encoders with a masked-language head, by their `model_type`; a test opens each of them."""

ENCODERS = {"t5": "T5EncoderModel", "mt5": "MT5EncoderModel", "umt5": "UMT5EncoderModel"}
"""Encoder-decoders of which the encoder alone is used, and its class."""

_DEPENDS_ON_PADDING = "its states depend on the padding of a row"
_NOT_OPENED = {
    "convbert": _DEPENDS_ON_PADDING,
    "fnet": _DEPENDS_ON_PADDING,
    "nystromformer": _DEPENDS_ON_PADDING,
}
# What describes the file or the software and not the model; the rest is kept as it is.
_NOT_KEPT = ("architectures", "auto_map", "dtype", "torch_dtype", "transformers_version", "_name_or_path")


def is_known(model_type: object) -> bool:
    """Return whether folders of this `model_type` can be opened."""
    return isinstance(model_type, str) and (model_type in MASKED or model_type in ENCODERS)


def refuse(values: Mapping[str, Any], where: str) -> None:
    """Refuse a folder that cannot be opened.

    Raises:
        ArtefactError: why.
    """
    kind = str(values.get("model_type"))[:80]
    opened = f"Supported: {', '.join(sorted({*MASKED, *ENCODERS}))}."
    if not is_known(kind):
        if values.get("auto_map"):
            raise ArtefactError(
                f"{where}: the model {kind!r} is computed by code in its own folder (auto_map), which is never run. "
                f"Use a conversion of it to a model that transformers has. {opened}"
            )
        why = _NOT_OPENED.get(kind)
        if why is None and _is_decoder(kind):
            why = "it is a decoder or an encoder-decoder, which reads a text from left to right"
        raise ArtefactError(f"{where}: the model {kind!r} cannot be opened: {why or 'it is not supported'}. {opened}")
    if values.get("is_decoder"):
        raise ArtefactError(f"{where}: is_decoder is true: it reads from left to right. Expected an encoder.")
    if values.get("quantization_config"):
        raise ArtefactError(f"{where}: its weights are quantized (quantization_config). Expected plain weights.")
    for key, value in values.items():
        most = MAX_LAYERS if "layers" in key else MAX_SIZE
        if isinstance(value, int) and not -MAX_SIZE <= value <= most:
            raise ArtefactError(f"{where}: {key} is {value}, expected at most {most:,}.")


def kept_values(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of a `config.json` that describes the model."""
    return {key: value for key, value in values.items() if key not in _NOT_KEPT}


def read_config(text: str) -> Any:
    """Return the configuration object of transformers for the JSON of `model.config`.

    Raises:
        ConfigError: it is not such a text, or its values do not fit the family.
    """
    from transformers import AutoConfig

    try:
        values = json.loads(text)
    except ValueError as error:
        raise ConfigError(f"model.config: not JSON: {error}. Expected the content of a config.json.") from error
    if not isinstance(values, dict) or not is_known(values.get("model_type")):
        raise ConfigError(
            f"model.config: expected the content of a config.json whose model_type is one of "
            f"{', '.join(sorted({*MASKED, *ENCODERS}))}."
        )
    kind = values.pop("model_type")
    try:
        config = AutoConfig.for_model(kind, **values)
    except Exception as error:  # each family checks its values in its own way
        raise ConfigError(f"model.config: {kind} does not accept it: {error}") from error
    config.return_dict = True
    config.output_attentions = config.output_hidden_states = False
    config.use_cache = False
    return config


def class_of(config: Any) -> Any:
    """Return the class of transformers: with a masked-language head if the family has one, else the encoder."""
    import transformers
    from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING

    name = ENCODERS.get(config.model_type)
    return MODEL_FOR_MASKED_LM_MAPPING[type(config)] if name is None else getattr(transformers, name)


def _is_decoder(kind: str) -> bool:
    from transformers.models.auto import modeling_auto as auto

    return kind in auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES or kind in auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES
