"""The fine-tuned model: encoders of pre-trained models with a head, its loss, its objective and its metrics."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from bionemo_core.config.choice_params import read_choice
from bionemo_core.data.model_input import input_form, max_text_tokens
from bionemo_core.errors import ConfigError
from bionemo_core.finetuning.heads import Head, build_head
from bionemo_core.finetuning.label_spec import LabelSpec, read_kind
from bionemo_core.finetuning.lora import LoraSettings, add_adapters
from bionemo_core.finetuning.losses import build_loss, squared_error, yes_or_no
from bionemo_core.finetuning.metrics import AnswerMetrics
from bionemo_core.finetuning.model.params import ENCODERS, FineTunedParams
from bionemo_core.finetuning.network import FineTunedNetwork, StateScaler, encoder_blocks, hidden_size_of
from bionemo_core.finetuning.objective import LabelObjective
from bionemo_core.finetuning.pairs.contrastive import Contrastive
from bionemo_core.finetuning.pairs.features import num_features
from bionemo_core.finetuning.pairs.matching import MatchMetrics, TwoSides
from bionemo_core.finetuning.pairs.pair_objective import PairLabelObjective
from bionemo_core.finetuning.pairs.side_encoder import SideEncoder
from bionemo_core.nn.residue_states import MemoryEncoder, encoder_of, may_pack
from bionemo_core.plurals import format_count
from bionemo_core.training.module import LanguageModule

if TYPE_CHECKING:
    from bionemo_core.plugins.registry import Registry
    from bionemo_core.protocols import BuildContext, InputForm, Loss, Tokenizer


def build(params: FineTunedParams, tokenizer: Tokenizer, context: BuildContext, registry: Registry) -> LanguageModule:
    """Build a trainable model; the same seed gives the same head and adapters.

    Args:
        params: the parameters of the model.
        tokenizer: reads the sequences, of pairs the first ones.
        context: the run that the model is built for.
        registry: where encoders, head and loss are looked up.

    Raises:
        ConfigError: a parameter cannot be used.
        ArtefactError: the description of an encoder, a tokenizer or the head is incomplete.
    """
    params = replace(params, kind=read_kind(params.kind, "task.kind"))
    if params.encoder_training not in ENCODERS:
        raise ConfigError(f"task.encoder: got {params.encoder_training!r}, expected one of {', '.join(ENCODERS)}.")
    base: Any = registry.build(read_choice(params.encoder, "model"), tokenizer=tokenizer, context=context)
    second = SideEncoder.build_second(asdict(params), params.text_form, registry, context)
    first = SideEncoder(base, tokenizer, _input_form(params, base, tokenizer))
    head_settings = registry.build(read_choice(params.head, "head"))
    torch.manual_seed(context.seed)
    loss = build_loss(params.loss, params.loss_params, registry)
    head, hidden_size = _build_head(params, head_settings, hidden_size_of(first.network))
    for encoder in (first.network, *([second.network] if second else [])):
        _choose_trained_weights(params, encoder)
    if params.label_spec.matching:
        loss = loss or Contrastive()
    module = LanguageModule(
        _network(params, first, second, head, hidden_size, loss),
        _objective(params, first, second),  # type: ignore[arg-type]  # its records have labels
        seq_length=base.seq_length,
        probes=[_metrics(params.label_spec, loss)],
        loss_unit=_loss_unit(params.label_spec, loss),
    )
    _describe(module, params, first, second)
    return module


def _input_form(params: FineTunedParams, base: Any, tokenizer: Tokenizer) -> InputForm:
    """Return the form in which the encoder of a model gets a text.

    Raises:
        ConfigError: there is an output for each residue, and the encoder has no state for each.
    """
    encoder = encoder_of(base.network, input_form(tokenizer, params.text_form))
    if params.label_spec.per_residue and encoder.fixed_states is not None:
        raise ConfigError(
            f"task.kind={params.kind}: {params.encoder['name']} has {encoder.fixed_states} states per sequence "
            "and none per residue. Choose a kind for whole sequences, or another model."
        )
    return encoder.form


def _build_head(params: FineTunedParams, settings: Head, hidden_size: int) -> tuple[nn.Module, int]:
    """Return the head, and the width of the states that it reads; `hidden_size` is the width of the first encoder.

    Raises:
        ConfigError: the head does not fit.
    """
    label_spec, second_size = params.label_spec, params.second.get("hidden_size")
    if label_spec.matching:
        sizes = hidden_size, second_size or hidden_size
        sides = [build_head(settings, size, params.projection_size, False, key="task.head") for size in sizes]
        return TwoSides(*sides, first_size=hidden_size), sum(sizes)
    width = num_features(hidden_size, second_size) if params.pairs else hidden_size
    head: Any = build_head(settings, width, label_spec.outputs, label_spec.per_residue, key="task.head")
    if params.linear_start and hasattr(head, "start_at_zero"):
        head.start_at_zero()
    return head, width


def _choose_trained_weights(params: FineTunedParams, encoder: nn.Module) -> None:
    """Add adapters to an encoder, or freeze what is not trained.

    Raises:
        ConfigError: the encoder has no layer for an adapter, or fewer layers than are to be frozen.
    """
    if params.encoder_training == "lora":
        add_adapters(encoder, LoraSettings.of_model(params.lora))
    else:
        freeze(encoder, frozen=params.frozen, layers=params.freeze_layers)


def freeze(network: Any, *, frozen: bool, layers: int) -> None:
    """Freeze the whole encoder, or its embeddings and first blocks.

    Raises:
        ConfigError: `layers` is more than the number of blocks.
    """
    blocks = encoder_blocks(network)
    count = layers if layers >= 0 else len(blocks) + layers
    if not 0 <= count <= len(blocks):
        raise ConfigError(
            f"task.freeze_layers: got {layers}, but the encoder has {format_count(len(blocks), 'block')}."
        )
    frozen_parts = [network] if frozen else blocks[:count]
    if count and not frozen:
        frozen_parts += [part for name, part in network.named_children() if "embedding" in name]
    for part in frozen_parts:
        for parameter in part.parameters():
            parameter.requires_grad_(False)
    # Parts for pre-training only get no gradient, and so no optimizer state.
    for part in (getattr(network, name, None) for name in MemoryEncoder.unread):
        for parameter in part.parameters() if part is not None else ():
            parameter.requires_grad_(False)


def _network(
    params: FineTunedParams,
    first: SideEncoder,
    second: SideEncoder | None,
    head: nn.Module,
    hidden_size: int,
    loss: Loss | None,
) -> FineTunedNetwork:
    """Return the encoders with their head, which reads states of width `hidden_size`; no `loss`: that of the kind."""
    label_spec = params.label_spec
    whiten = not (label_spec.per_residue or label_spec.matching)
    return FineTunedNetwork(
        first.network,
        head,
        per_residue=label_spec.per_residue,
        num_classes=len(label_spec.classes) if label_spec.of_classes else None,
        class_weights=params.class_weights,
        frozen=params.frozen,
        form=first.form,
        scaler=StateScaler(hidden_size, whiten=whiten, bounded=params.bounded_states) if params.scaled_states else None,
        start=nn.Linear(hidden_size, label_spec.outputs) if params.linear_start else None,
        loss=loss or (None if label_spec.of_classes else yes_or_no if label_spec.multilabel else squared_error),
        pairs=params.pairs,
        second_network=second.network if second else None,
        second_form=second.form if second else first.form,
        matching=label_spec.matching,
    )


def _objective(params: FineTunedParams, first: SideEncoder, second: SideEncoder | None) -> LabelObjective:
    """Return the objective: of pairs whose encoders are trained it reads both sides, else single sequences."""
    terminals = sum(first.form.terminals)
    seq_length = max_text_tokens(first.module, terminals) + terminals
    own: Any = {"form": first.form, "seq_length": seq_length}
    if params.pairs and not params.frozen:
        return PairLabelObjective(first.tokenizer, params.label_spec, **own, **(second or first).limits)
    return LabelObjective(first.tokenizer, params.label_spec, **own)


def _metrics(label_spec: LabelSpec, loss: Loss | None) -> AnswerMetrics:
    """Return the metrics of an evaluation; a loss of the order alone gives the values no unit."""
    if label_spec.matching:
        return MatchMetrics(label_spec)
    return AnswerMetrics(label_spec, only=("labels", "spearman") if getattr(loss, "only_order", False) else None)


def _loss_unit(label_spec: LabelSpec, loss: Loss | None) -> str:
    """Return what the loss is counted in; `loss` is None for the loss of the kind."""
    if loss is not None:
        return getattr(loss, "unit", "loss per label")
    return "nats per label" if label_spec.of_classes or label_spec.multilabel else "squared error of scaled labels"


def _describe(module: LanguageModule, params: FineTunedParams, first: SideEncoder, second: SideEncoder | None) -> None:
    """Set the attributes by which a task knows what a fine-tuned module can do and what its outputs mean."""
    described: Any = module  # torch's stub allows tensors and modules only
    described.answers, described.text_form = params.label_spec, params.text_form
    # The encoders decide whether sequences may share a row.
    lacking = {"packing"} if second is not None and not may_pack(second.module) else set()
    described.capabilities = frozenset(first.module.capabilities) - lacking  # type: ignore[arg-type]  # as above
    if second is not None:
        described.second_encoder = (second,)  # a tuple, so that torch registers its network once
