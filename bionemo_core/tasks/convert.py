"""The task `convert`: open a model through the registry, check each tensor, and write it in another format."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from bionemo_core.config.choice_params import FINETUNED
from bionemo_core.config.schema import Choice, RunSpec
from bionemo_core.errors import ConfigError
from bionemo_core.finetuning.peft_folder import is_peft_folder
from bionemo_core.finetuning.peft_models import convert_to_peft, merge_peft
from bionemo_core.interop.artefact import Artefact, write_artefact
from bionemo_core.interop.connector import Connector, OurModel
from bionemo_core.interop.huggingface import write_huggingface
from bionemo_core.interop.load_report import preview_names
from bionemo_core.interop.nemo import write_nemo
from bionemo_core.interop.source_config import write_with_source_config
from bionemo_core.interop.stored import ABSENT, StoredModel, Vocabulary
from bionemo_core.models.load import DTYPES, OpenedModel, load_stored
from bionemo_core.models.locate import list_connectors, open_stored
from bionemo_core.models.named_weights import named_weights
from bionemo_core.nn.missing_weights import missing_parts, require_weights
from bionemo_core.nn.residue_states import encoder_network, encoder_of
from bionemo_core.parallel.weights import network_of
from bionemo_core.plugins.did_you_mean import did_you_mean
from bionemo_core.runs.plan_text import quieten_libraries
from bionemo_core.tasks.conversion.encoder_part import encoder_alone
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

_ENCODER = "The encoder of a fine-tuned run, with its adapters added, is restore_from_path=RUN task.part=encoder."


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
    if settings.part:
        opened = encoder_alone(opened, registry)
    if settings.adapter and form != PEFT:
        opened = merge_peft(opened, settings.adapter, registry)
    print(opened.report.text(), flush=True)
    if form == PEFT:
        count = convert_to_peft(opened, spec.restore_from_path, settings.adapter or "", target, registry)
        content = f"adapters of {count} layers, without the head"
    else:
        content = _Conversion(settings, form, target, stored, opened, spec.connector, registry).write()
    opened.report.write(target, beside=True)
    print(f"{'written':>10}  {target} ({form}, {content})", flush=True)
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
    if settings.part not in (None, "encoder"):
        raise ConfigError(f"task.part: got {settings.part!r}, expected encoder, or null for the whole model.")
    if settings.part and settings.adapter:
        raise ConfigError(
            "task.part=encoder: the run itself has its adapters. Give it as restore_from_path, without task.adapter."
        )
    if form == PEFT and not settings.adapter:
        raise ConfigError(
            "task.to=peft: set task.adapter=RUN/adapter, the adapters of a run with task.encoder=lora, and as "
            "restore_from_path the model that this run began with."
        )
    if form != PEFT and settings.adapter and not is_peft_folder(settings.adapter):
        whole = "The artefact of a model with the adapters and head of a fine-tuning is RUN/model."
        raise ConfigError(
            f"task.adapter={settings.adapter}: not a folder of peft (with adapter_config.json). "
            f"{whole if form == 'artefact' else _ENCODER}"
        )
    if settings.license is not None and form != "huggingface":
        raise ConfigError("task.license: only a Hugging Face folder has a model card. Set task.to=huggingface.")
    if settings.push_to is not None and form != "huggingface":
        raise ConfigError("task.push_to: only a Hugging Face folder can be pushed. Set task.to=huggingface.")
    check_license(settings.license)
    return form


@dataclass(frozen=True)
class _Conversion:
    """A model that was opened, and the form in which it is written."""

    settings: Convert
    form: str
    target: Path
    stored: StoredModel
    opened: OpenedModel
    connector: Choice | None
    """The connector that writes a foreign format; None: the one of the model's plugin."""
    registry: Registry

    def write(self) -> str:
        """Write the model, and return what the target holds.

        Raises:
            ArtefactError: the model lacks a weight of its encoder.
            ConfigError: the form needs a tensor that was not loaded, or no connector can write it.
        """
        network, report = network_of(self.opened.module), self.opened.report
        require_weights(encoder_network(network), "task=convert", _unread(network))
        if self.form in EXPORTS:
            worst = export_encoder(self.target, self.form, self.opened, encoder_network(network))
            return f"the encoder; within {worst:.0e} of the network's states"
        if report.unfilled and self.form != "artefact":
            raise ConfigError(
                f"task.to={self.form}: the format needs tensors that {self.stored.source} does not have: "
                f"{preview_names(report.unfilled)}. Write an artefact of what is there with task.to=artefact."
            )
        tensors = {name: tensor.detach() for name, tensor in named_weights(network)}
        if self.form == "artefact":
            self._write_artefact(tensors, missing_parts(network).facts())
        else:
            self._write_foreign(tensors)
        return f"{sum(tensor.numel() for tensor in tensors.values()) / 1e6:,.1f}M numbers"

    @property
    def _shard_bytes(self) -> int:
        return self.settings.max_shard_mib * MIB

    def _write_artefact(self, tensors: dict[str, Tensor], absent: Any) -> None:
        # Only the name: a full path would reveal folders of this machine.
        source = {"format": self.stored.format, "name": Path(self.stored.source).name, "dtype": self.settings.dtype}
        origin: dict[str, Any] = source | ({ABSENT: absent} if absent else {})
        vocabulary = Vocabulary.of(self.opened.tokenizer.pieces)
        artefact = Artefact(self.opened.spec, vocabulary, training=self.opened.facts, origin=origin)
        dtype = DTYPES[self.settings.dtype]
        cast = {name: tensor.to(dtype) if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}
        write_artefact(self.target, artefact, cast, self.stored.carried, shard_bytes=self._shard_bytes)

    def _write_foreign(self, tensors: dict[str, Tensor]) -> None:
        connector, model = self._find_writer(), self.opened.spec.model
        ours = OurModel(model.name, model.params, self.opened.tokenizer, tensors, self.stored.carried)
        if self.form == "nemo":
            write_nemo(self.target, write_with_source_config(connector, ours))
            return
        theirs = connector.write(ours)
        card = Card(self.settings.push_to or self.target.name, self.settings.license, self.settings.adapter)

        def describe(folder: Path) -> str:
            equality = compare_folder(folder, connector, tensors)
            return write_card(card, self.stored, self.opened, theirs.config.values, theirs.files, equality)

        write_huggingface(self.target, theirs, shard_bytes=self._shard_bytes, describe=describe)

    def _find_writer(self) -> Connector:
        """Return the chosen connector, else one of the model's plugin.

        Raises:
            ConfigError: there is none for this model and form.
        """
        model = self.opened.spec.model
        for registered, connector in list_connectors(self.form, self.registry, self.connector):
            if model.name in connector.models and (self.connector or registered.distribution == model.distribution):
                return connector
        raise ConfigError(explain_no_writer(model, self.form))


def explain_no_writer(model: Choice, form: str) -> str:
    """Return why a model cannot be written in a foreign format, and what to do instead."""
    advice = "Use task.to=artefact."
    if model.name == FINETUNED:
        advice = "Write it with task.to=artefact, head included, or its encoder alone with task.part=encoder."
    return f"model {model.name!r} of {model.distribution}: no connector can write it as {form}. {advice}"
