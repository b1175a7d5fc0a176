"""The encoder of the second sequences of pairs where it is trained, and so a part of the fine-tuned model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from bionemo_core.config.choice_params import FINETUNED, choice_params, read_choice
from bionemo_core.data.model_input import ModelInput, input_form, max_text_tokens
from bionemo_core.errors import ArtefactError
from bionemo_core.interop.stored import ModelSpec, Vocabulary
from bionemo_core.nn.residue_states import encoder_of
from bionemo_core.parallel.weights import network_of

if TYPE_CHECKING:
    import pytorch_lightning as pl
    from torch import nn

    from bionemo_core.models.load import OpenedModel
    from bionemo_core.plugins.registry import Registry
    from bionemo_core.protocols import BuildContext, InputForm, Tokenizer

MODEL, TOKENIZER = "second_encoder", "second_tokenizer"
"""The parameters of a fine-tuned model that describe the encoder."""


@dataclass(frozen=True)
class SideEncoder:
    """What reads one side of pairs; its network is that of the fine-tuned model, not a copy of it."""

    module: pl.LightningModule
    tokenizer: Tokenizer
    form: InputForm
    """The form of its input."""

    @classmethod
    def build_second(
        cls, params: Mapping[str, Any], text_form: str, registry: Registry, context: BuildContext
    ) -> SideEncoder | None:
        """Build the second encoder that the parameters of a fine-tuned model describe; None if they describe none.

        Raises:
            ArtefactError: the tokenizer has other pieces than in training.
        """
        if not params.get(MODEL):
            return None
        tokenizer = build_tokenizer(params, registry, context)
        module: Any = registry.build(read_choice(params[MODEL], "model"), tokenizer=tokenizer, context=context)
        module.text_form = text_form
        return cls(module, tokenizer, encoder_of(network_of(module), input_form(tokenizer, text_form)).form)

    @property
    def network(self) -> nn.Module:
        """The encoder's network."""
        return network_of(self.module)

    @property
    def limits(self) -> dict[str, Any]:
        """The form and the limits of second sequences, as `PairLabelObjective` takes them."""
        return {
            "second": ModelInput(self.tokenizer, self.form),
            "second_tokens": max_text_tokens(self.module, sum(self.form.terminals)),
            "target_length": self.module.seq_length,
        }


def own_second(module: pl.LightningModule) -> SideEncoder | None:
    """Return the second encoder that is a part of a fine-tuned model; None if it has none."""
    found: tuple[SideEncoder, ...] = getattr(module, "second_encoder", ())
    return found[0] if found else None


def build_tokenizer(params: Mapping[str, Any], registry: Registry, context: BuildContext) -> Tokenizer:
    """Build the tokenizer of the second sequences that a fine-tuned model describes.

    Raises:
        ArtefactError: it has other pieces than in training.
    """
    choice = read_choice(params[TOKENIZER], "tokenizer")
    tokenizer: Tokenizer = registry.build(choice, context=context)
    if asdict(Vocabulary.of(tokenizer.pieces)) != params[TOKENIZER].get("vocabulary"):
        raise ArtefactError(
            f"the tokenizer of the second sequences, {choice.name!r} of {choice.distribution}, has other pieces than "
            f"in training. Install version {choice.version} of that plugin."
        )
    return tokenizer


def describe_encoder(spec: ModelSpec) -> dict[str, Any]:
    """Return the encoder of a model as parameters of a fine-tuned one; of a fine-tuned model, its pre-trained one."""
    model = spec.model
    if model.name == FINETUNED:
        model = read_choice(model.params["encoder"], "model")
    return choice_params(model)


def describe_second(opened: OpenedModel) -> dict[str, Any]:
    """Return the parameters of a fine-tuned model whose second encoder starts from an opened model."""
    vocabulary = {"vocabulary": asdict(Vocabulary.of(opened.tokenizer.pieces))}
    return {MODEL: describe_encoder(opened.spec), TOKENIZER: choice_params(opened.spec.tokenizer) | vocabulary}
