"""The parameters of a fine-tuned model: registry names and plain values, so it is opened like any other model.

No `from __future__ import annotations` and no torch at import: the configuration reads these annotations.
"""

from dataclasses import dataclass, field
from typing import Any, Optional

from bionemo_core.data.model_input import PLAIN
from bionemo_core.finetuning.label_spec import LabelSpec
from bionemo_core.ranges import Count, Integer, NotNegative, Number

ENCODERS = ("frozen", "full", "lora")
"""How an encoder is trained, `task.encoder`."""


@dataclass(frozen=True)
class FineTunedParams:
    """The parameters of a fine-tuned model; those added later have defaults that older models were trained with.

    Args:
        kind: what is predicted: sequence_regression, sequence_classification, sequence_multilabel,
            token_classification, token_regression or pair_matching.
        freeze_layers: with `full`, freeze the first N blocks and the embeddings; -N: all blocks but the last N.
        lora: rank, alpha, dropout and targets of the adapters, whether they are DoRA's, and on a decoder too.
        text_form: how the encoder gets a text: tokenizer or plain; older models lack this key, and got it plain.
        bounded_states: move decorrelated states that lie outside the training's range to its edge; older models do not.
        second: the hidden size and the weights of the encoder of the second sequences; empty: there is one encoder.
        second_encoder: that encoder as a choice, if it is trained and so a part of this model; empty: it is not.
        second_tokenizer: its tokenizer as a choice, with the size and the hash of its vocabulary.
    """

    encoder: dict[str, Any]  # the pre-trained model as a choice: name, params, distribution, version
    kind: str
    head: dict[str, Any]  # the head as a choice of group `head`
    classes: list[str] = field(default_factory=list)  # the names of the classes, in the order of the head's outputs
    mean: Number = 0.0  # added to the outputs of a regression, after scaling
    scale: Number = 1.0  # factor on the outputs of a regression
    class_weights: Optional[list[NotNegative]] = None  # factor on the loss of each class
    encoder_training: str = "frozen"  # frozen, full or lora
    freeze_layers: Integer = 0
    lora: dict[str, Any] = field(default_factory=dict)
    base_weights: str = ""  # fingerprint of the weights that the adapters were trained on
    text_form: str = PLAIN
    scaled_states: bool = False  # standardise the states before the head; older models do not
    linear_start: bool = False  # add the head's outputs to those of a linear layer; older models do not
    bounded_states: bool = False
    targets: list[str] = field(default_factory=list)  # the names of several labels, in the order of the head's outputs
    means: list[Number] = field(default_factory=list)  # added to the outputs of several values, after scaling
    scales: list[Number] = field(default_factory=list)  # factors on the outputs of several values
    loss: Optional[str] = None  # a loss of group `loss`, such as ranking; null: the loss of the kind
    loss_params: dict[str, Any] = field(default_factory=dict)  # the keys of the loss
    pairs: bool = False  # the head reads pairs of sequences; older models read one
    second: dict[str, Any] = field(default_factory=dict)
    second_encoder: dict[str, Any] = field(default_factory=dict)
    second_tokenizer: dict[str, Any] = field(default_factory=dict)
    projection_size: Count = 128  # with kind pair_matching, the width of the space of both sequences

    @property
    def frozen(self) -> bool:
        """Whether no encoder is trained."""
        return self.encoder_training == "frozen"

    @property
    def label_spec(self) -> LabelSpec:
        """The meaning of the outputs."""
        several = tuple(self.targets), tuple(self.means), tuple(self.scales)
        return LabelSpec(self.kind, tuple(self.classes), self.mean, self.scale, *several)
