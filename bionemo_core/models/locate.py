"""Locating a model: open what a path or address names, in any supported format, as a `StoredModel`."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bionemo_core.checkpoint.load import CheckpointReader, open_checkpoint, open_newest_valid
from bionemo_core.config.schema import Choice
from bionemo_core.config.spec import from_json
from bionemo_core.data.store.prepare import home_folder
from bionemo_core.errors import ArtefactError, ConfigError
from bionemo_core.interop.artefact import is_artefact, open_artefact
from bionemo_core.interop.connector import Connector, ForeignModel
from bionemo_core.interop.hub import fetch_model, is_address
from bionemo_core.interop.huggingface import is_huggingface_folder, read_huggingface
from bionemo_core.interop.nemo import read_nemo
from bionemo_core.interop.source_config import keep_config
from bionemo_core.interop.stored import ABSENT, AbsentParts, CheckpointTensors, InMemoryTensors, ModelSpec, StoredModel
from bionemo_core.io.http import hide_secrets
from bionemo_core.models.published import published_address, published_models
from bionemo_core.plugins.did_you_mean import did_you_mean
from bionemo_core.protocols import BuildContext

if TYPE_CHECKING:
    from bionemo_core.plugins.records import RegisteredComponent
    from bionemo_core.plugins.registry import Registry

log = logging.getLogger("bionemo")

FOREIGN = "foreign"
"""The placeholder name of a tokenizer that no plugin has."""

EXPECTED = (
    "a run folder (with run.json), a checkpoint folder of one (step-...), an artefact (a folder with artefact.json, or "
    "one .safetensors file), a .nemo archive, a Hugging Face folder (with config.json), a name of its hub "
    "(owner/model), an address (https://..., s3://bucket/model, ngc://org/model:version), or a name that `bionemo-run "
    "models` lists"
)


def open_stored(path: str, registry: Registry, connector: Choice | None = None, *, home: str = "") -> StoredModel:
    """Open and verify the model at `path`; its tensors are read on request.

    Args:
        path: a path, an address, a name of the Hugging Face hub, or the name of a model with published weights.
        registry: the registry in which connectors are looked up.
        connector: the connector that reads a foreign format; None: the one that recognises the model.
        home: the folder of the downloads; empty: $BIONEMO_HOME or ~/.bionemo.

    Raises:
        ArtefactError: it is damaged or not supported.
        CheckpointError: it has no valid checkpoint.
        ConfigError: `path` is not a model.
        NetworkError: it cannot be downloaded.
    """
    path = published_address(path, registry)
    if not is_address(path):
        return _open_path(path, registry, connector, home)
    downloaded = fetch_model(path, home_folder(BuildContext(home=home)))
    try:
        return _open_path(str(downloaded), registry, connector, home)
    except ArtefactError as error:
        folder = downloaded if downloaded.is_dir() else downloaded.parent
        raise ArtefactError(
            f"{error} It was downloaded from {hide_secrets(path) if '://' in path else path}. If the copy is damaged, "
            f"remove the folder {folder} to download it again."
        ) from error


def _open_path(path: str, registry: Registry, connector: Choice | None, home: str) -> StoredModel:
    source = Path(path).expanduser()
    if (source / "run.json").is_file():
        reader, skipped = open_newest_valid(source / "checkpoints")
        for checkpoint in skipped:
            log.warning("checkpoint %s is skipped: %s", checkpoint.path, checkpoint.reason)
        return _open_run(source, reader)
    if (source / "manifest.json").is_file():
        return _open_run(source.parent.parent, open_checkpoint(source))
    if is_artefact(source):
        return open_artefact(source)
    if is_huggingface_folder(source):
        return _open_foreign("huggingface", read_huggingface(source), source, registry, connector)
    if source.is_file():
        return _open_foreign("nemo", _read_archive(source), source, registry, connector)
    for folder in (source, home_folder(BuildContext(home=home)) / "runs" / source):
        if runs := _runs_in(folder):
            raise ConfigError(
                f"{path}: not a model, but a name of runs, of which {folder} holds {len(runs)}. Give the folder of "
                f"one. The newest is {runs[-1]}"
            )
    missing = "" if source.exists() else _describe_absence(source, registry, home)
    raise ConfigError(f"{path}: not a model.{missing} Expected {EXPECTED}.")


def _runs_in(folder: Path) -> list[Path]:
    """Return the runs in the folder of a name, such as `runs/NAME`, the newest last."""
    return sorted((path.parent for path in folder.glob("*/run.json")), key=lambda run: run.stat().st_mtime)


def _read_archive(path: Path) -> ForeignModel:
    try:
        return read_nemo(path)
    except ArtefactError as error:
        if path.suffix == ".nemo":
            raise
        raise ArtefactError(f"{error} If it is no such archive, it is not a model. Expected {EXPECTED}.") from error


def _describe_absence(path: Path, registry: Registry, home: str) -> str:
    """Say that there is nothing at `path`, and what has a similar name: a neighbour, published weights, or runs."""
    try:
        beside = sorted(entry.name for entry in path.parent.iterdir())
    except OSError:
        return f" There is no folder {path.parent}."
    if str(path) == path.name:
        runs = home_folder(BuildContext(home=home)) / "runs"
        beside += [model.name for model in published_models(registry)]
        beside += sorted(entry.name for entry in runs.iterdir()) if runs.is_dir() else []
    return f" There is nothing at this path.{did_you_mean(path.name, beside)}"


def _open_run(folder: Path, reader: CheckpointReader) -> StoredModel:
    spec_file = folder / "run.json"
    if not spec_file.is_file():
        reader.close()
        raise ArtefactError(
            f"{reader.folder}: {spec_file}, which describes the model, does not exist. Leave checkpoints in their "
            "run folder; to copy a model to another place, write an artefact with task=convert."
        )
    try:
        spec = from_json(spec_file.read_text())
    except (OSError, UnicodeDecodeError) as error:
        raise ArtefactError(f"{spec_file}: cannot be read: {error}.") from error
    training = {"run": spec.name, "step": reader.step, "consumed_samples": reader.consumed_samples, "seed": spec.seed}
    return StoredModel(
        source=str(reader.folder),
        format="run",
        spec=ModelSpec(spec.model, spec.tokenizer),
        tensors=CheckpointTensors(reader),
        facts={**training, **reader.facts},
        absent=AbsentParts.of_facts(reader.facts.get(ABSENT), str(reader.folder)),
        data=_last_data(folder, spec.data),
        close=reader.close,
    )


def _last_data(folder: Path, first: Choice) -> Choice:
    """Return the data of the last session of a run, whose files may have moved since the `first`."""
    try:
        return from_json((folder / "last_run.json").read_text()).data
    except (OSError, UnicodeDecodeError, ArtefactError):  # an earlier version wrote none
        return first


def _open_foreign(
    format_: str, foreign: ForeignModel, path: Path, registry: Registry, chosen: Choice | None
) -> StoredModel:
    registered, connector = _find_connector(format_, foreign, registry, chosen)
    reading = connector.read(foreign)
    distribution = registered.distribution
    return StoredModel(
        source=str(path),
        format=format_,
        spec=ModelSpec(
            complete_choice("model", reading.model, reading.params, distribution, registry),
            Choice("tokenizer", FOREIGN)
            if reading.tokenizer is None
            else complete_choice("tokenizer", reading.tokenizer, reading.tokenizer_params, distribution, registry),
        ),
        tensors=InMemoryTensors(reading.tensors),
        unexpected=reading.unexpected,
        notes=(f"read by connector {registered.qualified_name}", *reading.notes),
        absent=reading.absent,
        half_precision_notes=reading.half_precision_notes,
        carried=keep_config(reading.carried, foreign.config) if format_ == "nemo" else reading.carried,
        foreign_vocab_size=reading.vocab_size,
    )


def list_connectors(
    format_: str, registry: Registry, chosen: Choice | None
) -> list[tuple[RegisteredComponent, Connector]]:
    """Build the installed connectors of a format, or only the chosen one.

    Raises:
        ConfigError: the chosen one is for another format, or one cannot be built.
    """
    if chosen is None:
        offered = [
            (component, Choice("connector", component.qualified_name)) for component in registry.components("connector")
        ]
    else:
        offered = [(registry.get("connector", chosen.qualified_name), chosen)]
    built = [(registered, registry.build(choice)) for registered, choice in offered]
    for registered, connector in built:
        if not isinstance(connector, Connector):
            raise ConfigError(
                f"connector {registered.qualified_name}: expected a class with recognises, read, write, format and "
                "models; one of them is missing."
            )
        if chosen is not None and connector.format != format_:
            raise ConfigError(f"connector={chosen.name} is for the format {connector.format}, but this is {format_}.")
    return [(registered, connector) for registered, connector in built if connector.format == format_]


def _find_connector(
    format_: str, foreign: ForeignModel, registry: Registry, chosen: Choice | None
) -> tuple[RegisteredComponent, Connector]:
    offered = list_connectors(format_, registry, chosen)
    if chosen is not None:
        return offered[0]
    found: list[tuple[RegisteredComponent, Connector]] = []
    for fallback in (False, True):  # one for any model is asked only about those that have no plugin of their own
        asked = [one for one in offered if getattr(one[1], "fallback", False) is fallback]
        found = found or [one for one in asked if one[1].recognises(foreign.config)]
    if len(found) == 1:
        return found[0]
    if found:
        names = " or ".join(f"connector={registered.qualified_name}" for registered, _ in found)
        raise ConfigError(f"{foreign.where}: {len(found)} connectors recognise it. Choose one: {names}.")
    stated = {
        key: str(foreign.config.values[key])[:120] for key in ("target", "model_type") if key in foreign.config.values
    }
    installed = ", ".join(registered.qualified_name for registered, _ in offered) or "none"
    raise ArtefactError(
        f"{foreign.where}: no installed plugin recognises this model ({stated or 'it does not say what it is'}). "
        f"Installed connectors for {format_}: {installed}. Install the plugin of that model, or choose a connector "
        "with connector=NAME."
    )


def complete_choice(group: str, name: str, params: Any, distribution: str, registry: Registry) -> Choice:
    """Return the choice of a component of `distribution` with all its parameters, defaults included.

    Raises:
        ConfigError: there is no such component, or a parameter does not fit.
    """
    registered = registry.get(group, f"{distribution}/{name}")
    settings = registered.complete(params)
    return Choice(group, registered.name, settings, registered.distribution, registered.version)
