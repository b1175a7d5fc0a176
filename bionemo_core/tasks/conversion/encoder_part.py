"""The encoder of a fine-tuned model, as a model of the kind that the fine-tuning began with."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import nn

from bionemo_core.config.choice_params import FINETUNED, read_choice
from bionemo_core.errors import ConfigError
from bionemo_core.finetuning.lora import merge_adapters
from bionemo_core.finetuning.model.params import FineTunedParams
from bionemo_core.interop.load_report import LoadReport
from bionemo_core.models.load import OpenedModel
from bionemo_core.models.named_weights import network_tensors
from bionemo_core.nn.missing_weights import pass_on_missing
from bionemo_core.nn.residue_states import encoder_network
from bionemo_core.parallel.weights import network_of
from bionemo_core.protocols import BuildContext

if TYPE_CHECKING:
    from bionemo_core.plugins.registry import Registry

_PREFIX = "encoder_network."


@torch.no_grad()
def encoder_alone(opened: OpenedModel, registry: Registry) -> OpenedModel:
    """Return the encoder of a fine-tuned model, to whose weights adapters are added in place; the head is left out.

    What the encoder does not use, such as the head of its pre-training, has the weights that it had before.

    Raises:
        ConfigError: the model is not fine-tuned, or has two encoders.
    """
    model = opened.spec.model
    if model.name != FINETUNED:
        raise ConfigError(
            f"task.part=encoder: the model {model.name!r} is not fine-tuned, and has no parts. Leave it out."
        )
    params = FineTunedParams(**model.params)
    if params.second_encoder:
        raise ConfigError(
            "task.part=encoder: this model has two encoders, which only an artefact of the whole can hold. Leave it "
            "out."
        )
    choice = read_choice(params.encoder, "model")
    module = registry.build(choice, tokenizer=opened.tokenizer, context=BuildContext())
    source: nn.Module = encoder_network(network_of(opened.module))
    target = network_of(module)
    merge_adapters(source)
    tensors = network_tensors(source)
    for name, tensor in network_tensors(target).items():
        tensor.copy_(tensors[name])
    pass_on_missing(source, target)
    spec, report = replace(opened.spec, model=choice), _report_of_encoder(opened.report)
    return replace(opened, module=module.eval(), spec=spec, report=report)


def _report_of_encoder(report: LoadReport) -> LoadReport:
    """Return the part of a load report that is about the encoder."""

    def inside(names: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(name.removeprefix(_PREFIX) for name in names if name.startswith(_PREFIX))

    resized = tuple(
        replace(table, name=table.name.removeprefix(_PREFIX))
        for table in report.resized
        if table.name.startswith(_PREFIX)
    )
    notes = (*report.notes, "the encoder alone: the head of the fine-tuning is left out")
    matched, missing = inside(report.matched), inside(report.missing)
    return replace(report, matched=matched, missing=missing, resized=resized, notes=notes)
