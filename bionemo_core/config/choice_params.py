"""A component as a parameter of another one: a fine-tuned model so describes its encoders and their tokenizer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from bionemo_core.config.schema import Choice
from bionemo_core.errors import ArtefactError

FINETUNED = "finetuned"
"""The model that has other components as parameters."""


def read_choice(content: Mapping[str, Any], group: str) -> Choice:
    """Read a component from what `choice_params` gave.

    Raises:
        ArtefactError: the mapping lacks a key.
    """
    try:
        texts = {key: content[key] for key in ("name", "distribution", "version")}
        params = content["params"]
    except (KeyError, TypeError):
        texts, params = {}, None
    if not all(isinstance(text, str) for text in texts.values()) or not isinstance(params, Mapping):
        raise ArtefactError(f"model finetuned: its {group} is {content!r}, expected name, params, distribution.")
    return Choice(group, params=dict(params), **texts)


def choice_params(choice: Choice) -> dict[str, Any]:
    """Return a component by name, parameters, distribution and version."""
    return {key: value for key, value in asdict(choice).items() if key != "group"}
