"""Hugging Face folders of any encoder: read through the classes of transformers, written under their names."""

from __future__ import annotations

import json
from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

import torch
from torch import Tensor

from bionemo_core.errors import ArtefactError, ConfigError
from bionemo_core.interop.connector import ForeignModel, OurModel, Reading
from bionemo_core.interop.foreign_config import ForeignConfig
from bionemo_core.interop.stored import AbsentParts, Carried
from bionemo_huggingface.families import MASKED, class_of, kept_values, read_config, refuse
from bionemo_huggingface.folder_tokenizer import (
    FolderVocabulary,
    longest_text,
    read_vocabulary,
    tokenizer_files,
    with_longest_text,
)
from bionemo_huggingface.model import quiet_transformers
from bionemo_huggingface.network import positions_of
from bionemo_huggingface.sizes import plain_text

_UNUSED = (
    *("*pooler.*", "*contact_head.*", "*position_ids", "*rotary_embeddings.inv_freq", "classifier.*", "qa_outputs.*"),
    *("cls.seq_relationship.*", "discriminator_predictions.*", "sop_classifier.*", "score.*", "decoder.*", "lm_head.*"),
)
"""Tensors of other tasks, and what is computed: no part of an encoder and its masked-language head."""
_DEFAULT_LENGTH = 1024
"""The longest sequence in tokens where neither configuration nor tokenizer states one, as with relative positions."""
_ENCODER, _HEAD = "encoder.", "head.model."


class EncoderFolders:
    """Any encoder of transformers from and to its folder.

    Args:
        seq_length: the longest sequence in tokens; None: as many as the folder says.
        replaced: letters that are read as X; None: as the authors of a known vocabulary publish.
    """

    format = "huggingface"
    models = frozenset({"huggingface_encoder"})
    fallback = True

    def __init__(self, seq_length: int | None = None, replaced: str | None = None) -> None:
        self.seq_length, self.replaced = seq_length, replaced

    def recognises(self, config: ForeignConfig) -> bool:
        """Return whether this is a Hugging Face model of any kind; `read` refuses models that are no encoders."""
        return isinstance(config.values.get("model_type"), str)

    def read(self, source: ForeignModel) -> Reading:
        """Return the model that the folder holds.

        Raises:
            ArtefactError: it is no encoder of transformers, is damaged, or has a tokenizer that is not supported.
        """
        values = source.config.values
        refuse(values, source.where)
        text = plain_text(kept_values(values))
        try:
            settings = read_config(text)
        except ConfigError as error:
            raise ArtefactError(f"{source.where}: {error}") from error
        with quiet_transformers():
            loaded = _load(settings, source)
            vocabulary = read_vocabulary(source, self.replaced)
        length = self.seq_length or _longest(
            loaded.positions, settings, None if vocabulary is None else vocabulary.max_length
        )
        return Reading(
            model="huggingface_encoder",
            params={"config": text, "seq_length": max(3, length)},
            tokenizer=None if vocabulary is None else vocabulary.name,
            tokenizer_params={} if vocabulary is None else vocabulary.params,
            tensors=loaded.tensors,
            unexpected=loaded.unexpected,
            notes=(*loaded.notes, *_notes(vocabulary)),
            carried=Carried(self.format, files=source.files),
            vocab_size=settings.vocab_size if vocabulary is None else None,
            absent=loaded.absent,
        )

    def write(self, model: OurModel) -> ForeignModel:
        """Return the content of the folder, with the tokenizer's files if it came from one.

        Raises:
            ConfigError: its configuration or its tokenizer cannot be written.
        """
        where = f"model {model.name} as a Hugging Face folder"
        kind = class_of(settings := read_config(model.params["config"]))
        values = {**json.loads(model.params["config"]), "architectures": [kind.__name__], "dtype": "float32"}
        body = kind.base_model_prefix if settings.model_type in MASKED else ""
        tensors = {_their_name(name, body): tensor for name, tensor in model.tensors.items()}
        files = dict(model.carried.files) or tokenizer_files(model.tokenizer, where)
        length = model.params["seq_length"]
        if length != _longest(_positions(settings), settings, longest_text(files, where)):
            files = with_longest_text(files, length, where)
        return ForeignModel(ForeignConfig(values, where), tensors, files)


class _Loaded(NamedTuple):
    """The tensors of a folder under our names, and what was found on the way."""

    tensors: Mapping[str, Tensor]
    positions: int | None
    unexpected: tuple[str, ...]
    notes: tuple[str, ...]
    absent: AbsentParts


def _load(settings: Any, source: ForeignModel) -> _Loaded:
    """Have transformers fill its own class, which knows every spelling of its tensors.

    Raises:
        ArtefactError: the tensors do not fit the configuration.
    """
    kind = class_of(settings)
    try:
        model, found = kind.from_pretrained(
            None,
            config=settings,
            state_dict=dict(source.tensors),
            output_loading_info=True,
            dtype=torch.float32,
            local_files_only=True,
        )
    except (RuntimeError, ValueError, TypeError, KeyError) as error:
        raise ArtefactError(f"{source.where}: its tensors do not fit {kind.__name__}: {error}") from error
    body = f"{model.base_model_prefix}." if settings.model_type in MASKED else ""
    missing = {_our_name(name, body) for name in found["missing_keys"]}
    tensors = {
        _our_name(name, body): tensor.detach()
        for name, tensor in (*model.named_parameters(), *_kept_buffers(model))
        if _our_name(name, body) not in missing
    }
    with_heads = bool(body) and any(name.startswith(body) for name in source.tensors)
    left_out = sorted(
        name
        for name in found["unexpected_keys"]
        if (with_heads and not name.startswith(body)) or any(fnmatchcase(name, one) for one in _UNUSED)
    )
    unexpected = tuple(sorted(set(found["unexpected_keys"]) - set(left_out)))
    notes = (f"not used: {', '.join(left_out[:5])}{' and others' if len(left_out) > 5 else ''}",) if left_out else ()
    encoder = getattr(model, model.base_model_prefix) if body else model
    absent = _absent_head(source, kind.__name__, missing)
    return _Loaded(tensors, positions_of(encoder), unexpected, notes, absent)


def _kept_buffers(model: Any) -> list[tuple[str, Tensor]]:
    kept = model.state_dict(keep_vars=True)
    return [(name, buffer) for name, buffer in model.named_buffers() if name in kept]


def _absent_head(source: ForeignModel, whole: str, missing: set[str]) -> AbsentParts:
    """Return the head as absent, if the folder is of a class that has none."""
    named = source.config.values.get("architectures")
    kind = str(named[0])[:80] if isinstance(named, list) and named else ""
    if kind == whole or not any(name.startswith("head.") for name in missing):
        return AbsentParts()
    what = kind or source.where
    return AbsentParts(
        ("head.",), f"{what} has no masked-language head: it embeds and can be fine-tuned, but has no perplexity"
    )


def _our_name(name: str, body: str) -> str:
    """Return our name of a tensor; `body` is what those of the encoder begin with, empty if there is only that."""
    return _ENCODER + name.removeprefix(body) if name.startswith(body) else _HEAD + name


def _their_name(name: str, body: str) -> str:
    if name.startswith(_HEAD):
        return name.removeprefix(_HEAD)
    inner = name.removeprefix(_ENCODER)
    return f"{body}.{inner}" if body else inner


def _positions(settings: Any) -> int | None:
    """Return how many positions a model of this configuration has; None if it has no table of them."""
    with torch.device("meta"), quiet_transformers():
        model = class_of(settings)(settings)
    masked = settings.model_type in MASKED
    return positions_of(getattr(model, model.base_model_prefix) if masked else model)


def _longest(positions: int | None, settings: Any, max_length: int | None) -> int:
    """Return the longest sequence in tokens that a folder admits: what both model and tokenizer can take."""
    stated = getattr(settings, "max_position_embeddings", None)
    if positions is None and isinstance(stated, int) and stated > 0:
        positions = stated
    known = [length for length in (positions, max_length) if length is not None]
    return min(known, default=_DEFAULT_LENGTH)


def _notes(vocabulary: FolderVocabulary | None) -> tuple[str, ...]:
    padded = ("sequences are padded by length, one per row: packing is not possible",)
    replaced = "" if vocabulary is None else vocabulary.params.get("replaced", "")
    return (*padded, f"letters {replaced} are read as X, as its authors recommend") if replaced else padded
