"""The task `convert`: open a model through the registry, check each tensor, and write it in another format."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from bionemo_core.config.schema import RunSpec
from bionemo_core.errors import ConfigError
from bionemo_core.finetuning.peft_folder import is_peft_folder
from bionemo_core.finetuning.peft_models import convert_to_peft, merge_peft
from bionemo_core.interop.artefact import Artefact, write_artefact
from bionemo_core.interop.connector import OurModel
from bionemo_core.interop.huggingface import write_huggingface
from bionemo_core.interop.load_report import preview_names
from bionemo_core.interop.nemo import write_nemo
from bionemo_core.interop.source_config import write_with_source_config
from bionemo_core.interop.stored import ABSENT, StoredModel, Vocabulary
from bionemo_core.models.load import DTYPES, OpenedModel, load_stored
from bionemo_core.models.locate import list_connectors, open_stored
from bionemo_core.nn.missing_weights import missing_parts, require_weights
from bionemo_core.nn.residue_states import encoder_network, encoder_of
from bionemo_core.parallel.transfer import persistent_buffers
from bionemo_core.parallel.weights import network_of
from bionemo_core.plugins.did_you_mean import did_you_mean
from bionemo_core.runs.plan_text import quieten_libraries
from bionemo_core.tasks.conversion.export import EXPORTS, check_export, export_encoder
from bionemo_core.tasks.conversion.model_card import Card, check_license, write_card
from bionemo_core.tasks.conversion.push import Destination
from bionemo_core.tasks.conversion.read_back import compare_folder
from bionemo_core.tasks.settings import Convert

if TYPE_CHECKING:
    from bionemo_core.plugins.registry import Registry

PEFT = "peft"
FORMS = ("artefact", "nemo", "huggingface", PEFT, *EXPORTS)
MIB = 2**20


# Long: a chain of checks and one branch for each kind of format.
def convert(spec: RunSpec, registry: Registry, *, composed_yaml: str = "") -> None:
    """Run the task: write `task.output`, and print the load report.

    Raises:
        BioNeMoError: the task failed.
    """
    quieten_libraries()
    settings = Convert(**spec.task.params)
    form = _choose_form(settings)
    target = Path(settings.output).expanduser()
    if target.exists():
        raise ConfigError(f"task.output={settings.output}: already exists. Choose another name, or move it first.")
    if not spec.restore_from_path:
        raise ConfigError("task=convert: there is no model to convert. Set restore_from_path=PATH.")
    # Before the work: a hub that will not take the result says so now.
    hub = Destination(settings.push_to, private=settings.push_private) if settings.push_to else None
    stored, opened = _open_source(spec.restore_from_path, spec, form, registry)
    if form == PEFT:
        print(opened.report.text(), flush=True)
        count = convert_to_peft(opened, spec.restore_from_path, settings.adapter or "", target, registry)
        opened.report.write(target, beside=True)
        print(f"{'written':>10}  {target} (peft, adapters of {count} layers, without the head)")
        return
    if settings.adapter:
        opened = merge_peft(opened, settings.adapter, registry)
    print(opened.report.text(), flush=True)
    network = network_of(opened.module)
    require_weights(encoder_network(network), "task=convert", _unread(network))
    if form in EXPORTS:
        worst = export_encoder(target, form, opened, encoder_network(network))
        opened.report.write(target, beside=True)
        print(f"{'written':>10}  {target} ({form}, the encoder; within {worst:.0e} of the network's states)")
        return
    if opened.report.unfilled and form != "artefact":
        raise ConfigError(
            f"task.to={form}: the format needs tensors that {stored.source} does not have: "
            f"{preview_names(opened.report.unfilled)}. Write an artefact of what is there with task.to=artefact."
        )
    absent = missing_parts(network)
    tensors = {name: tensor for name, tensor in network_tensors(network).items() if not absent.cover(name)}
    shard_bytes = settings.max_shard_mib * MIB
    if form == "artefact":
        _write_artefact(target, stored, opened, tensors, DTYPES[settings.dtype], shard_bytes)
    else:
        card = Card(settings.push_to or target.name, settings.license, settings.adapter)
        _write_foreign(target, form, stored, opened, tensors, spec, registry, shard_bytes, card)
    opened.report.write(target, beside=True)
    print(
        f"{'written':>10}  {target} ({form}, {sum(t.numel() for t in tensors.values()) / 1e6:,.1f}M numbers)",
        flush=True,
    )
    if hub is not None:
        hub.send(target)
        print(f"{'pushed':>10}  {hub.address} ({'private' if settings.push_private else 'public'})")


def _open_source(path: str, spec: RunSpec, form: str, registry: Registry) -> tuple[StoredModel, OpenedModel]:
    # `connector` belongs to the reader if the target is an artefact, else to the writer.
    reader = spec.connector if form == "artefact" else None
    stored = open_stored(path, registry, reader, home=spec.home)
    try:
        return stored, load_stored(stored, registry, overrides={}, restore=spec.restore)
    finally:
        stored.close()


def network_tensors(network: nn.Module) -> dict[str, Tensor]:
    """Return the parameters and persistent buffers by name."""
    return {name: tensor.detach() for name, tensor in (*network.named_parameters(), *persistent_buffers(network))}


def _unread(network: nn.Module) -> tuple[str, ...]:
    """Return the parts without which a model still embeds; none may be absent from a model that cannot embed."""
    try:
        return encoder_of(network).unread
    except ConfigError:
        return ()


def _choose_form(settings: Convert) -> str:
    form = settings.to or ("nemo" if settings.output.endswith(".nemo") else "artefact")
    if form not in FORMS:
        raise ConfigError(f"task.to: got {form!r}.{did_you_mean(form, FORMS)} Known: {', '.join(FORMS)}.")
    if form in EXPORTS:
        check_export(form)
    if settings.dtype not in DTYPES:
        raise ConfigError(f"task.dtype: got {settings.dtype!r}. Known: {', '.join(DTYPES)}.")
    if settings.dtype != "float32" and form != "artefact":
        raise ConfigError(f"task.dtype={settings.dtype}: only an artefact can have another dtype than float32.")
    if form == PEFT and not settings.adapter:
        raise ConfigError("task.to=peft: set task.adapter=RUN/adapter, the adapters of a run with task.encoder=lora.")
    if form != PEFT and settings.adapter and not is_peft_folder(settings.adapter):
        raise ConfigError(
            f"task.adapter={settings.adapter}: not a folder of peft (with adapter_config.json). A model with the "
            "adapters of a fine-tuning is the folder `model` of its run: restore_from_path=RUN/model."
        )
    if settings.license is not None and form != "huggingface":
        raise ConfigError("task.license: only a Hugging Face folder has a model card. Set task.to=huggingface.")
    if settings.push_to is not None and form != "huggingface":
        raise ConfigError("task.push_to: only a Hugging Face folder can be pushed. Set task.to=huggingface.")
    check_license(settings.license)
    if settings.max_shard_mib < 1:
        raise ConfigError(f"task.max_shard_mib: got {settings.max_shard_mib}, expected 1 or more.")
    return form


def _write_artefact(
    target: Path,
    stored: StoredModel,
    opened: OpenedModel,
    tensors: dict[str, Tensor],
    dtype: torch.dtype,
    shard_bytes: int,
) -> None:
    # Only the name: a full path would reveal folders of this machine.
    name, dtype_name = Path(stored.source).name, str(dtype).removeprefix("torch.")
    origin: dict[str, Any] = {"format": stored.format, "name": name, "dtype": dtype_name}
    if absent := missing_parts(network_of(opened.module)).facts():
        origin[ABSENT] = absent
    vocabulary = Vocabulary.of(opened.tokenizer.pieces)
    artefact = Artefact(opened.spec, vocabulary, training=opened.facts, origin=origin)
    cast = {name: tensor.to(dtype) if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}
    write_artefact(target, artefact, cast, stored.carried, shard_bytes=shard_bytes)


def _write_foreign(
    target: Path,
    form: str,
    stored: StoredModel,
    opened: OpenedModel,
    tensors: dict[str, Tensor],
    spec: RunSpec,
    registry: Registry,
    shard_bytes: int,
    card: Card,
) -> None:
    choice = opened.spec.model
    usable = [
        connector
        for registered, connector in list_connectors(form, registry, spec.connector)
        if choice.name in connector.models and (spec.connector or registered.distribution == choice.distribution)
    ]
    if not usable:
        raise ConfigError(
            f"model {choice.name!r} of {choice.distribution}: no connector can write it as {form}. "
            "Use task.to=artefact."
        )
    connector = usable[0]
    ours = OurModel(choice.name, choice.params, opened.tokenizer, tensors, stored.carried)
    if form == "nemo":
        write_nemo(target, write_with_source_config(connector, ours))
        return
    theirs = connector.write(ours)

    def describe(folder: Path) -> str:
        equality = compare_folder(folder, connector, tensors)
        return write_card(card, stored, opened, theirs.config.values, theirs.files, equality)

    write_huggingface(target, theirs, shard_bytes=shard_bytes, describe=describe)
