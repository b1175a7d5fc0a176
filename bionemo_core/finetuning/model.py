"""The fine-tuned model as a component: the encoder of a pre-trained model, a head, and the label spec.

Its parameters are registry names and plain values, so a fine-tuned model is opened like any other.
No `from __future__ import annotations` and no torch at import: the configuration reads these signatures.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Optional

from bionemo_core.config.choice_params import read_choice
from bionemo_core.data.model_input import PLAIN, input_form, max_text_tokens
from bionemo_core.errors import ConfigError
from bionemo_core.plurals import format_count
from bionemo_core.protocols import BuildContext, Tokenizer
from bionemo_core.ranges import Count, Integer, NotNegative, Number

if TYPE_CHECKING:
    from bionemo_core.plugins.registry import Registry

KINDS = {
    "sequence_regression": (False, False),
    "sequence_classification": (False, True),
    "token_classification": (True, True),
    "token_regression": (True, False),
    "sequence_multilabel": (False, False),
    "pair_matching": (False, False),
}
"""The kinds of prediction: (one per residue?, one of several classes?)."""

MULTILABEL = "sequence_multilabel"
"""The kind with an answer, yes or no, for each of several labels."""

MATCHING = "pair_matching"
"""The kind that learns a space in which the two sequences of a pair are near each other."""

V1_KINDS = {
    "regression": "sequence_regression",
    "classification": "sequence_classification",
    "token-level-classification": "token_classification",
}

ENCODERS = ("frozen", "full", "lora")


@dataclass(frozen=True)
class LabelSpec:
    """The meaning of a fine-tuned model's outputs."""

    kind: str
    classes: tuple[str, ...] = ()
    mean: Number = 0.0
    scale: Number = 1.0
    """A value is `output * scale + mean`, because heads learn standardised values."""
    targets: tuple[str, ...] = ()
    """The names of several labels of a sequence, each with an output."""
    means: tuple[Number, ...] = ()
    scales: tuple[Number, ...] = ()
    """The same for each of several values."""

    @property
    def multilabel(self) -> bool:
        """Whether each output is the logit of yes, for a label of its own."""
        return self.kind == MULTILABEL

    @property
    def matching(self) -> bool:
        """Whether the outputs are two points, of the first and the second sequence of a pair."""
        return self.kind == MATCHING

    @property
    def outputs(self) -> int:
        """The number of outputs."""
        return len(self.classes) if self.of_classes else max(1, len(self.targets))

    def in_units(self, outputs: Any) -> Any:
        """Return probabilities of classes or of yes, or values in the units of the labels, of a tensor [n, outputs].

        Of pairs that are matched, these are the cosines of the angles between both points, [n, 1].
        """
        if self.matching:
            first, second = outputs.double().chunk(2, dim=-1)
            cosine = (first * second).sum(-1) / (first.norm(dim=-1) * second.norm(dim=-1)).clamp(min=1e-12)
            return cosine.float()[:, None]
        if self.of_classes:
            return outputs.softmax(-1)
        if self.multilabel:
            return outputs.sigmoid()
        if self.targets:
            return outputs * outputs.new_tensor(self.scales) + outputs.new_tensor(self.means)
        return outputs * self.scale + self.mean

    @property
    def per_residue(self) -> bool:
        """Whether there is an output for every residue."""
        return KINDS[self.kind][0]

    @property
    def of_classes(self) -> bool:
        """Whether an output is a class."""
        return KINDS[self.kind][1]


# Long: a signature that is its keys, and their help.
def finetuned(
    encoder: dict[str, Any],
    kind: str,
    head: dict[str, Any],
    classes: list[str] = [],  # noqa: B006 - read only; hydra-zen copies it
    mean: Number = 0.0,
    scale: Number = 1.0,
    class_weights: Optional[list[NotNegative]] = None,
    encoder_training: str = "frozen",
    freeze_layers: Integer = 0,
    lora: dict[str, Any] = {},  # noqa: B006 - as above
    base_weights: str = "",
    text_form: str = PLAIN,
    scaled_states: bool = False,
    linear_start: bool = False,
    bounded_states: bool = False,
    targets: list[str] = [],  # noqa: B006 - as above
    means: list[Number] = [],  # noqa: B006 - as above
    scales: list[Number] = [],  # noqa: B006 - as above
    loss: Optional[str] = None,
    loss_params: dict[str, Any] = {},  # noqa: B006 - as above
    pairs: bool = False,
    second: dict[str, Any] = {},  # noqa: B006 - as above
    second_encoder: dict[str, Any] = {},  # noqa: B006 - as above
    second_tokenizer: dict[str, Any] = {},  # noqa: B006 - as above
    projection_size: Count = 128,
    *,
    tokenizer: Tokenizer,
    context: BuildContext,
    registry: "Registry",
) -> Any:
    """Build the encoder of a pre-trained model with a head.

    Args:
        encoder: the pre-trained model as a choice: name, params, distribution, version.
        kind: sequence_regression, sequence_classification, token_classification or token_regression.
        head: the head as a choice of group `head`.
        classes: the names of the classes, in the order of the head's outputs.
        mean: added to the outputs of a regression, after scaling.
        scale: factor on the outputs of a regression.
        class_weights: factor on the loss of each class.
        encoder_training: frozen, full or lora.
        freeze_layers: with `full`, freeze the first N blocks and the embeddings; -N: all blocks but the last N.
        lora: rank, alpha, dropout and targets of the adapters, whether they are DoRA's, and on a decoder too.
        base_weights: fingerprint of the weights that the adapters were trained on.
        text_form: how the encoder gets a text: tokenizer or plain; older models lack this key, and got it plain.
        scaled_states: standardise the states before the head; older models do not.
        linear_start: add the head's outputs to those of a linear layer; older models do not.
        bounded_states: move decorrelated states that lie outside the training's range to its edge; older models do not.
        targets: the names of several labels of a sequence, in the order of the head's outputs.
        means: added to the outputs of several values, after scaling.
        scales: factors on the outputs of several values.
        loss: a loss of group `loss`, such as ranking; null: the loss of the kind.
        loss_params: the keys of the loss.
        pairs: the head reads pairs of sequences; older models read one.
        second: the hidden size and the weights of the encoder of the second sequences; empty: there is one encoder.
        second_encoder: that encoder as a choice, if it is trained and so a part of this model; empty: it is not.
        second_tokenizer: its tokenizer as a choice, with the size and the hash of its vocabulary.
        projection_size: with kind pair_matching, the width of the space of both sequences.
        tokenizer: reads the sequences.
        context: the run that the model is built for.
        registry: where encoder and head are looked up.

    Raises:
        ConfigError: a parameter cannot be used.
        ArtefactError: the description of the encoder or the head is incomplete.
    """
    import torch

    from bionemo_core.finetuning.heads import build_head
    from bionemo_core.finetuning.lora import LoraSettings, add_adapters
    from bionemo_core.finetuning.losses import build_loss, squared_error, yes_or_no
    from bionemo_core.finetuning.metrics import AnswerMetrics
    from bionemo_core.finetuning.network import FineTunedNetwork, StateScaler
    from bionemo_core.finetuning.objective import LabelObjective
    from bionemo_core.finetuning.pairs.contrastive import Contrastive
    from bionemo_core.finetuning.pairs.features import num_features
    from bionemo_core.finetuning.pairs.matching import MatchMetrics, TwoSides
    from bionemo_core.finetuning.pairs.pair_objective import PairLabelObjective
    from bionemo_core.finetuning.pairs.side_encoder import SideEncoder
    from bionemo_core.nn.residue_states import encoder_of, may_pack
    from bionemo_core.training.module import LanguageModule

    check_kind(kind)
    if encoder_training not in ENCODERS:
        raise ConfigError(f"task.encoder: got {encoder_training!r}, expected one of {', '.join(ENCODERS)}.")
    base = registry.build(read_choice(encoder, "model"), tokenizer=tokenizer, context=context)
    own = {"second_encoder": second_encoder, "second_tokenizer": second_tokenizer}
    own_second = SideEncoder.build_second(own, text_form, registry, context)
    answers = LabelSpec(kind, tuple(classes), mean, scale, tuple(targets), tuple(means), tuple(scales))
    reads = encoder_of(base.network, input_form(tokenizer, text_form))
    if answers.per_residue and reads.fixed_states is not None:
        raise ConfigError(
            f"task.kind={kind}: {encoder['name']} has {reads.fixed_states} states per sequence "
            "and none per residue. Choose a kind for whole sequences, or another model."
        )
    settings = registry.build(read_choice(head, "head"))
    torch.manual_seed(context.seed)
    chosen = build_loss(loss, loss_params, registry)
    outputs = answers.outputs
    hidden_size = hidden_size_of(base.network)
    if answers.matching:
        sizes = (hidden_size, second.get("hidden_size", hidden_size))
        sides = [build_head(settings, size, projection_size, False, key="task.head") for size in sizes]
        built: Any = TwoSides(*sides, first_size=hidden_size)
        hidden_size, chosen = sum(sizes), chosen or Contrastive()
    else:
        hidden_size = num_features(hidden_size, second.get("hidden_size")) if pairs else hidden_size
        built = build_head(settings, hidden_size, outputs, answers.per_residue, key="task.head")
    if linear_start and hasattr(built, "start_at_zero"):
        built.start_at_zero()
    for encoder_network in (base.network, *([own_second.network] if own_second else [])):
        if encoder_training == "lora":
            add_adapters(encoder_network, LoraSettings.of_model(lora))
        else:
            freeze(encoder_network, frozen=encoder_training == "frozen", layers=freeze_layers)
    whiten = not (answers.per_residue or answers.matching)
    network = FineTunedNetwork(
        base.network,
        built,
        per_residue=answers.per_residue,
        num_classes=len(classes) if answers.of_classes else None,
        class_weights=class_weights,
        frozen=encoder_training == "frozen",
        form=reads.form,
        scaler=StateScaler(hidden_size, whiten=whiten, bounded=bounded_states) if scaled_states else None,
        start=torch.nn.Linear(hidden_size, outputs) if linear_start else None,
        loss=chosen or (None if answers.of_classes else yes_or_no if answers.multilabel else squared_error),
        pairs=pairs,
        second_network=None if own_second is None else own_second.network,
        second_form=reads.form if own_second is None else own_second.form,
        matching=answers.matching,
    )
    terminals = sum(reads.form.terminals)
    limits: Any = {"form": reads.form, "seq_length": max_text_tokens(base, terminals) + terminals}
    if pairs and encoder_training != "frozen":
        second_side = own_second or SideEncoder(base, tokenizer, reads.form)
        objective: Any = PairLabelObjective(tokenizer, answers, **limits, **second_side.limits)
    else:
        objective = LabelObjective(tokenizer, answers, **limits)
    unit = "nats per label" if answers.of_classes or answers.multilabel else "squared error of scaled labels"
    if chosen is not None:
        unit = getattr(chosen, "unit", "loss per label")
    only = ("labels", "spearman") if getattr(chosen, "only_order", False) else None
    metrics = [MatchMetrics(answers) if answers.matching else AnswerMetrics(answers, only=only)]
    module = LanguageModule(network, objective, seq_length=base.seq_length, probes=metrics, loss_unit=unit)
    # The encoder decides whether sequences may share a row.
    module.capabilities = base.capabilities  # type: ignore[assignment]  # as below
    if own_second is not None:
        lacking = {"packing"} if not may_pack(own_second.module) else set()
        module.capabilities = frozenset(base.capabilities) - lacking  # type: ignore[assignment]  # as below
        module.second_encoder = (own_second,)  # type: ignore[assignment]  # a tuple, so that torch registers its network once
    module.text_form = text_form  # type: ignore[assignment]  # as below
    module.answers = answers  # type: ignore[assignment]  # torch's stub allows tensors and modules only
    return module


def check_kind(kind: str, key: str = "task.kind") -> None:
    """Check that the kind is known; `key` is the user's key for it, for messages.

    Raises:
        ConfigError: it is not.
    """
    if kind not in KINDS:
        raise ConfigError(f"{key}: got {kind!r}, expected one of {', '.join(KINDS)}.")


def hidden_size_of(network: Any) -> int:
    """Return the width of a network's hidden states.

    Raises:
        ConfigError: the network does not have it as an attribute.
    """
    size = getattr(getattr(network, "config", None), "hidden_size", None) or getattr(network, "hidden_size", None)
    if not isinstance(size, int):
        raise ConfigError(
            f"{type(network).__name__} has neither config.hidden_size nor hidden_size, so no head can be built on it."
        )
    return size


def freeze(network: Any, *, frozen: bool, layers: int) -> None:
    """Freeze the whole encoder, or its embeddings and first blocks.

    Raises:
        ConfigError: `layers` is more than the number of blocks.
    """
    from bionemo_core.finetuning.network import encoder_blocks
    from bionemo_core.nn.residue_states import MemoryEncoder

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
