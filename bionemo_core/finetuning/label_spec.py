"""The kinds of prediction of fine-tuned models, and the meaning of a model's outputs.

No `from __future__ import annotations` and no torch at import: the configuration reads these annotations.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

from bionemo_core.errors import ConfigError
from bionemo_core.ranges import Number


class PredictionKind(NamedTuple):
    """What the outputs of a kind of prediction are."""

    per_residue: bool
    """Whether there is an output for every residue, else for the whole sequence."""
    of_classes: bool
    """Whether an output is one of several classes."""


MULTILABEL = "sequence_multilabel"
"""The kind with an answer, yes or no, for each of several labels."""

MATCHING = "pair_matching"
"""The kind that learns a space in which the two sequences of a pair are near each other."""

KINDS = {
    "sequence_regression": PredictionKind(per_residue=False, of_classes=False),
    "sequence_classification": PredictionKind(per_residue=False, of_classes=True),
    "token_classification": PredictionKind(per_residue=True, of_classes=True),
    "token_regression": PredictionKind(per_residue=True, of_classes=False),
    MULTILABEL: PredictionKind(per_residue=False, of_classes=False),
    MATCHING: PredictionKind(per_residue=False, of_classes=False),
}

V1_KINDS = {
    "regression": "sequence_regression",
    "classification": "sequence_classification",
    "token-level-classification": "token_classification",
}


def label_spec_of(module: Any) -> "LabelSpec | None":
    """Return the label spec of a fine-tuned model; None for any other model."""
    return getattr(module, "answers", None)


def read_kind(typed: str, key: str) -> str:
    """Return the kind that was typed for `key`, by today's name.

    Raises:
        ConfigError: there is no such kind.
    """
    kind = V1_KINDS.get(typed, typed)
    if kind not in KINDS:
        raise ConfigError(f"{key}: got {kind!r}, expected one of {', '.join(KINDS)}.")
    return kind


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
        return KINDS[self.kind].per_residue

    @property
    def of_classes(self) -> bool:
        """Whether an output is a class."""
        return KINDS[self.kind].of_classes
