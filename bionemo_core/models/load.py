"""Models from wherever they lie, built again through the registry and filled with their weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch

from bionemo_core.config.schema import Choice, Restore
from bionemo_core.errors import ArtefactError, ConfigError
from bionemo_core.interop.load_report import LoadReport
from bionemo_core.interop.stored import ModelSpec, StoredModel, Vocabulary
from bionemo_core.models.locate import complete_choice, open_stored
from bionemo_core.parallel.groups import start_groups
from bionemo_core.parallel.transfer import Vocabularies, fit_weights
from bionemo_core.protocols import BuildContext, Tokenizer

if TYPE_CHECKING:
    import pytorch_lightning as pl

    from bionemo_core.plugins.registry import Registry

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class OpenedModel:
    """A model with its weights, in evaluation mode, and what was found beside them."""

    module: pl.LightningModule
    tokenizer: Tokenizer
    spec: ModelSpec
    facts: dict[str, Any]
    report: LoadReport
    data: Choice | None = None
    """What it was trained on; None where nothing says that."""


def open_model(
    path: str,
    registry: Registry,
    *,
    device: str = "cpu",
    dtype: str = "float32",
    overrides: Mapping[str, Any] | None = None,
    strict: bool = True,
    restore: Restore | None = None,
    connector: Choice | None = None,
    home: str = "",
) -> OpenedModel:
    """The model that lies at `path`, on `device` and in `dtype`.

    Args:
        path: a run folder (its newest checkpoint that verifies) or one checkpoint folder, an artefact, a `.nemo`
            archive, a Hugging Face folder or id, or an address.
        registry: where its model and tokenizer are looked up by name.
        device: cpu, cuda or cuda:N.
        dtype: float32, bfloat16 or float16, of weights and computation.
        overrides: parameters of the model that shall differ from those it was saved with.
        strict: refuse it if a tensor is missing or unexpected.
        restore: how tables of another size are fitted; `strict` is then its own.
        connector: the one that reads a foreign format; without it, the one that recognises the model.
        home: where downloads are kept; $BIONEMO_HOME or ~/.bionemo without it.

    Raises:
        ArtefactError: it is refused, or needs a plugin that is not installed.
        CheckpointError: no checkpoint in it verifies, or the weights do not fit.
        ConfigError: `path` is nothing that can be opened, or an override does not fit.
    """
    stored = open_stored(path, registry, connector, home=home)
    try:
        return load_stored(
            stored,
            registry,
            device=device,
            dtype=dtype,
            overrides=overrides or {},
            restore=restore or Restore(strict=strict),
        )
    finally:
        stored.close()


def load_stored(
    stored: StoredModel,
    registry: Registry,
    *,
    device: str = "cpu",
    dtype: str = "float32",
    overrides: Mapping[str, Any],
    restore: Restore,
) -> OpenedModel:
    """The same of a source that is open already.

    Raises:
        BioNeMoError: as `open_model`.
    """
    if dtype not in DTYPES:
        raise ConfigError(f"dtype: got {dtype!r}, expected one of {', '.join(DTYPES)}.")
    if stored.foreign_vocab_size is not None:
        raise ArtefactError(
            f"{stored.source}: its vocabulary of {stored.foreign_vocab_size} pieces is none that the plugin has a "
            "tokenizer for. It can seed a model in training, by restore_from_path with restore.vocabulary=tile or mean."
        )
    notes = check_plugins(stored.spec, registry, stored.source)
    model, tokenizer_choice = stored.spec.model, stored.spec.tokenizer
    params = {**model.params, **overrides}
    spec = ModelSpec(complete_choice("model", model.name, params, model.distribution, registry), tokenizer_choice)
    context = BuildContext(device=device.partition(":")[0], dtype=dtype)
    tokenizer = registry.build(spec.tokenizer, context=context)
    check_vocabulary(stored, tokenizer)
    module = registry.build(spec.model, tokenizer=tokenizer, context=context)
    report = fit_weights(
        getattr(module, "network", module),
        start_groups(),
        replace(stored, notes=(*stored.notes, *notes)),
        restore,
        Vocabularies(tokenizer.vocab_size, tokenizer.vocab_size),
    )
    module.to(device=torch.device(device), dtype=DTYPES[dtype]).eval()
    return OpenedModel(module, tokenizer, spec, dict(stored.facts), report, stored.data)


def check_vocabulary(stored: StoredModel, tokenizer: Tokenizer) -> None:
    """Accepts a tokenizer that has the pieces it had when the model was stored.

    Raises:
        ArtefactError: it has others, so that ids would mean something else.
    """
    built = Vocabulary.of(tokenizer.pieces)
    if stored.vocabulary is not None and built != stored.vocabulary:
        raise ArtefactError(
            f"{stored.source}: tokenizer {stored.spec.tokenizer.name!r} of {stored.spec.tokenizer.distribution} builds "
            f"{built.size} pieces ({built.sha256[:12]}...), it was stored with {stored.vocabulary.size} "
            f"({stored.vocabulary.sha256[:12]}...). Install the version {stored.spec.tokenizer.version} of that plugin."
        )


def check_plugins(spec: ModelSpec, registry: Registry, source: str) -> list[str]:
    """Accepts a model whose components are installed; notes where their version is not the one it was made with.

    Raises:
        ArtefactError: a plugin is missing; names the distribution to install.
    """
    notes = []
    for choice in (spec.model, spec.tokenizer):
        found = registry.find(choice.group, f"{choice.distribution}/{choice.name}")
        if found is None:
            raise ArtefactError(f"{source}: {_describe_missing(choice, registry)}")
        if choice.version and found.version != choice.version:
            notes.append(
                f"{choice.group} {choice.name!r} was saved with {choice.distribution} {choice.version}; "
                f"{found.version} is installed"
            )
    return notes


def _describe_missing(choice: Choice, registry: Registry) -> str:
    there = [one for one in registry.records if one.distribution == choice.distribution]
    state = f"It is here, but not so: {there[0].describe()}." if there else f"Install {choice.distribution}."
    return (
        f"it needs {choice.group} {choice.name!r} of the distribution {choice.distribution!r} "
        f"(version {choice.version or 'unknown'}), which no loaded plugin offers. {state}"
    )
