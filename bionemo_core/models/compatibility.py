"""Whether a stored model can be built here: its plugins are installed, and its vocabulary is what it was."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from bionemo_core.config.schema import Choice
from bionemo_core.errors import ArtefactError, ConfigError
from bionemo_core.interop.stored import ModelSpec, StoredModel, Vocabulary
from bionemo_core.plugins.hookspecs import GROUPS
from bionemo_core.protocols import Tokenizer

if TYPE_CHECKING:
    from bionemo_core.plugins.registry import Registry


def check_vocabulary(stored: StoredModel, tokenizer: Tokenizer) -> None:
    """Check that a tokenizer has the pieces that it had when the model was stored.

    Raises:
        ArtefactError: its pieces differ, so the ids would have other meanings.
    """
    built = Vocabulary.of(tokenizer.pieces)
    if stored.vocabulary is not None and built != stored.vocabulary:
        raise ArtefactError(
            f"{stored.source}: tokenizer {stored.spec.tokenizer.name!r} of {stored.spec.tokenizer.distribution} builds "
            f"{built.size} pieces ({built.sha256[:12]}...), but the model was stored with {stored.vocabulary.size} "
            f"({stored.vocabulary.sha256[:12]}...). Install version {stored.spec.tokenizer.version} of that plugin."
        )


def extend_vocabulary(tokenizer: Choice, extra_tokens: Sequence[str], registry: Registry) -> Choice:
    """Return a tokenizer that has further tokens after those of the given one.

    Raises:
        ConfigError: its component takes none.
    """
    found = registry.get("tokenizer", tokenizer.qualified_name)
    if not any(key.name == "extra_tokens" for key in found.keys):
        raise ConfigError(
            f"restore.extra_tokens: the tokenizer {tokenizer.name!r} takes no further tokens. Leave it out."
        )
    own = tokenizer.params.get("extra_tokens") or []
    return replace(tokenizer, params={**tokenizer.params, "extra_tokens": [*own, *extra_tokens]})


def check_split(model: Choice, registry: Registry, tensor_model_parallel_size: int) -> None:
    """Check that the layers of a model, or of the encoder of a fine-tuned one, can be split over ranks.

    Raises:
        ConfigError: they cannot.
    """
    if tensor_model_parallel_size == 1:
        return
    key = f"parallel.tensor_model_parallel_size={tensor_model_parallel_size}"
    if model.params.get("encoder_training") == "lora":
        raise ConfigError(f"{key}: adapters of LoRA are not split. Merge them with task=convert task.to=huggingface.")
    # The encoders, if the model was fine-tuned.
    for split in [one for one in _nested(model) if one.group == "model"] or [model]:
        registered = registry.get("model", split.qualified_name)
        if "tensor_parallel" not in registered.component.capabilities:
            raise ConfigError(
                f"{key}: model {registered.qualified_name} does not declare 'tensor_parallel'. Leave it at 1."
            )


def check_plugins(spec: ModelSpec, registry: Registry, source: str) -> list[str]:
    """Check that the plugins of a model are installed; return a note for each with another version than saved.

    Raises:
        ArtefactError: a plugin is missing; the message names the distribution to install.
    """
    notes = []
    for choice in (spec.model, *_nested(spec.model), spec.tokenizer):
        found = registry.find(choice.group, choice.qualified_name)
        if found is None:
            raise ArtefactError(f"{source}: {_describe_missing(choice, registry)}")
        if choice.version and found.version != choice.version:
            notes.append(
                f"{choice.group} {choice.name!r} was saved with {choice.distribution} {choice.version}; "
                f"{found.version} is installed"
            )
    return notes


def _nested(choice: Choice) -> list[Choice]:
    """Return the components that a component is made of, such as encoder and head of a fine-tuned model."""
    keys = {"name", "params", "distribution", "version"}
    nested = []
    for key, value in choice.params.items():
        if isinstance(value, Mapping) and value.keys() >= keys:
            content = {name: value[name] for name in sorted(keys)}
            group = key.removeprefix("second_")
            nested.append(Choice(group if group in GROUPS else choice.group, **content))
    return nested


def _describe_missing(choice: Choice, registry: Registry) -> str:
    installed = [record for record in registry.records if record.distribution == choice.distribution]
    advice = (
        f"It is installed but cannot be used: {installed[0].describe()}."
        if installed
        else f"Install {choice.distribution}."
    )
    return (
        f"it needs {choice.group} {choice.name!r} of the distribution {choice.distribution!r} "
        f"(version {choice.version or 'unknown'}), which no loaded plugin offers. {advice}"
    )
