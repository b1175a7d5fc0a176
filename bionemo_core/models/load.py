"""Loading a model: build it through the registry and fill it with its stored weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch

from bionemo_core.config.schema import Choice, Restore
from bionemo_core.errors import ArtefactError, ConfigError, NonFiniteError
from bionemo_core.inference.embedding.contact_head import note_contact_head
from bionemo_core.interop.load_report import LoadReport
from bionemo_core.interop.stored import ModelSpec, StoredModel
from bionemo_core.models.compatibility import check_plugins, check_split, check_vocabulary, extend_vocabulary
from bionemo_core.models.locate import complete_choice, open_stored
from bionemo_core.nn.missing_weights import note_missing
from bionemo_core.parallel.groups import start_groups
from bionemo_core.parallel.transfer import Vocabularies, transfer_weights
from bionemo_core.parallel.weights import network_of
from bionemo_core.protocols import BuildContext, Tokenizer

if TYPE_CHECKING:
    import pytorch_lightning as pl

    from bionemo_core.plugins.registry import Registry

MEAN = "mean"
"""How the rows of added tokens are made, unless `restore.vocabulary` says it."""

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class OpenedModel:
    """A model with its weights, in evaluation mode, and what its source records about it."""

    module: pl.LightningModule
    tokenizer: Tokenizer
    spec: ModelSpec
    facts: dict[str, Any]
    report: LoadReport
    data: Choice | None = None
    """The data that it was trained on; None if the source does not record it."""
    split_fingerprint: str | None = None
    """The fingerprint of the parts of all ranks; None if this process holds the whole model."""


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
    tensor_model_parallel_size: int = 1,
) -> OpenedModel:
    """Open the model at `path`, on `device` and in `dtype`.

    Args:
        path: a run folder (its newest valid checkpoint), one checkpoint folder, an artefact, a `.nemo` archive, a
            Hugging Face folder or id, or an address.
        registry: the registry in which its model and tokenizer are looked up by name.
        device: cpu, cuda or cuda:N.
        dtype: float32, bfloat16 or float16, of weights and computation.
        overrides: parameters of the model that replace those it was saved with.
        strict: fail if a tensor is missing or unexpected; not used if `restore` is given. Either way a later use that
            needs a missing tensor fails and names it.
        restore: how tables of another size are fitted, and whether loading is strict.
        connector: the connector that reads a foreign format; None: the one that recognises the model.
        home: the folder of the downloads; empty: $BIONEMO_HOME or ~/.bionemo.
        tensor_model_parallel_size: ranks that each hold a part of the layers; they all open it.

    Raises:
        ArtefactError: it is damaged or not supported, or needs a plugin that is not installed.
        CheckpointError: it has no valid checkpoint, or the weights do not fit.
        ConfigError: `path` is not a model, or an override does not fit.
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
            tensor_model_parallel_size=tensor_model_parallel_size,
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
    tensor_model_parallel_size: int = 1,
) -> OpenedModel:
    """Build a model that is already located and opened; the other arguments are those of `open_model`.

    Raises:
        BioNeMoError: as `open_model`.
    """
    _check_use(stored, dtype)
    notes = check_plugins(stored.spec, registry, stored.source)
    if dtype != "float32":
        notes += stored.half_precision_notes
    model, tokenizer_choice = stored.spec.model, stored.spec.tokenizer
    params = {**model.params, **overrides}
    spec = ModelSpec(complete_choice("model", model.name, params, model.distribution, registry), tokenizer_choice)
    check_split(spec.model, registry, tensor_model_parallel_size)
    context = BuildContext(
        device=device.partition(":")[0], dtype=dtype, tensor_model_parallel_size=tensor_model_parallel_size
    )
    tokenizer = registry.build(spec.tokenizer, context=context)
    check_vocabulary(stored, tokenizer)
    stored_size = tokenizer.vocab_size
    if restore.extra_tokens:
        spec = replace(spec, tokenizer=extend_vocabulary(spec.tokenizer, restore.extra_tokens, registry))
        restore = replace(restore, vocabulary=restore.vocabulary or MEAN)
        tokenizer = registry.build(spec.tokenizer, context=context)
    module = registry.build(spec.model, tokenizer=tokenizer, context=context)
    network = network_of(module)
    report = transfer_weights(
        network,
        start_groups(tensor_model_parallel_size),
        replace(stored, notes=(*stored.notes, *notes)),
        restore,
        Vocabularies(tokenizer.vocab_size, stored_size),
        absent_allowed=True,
    )
    note_missing(network, report.unfilled, report.source, report.absent_note)
    note_contact_head(network, stored.carried.tensors)
    module.to(device=torch.device(device), dtype=DTYPES[dtype]).eval()
    check_finite(network, report.source)
    return OpenedModel(module, tokenizer, spec, dict(stored.facts), report, stored.data)


def _check_use(stored: StoredModel, dtype: str) -> None:
    """Check that the dtype is known, and that the model has a tokenizer here.

    Raises:
        ArtefactError: it has none.
        ConfigError: the dtype is unknown.
    """
    if dtype not in DTYPES:
        raise ConfigError(f"dtype: got {dtype!r}, expected one of {', '.join(DTYPES)}.")
    if stored.foreign_vocab_size is not None:
        raise ArtefactError(
            f"{stored.source}: the plugin has no tokenizer for its vocabulary of {stored.foreign_vocab_size} pieces. "
            "It can only initialise a model for training: restore_from_path with restore.vocabulary=tile or mean."
        )


def check_finite(network: torch.nn.Module, source: str) -> None:
    """Check that no weight is NaN or infinite, because every result of such a model would be wrong.

    Raises:
        NonFiniteError: one is; the message names it.
    """
    for name, weight in network.named_parameters():
        if weight.is_floating_point() and not torch.isfinite(weight).all():
            count = int((~torch.isfinite(weight)).sum())
            half = "" if weight.dtype == torch.float32 else f" in {weight.dtype}. Set trainer.precision=32, or use"
            raise NonFiniteError(
                f"{source}: {count:,} of the {weight.numel():,} values of the weight {name} are NaN or infinite"
                f"{half or '. Use'} a sound copy of the model, or an earlier checkpoint."
            )
