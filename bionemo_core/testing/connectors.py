"""Checks of a connector: what it writes it reads again, and a foreign implementation computes the same from it."""

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from bionemo_core.config.schema import Choice, Restore
from bionemo_core.errors import BioNeMoError, ConfigError
from bionemo_core.plugins import RegisteredComponent
from bionemo_core.protocols import BuildContext
from bionemo_core.testing.capabilities import batch_of, examples_of
from bionemo_core.testing.networks import largest_difference
from bionemo_core.testing.references import Outputs, Reference, from_transformers, our_outputs
from bionemo_core.testing.runs import BuiltModel, alone_in_process, build_model, kept_generators
from bionemo_core.testing.subject import Subject, explain_failures, fail

if TYPE_CHECKING:
    from torch import Tensor

    from bionemo_core.interop.connector import Connector, ForeignModel, OurModel, Reading

FORMATS = ("nemo", "huggingface")
NOISE = 0.05
TOLERANCE = 1e-5
REFERENCE_TOLERANCE = 1e-4
SMALL_VALUE, CLEAR_VALUE = 1e-3, 0.05
"""A parameter below the first, such as an epsilon, is set to the second, so that its loss would change what a model
computes; any other number is halved, a whole one too."""


def check_connector(
    subject: Subject, registered: RegisteredComponent, models: list[RegisteredComponent], reference: Reference | None
) -> None:
    """Check that models survive the way to the foreign format and back, and compute the same there.

    Args:
        subject: the plugin.
        registered: the connector.
        models: the plugin's models that are tested.
        reference: computes with the foreign model; None: `transformers` for Hugging Face, else nothing is compared.

    Raises:
        ConformanceError: a tensor, a parameter or an output differs; the message names it.
    """
    where = f"connector {registered.name!r}"
    connector = subject.build(registered)
    _check_members(where, connector, subject)
    tested = [model for model in models if model.name in connector.models]
    if not tested:
        tested = [model for model in subject.components("model") if model.name in connector.models][:1]
    if reference is None and connector.format == "huggingface":
        reference = from_transformers
    for model in tested:
        with alone_in_process(), kept_generators(), explain_failures(f"{where}, model {model.name!r}"):
            _check_model(f"{where}, model {model.name!r}", subject, connector, model, reference)


def _check_members(where: str, connector: Any, subject: Subject) -> None:
    from bionemo_core.interop.connector import Connector

    if not isinstance(connector, Connector):
        fail(f"{where}: its factory returns {type(connector).__name__}, which lacks a member of interop.Connector.")
    if connector.format not in FORMATS:
        fail(f"{where}: format is {connector.format!r}, expected one of {', '.join(FORMATS)}.")
    offered = {model.name for model in subject.components("model")}
    if not connector.models or not set(connector.models) <= offered:
        fail(f"{where}: models is {sorted(connector.models)}, expected names of the plugin's own models.")
    from bionemo_core.interop.foreign_config import ForeignConfig

    if connector.recognises(ForeignConfig({}, "an empty configuration")):
        fail(f"{where}: it recognises an empty configuration, so it would claim every model of its format.")


def _check_model(
    where: str, subject: Subject, connector: "Connector", model: RegisteredComponent, reference: Reference | None
) -> None:
    built = _with_noise(build_model(subject, model))
    foreign = _write(where, connector, built)
    _check_config(where, connector, foreign)
    reading = connector.read(foreign)
    _check_reading(where, connector, built, reading)
    _compare(where, built, _open(where, subject, connector, model, built, reading))
    _check_parameters(where, subject, connector, model)
    if reference is not None:
        _compare_outputs(where, reference(foreign, *_ids(built)), our_outputs(built, *_ids(built)))


def _with_noise(built: BuiltModel) -> BuiltModel:
    """Add noise to every parameter, so that no swap hides behind equal values."""
    import torch

    torch.manual_seed(0)
    built.module.eval()
    with torch.no_grad():
        for parameter in built.module.parameters():
            parameter.add_(torch.randn_like(parameter) * NOISE)
    return built


def _write(where: str, connector: "Connector", built: BuiltModel) -> "ForeignModel":
    try:
        return connector.write(_ours(built))
    except ConfigError as error:
        fail(
            f"{where}: it refuses the model: {error} Leave it out of the connector's `models`, or give the tests "
            f"parameters that the format can express: `parameters = {{'model/{built.spec.model.name}': {{...}}}}`."
        )


def _ours(built: BuiltModel) -> "OurModel":
    from bionemo_core.interop.connector import OurModel

    return OurModel(built.spec.model.name, built.spec.model.params, built.tokenizer, _tensors(built))


def _tensors(built: BuiltModel) -> "dict[str, Tensor]":
    from bionemo_core.models.named_weights import network_tensors

    return network_tensors(getattr(built.module, "network", built.module))


def _check_config(where: str, connector: "Connector", foreign: "ForeignModel") -> None:
    try:
        plain = json.loads(json.dumps(foreign.config.values, allow_nan=False))
    except (TypeError, ValueError) as error:
        fail(f"{where}: the configuration that it writes is not plain: {error}.")
    if plain != dict(foreign.config.values):
        fail(f"{where}: the configuration that it writes changes in JSON; use text keys, lists, and plain values.")
    if not connector.recognises(foreign.config):
        fail(f"{where}: `recognises` is false for the configuration that `write` made.")


def _check_reading(where: str, connector: "Connector", built: BuiltModel, reading: "Reading") -> None:
    import torch

    if reading.unexpected:
        fail(f"{where}: `read` finds no counterpart for {reading.unexpected[0]!r}, which `write` made.")
    ours = _tensors(built)
    for name in sorted(ours.keys() | reading.tensors.keys()):
        if name not in reading.tensors or name not in ours:
            fail(f"{where}: tensor {name!r} is {'lost' if name in ours else 'added'} on the way there and back.")
        before, after = ours[name], reading.tensors[name]
        rows = built.tokenizer.vocab_size if after.shape != before.shape else before.shape[0] if before.dim() else None
        if not torch.equal(before[:rows] if rows else before, after[:rows] if rows else after):
            fail(f"{where}: tensor {name!r} has other values or another shape after writing and reading it.")
    for key, value in reading.params.items():
        given = built.spec.model.params.get(key)
        if given is not None and given != value:
            fail(f"{where}: the parameter {key}={given!r} is {value!r} after writing and reading it.")


def _open(
    where: str,
    subject: Subject,
    connector: "Connector",
    model: RegisteredComponent,
    built: BuiltModel,
    reading: "Reading",
) -> Any:
    """Return the module that the reading describes, with its weights, as `open_model` does."""
    from bionemo_core.interop.stored import InMemoryTensors, ModelSpec, StoredModel
    from bionemo_core.models.load import load_stored
    from bionemo_core.models.locate import complete_choice

    if reading.tokenizer is None:
        fail(f"{where}: `read` finds no tokenizer for the vocabulary that `write` wrote.")
    distribution = model.distribution
    chosen = complete_choice("model", reading.model, reading.params, distribution, subject.registry)
    tokenizer = complete_choice(
        "tokenizer", reading.tokenizer, reading.tokenizer_params, distribution, subject.registry
    )
    _check_alphabet(where, subject, tokenizer, built)
    stored = StoredModel(
        "the foreign model", connector.format, ModelSpec(chosen, tokenizer), InMemoryTensors(reading.tensors)
    )
    return load_stored(stored, subject.registry, overrides={}, restore=Restore()).module


def _check_alphabet(where: str, subject: Subject, choice: Choice, built: BuiltModel) -> None:
    """Check that the tokenizer that the reading names has the ids of the model's own."""
    read = subject.registry.build(choice, context=BuildContext(home=built.spec.home))
    pairs = enumerate(zip(built.tokenizer.pieces, read.pieces, strict=False))
    wrong = next((f"id {i} is {theirs!r}, not {ours!r}" for i, (ours, theirs) in pairs if ours != theirs), None)
    if wrong is None and read.vocab_size != built.tokenizer.vocab_size:
        wrong = f"it has {read.vocab_size} pieces, not {built.tokenizer.vocab_size}"
    if wrong:
        fail(
            f"{where}: `read` names the tokenizer {choice.name!r}, which is not that of the model: {wrong}. The model "
            "would read every text wrongly."
        )


def _compare(where: str, built: BuiltModel, module: Any) -> None:
    """Check that the model computes the same before and after."""
    before, after = (_loss(one, built) for one in (built.module, module))
    if not abs(before - after) <= TOLERANCE * abs(before):
        fail(
            f"{where}: the model has the loss {before:.7f} before and {after:.7f} after writing and reading it. Every "
            "parameter that changes what it computes must be in the foreign configuration, or `write` must refuse it."
        )


def _loss(module: Any, built: BuiltModel) -> float:
    import torch

    from bionemo_core.training.losses import Losses

    with torch.no_grad():
        losses = Losses.of(module.network(batch_of(examples_of(built), built, packed=False)))
    return float(losses.tokens + losses.sequences)


def _check_parameters(where: str, subject: Subject, connector: "Connector", model: RegisteredComponent) -> None:
    """Change each number and switch of the model, and check that the change survives or is refused."""
    base = build_model(subject, model)
    for name, value in base.spec.model.params.items():
        if type(value) is bool:
            changed: Any = not value
        elif type(value) is int and value > 1:
            changed = value // 2
        elif type(value) is float and value > 0:
            changed = CLEAR_VALUE if value < SMALL_VALUE else value / 2
        else:
            continue
        choice: Choice = replace(base.spec.model, params={**base.spec.model.params, name: changed})
        spec = replace(base.spec, model=choice)
        try:
            built = _with_noise(build_model(subject, model, spec))
            foreign = connector.write(_ours(built))
        except (BioNeMoError, AssertionError):
            continue  # a value that the model or the format does not admit
        reading = connector.read(foreign)
        varied = f"{where} with {name}={changed}"
        _check_reading(varied, connector, built, reading)
        _compare(varied, built, _open(varied, subject, connector, model, built, reading))


def _ids(built: BuiltModel) -> tuple[list[int], list[int]]:
    """Return the input ids of the encoder and of a decoder."""
    tokenizer = built.tokenizer
    limit = getattr(built.module.objective, "max_tokens", built.module.seq_length - 2)
    source, target = (tokenizer.encode(built.splits.train[index])[:limit].tolist() for index in (0, 1))
    if hasattr(built.module.network, "hidden_states"):
        source = [tokenizer.bos_id, *source, tokenizer.eos_id]
    return source, [tokenizer.bos_id, *target[: limit // 4]]


def _compare_outputs(where: str, theirs: Outputs, ours: Outputs) -> None:
    shared = theirs.keys() & ours.keys()
    if not shared:
        fail(f"{where}: the reference returns {sorted(theirs)}, of which ours computes none: {sorted(ours)}.")
    for name in sorted(shared):
        distance = largest_difference(np.asarray(theirs[name], dtype=np.float32), ours[name])
        if not distance <= REFERENCE_TOLERANCE:
            fail(
                f"{where}: the {name} of the written model, computed by the foreign implementation, differ by "
                f"{distance:.4f} of the largest from ours. Reading it back hides a mistake that `write` and `read` "
                "share, such as query and key swapped: compare the names of both formats."
            )
