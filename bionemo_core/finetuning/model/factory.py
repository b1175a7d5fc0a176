"""The fine-tuned model as a component: the encoder of a pre-trained model, a head, and the label spec.

No `from __future__ import annotations` and no torch at import: the configuration reads this signature.
"""

from typing import TYPE_CHECKING, Any

from bionemo_core.finetuning.model.params import FineTunedParams
from bionemo_core.protocols import BuildContext, Tokenizer

if TYPE_CHECKING:
    from bionemo_core.plugins.registry import Registry


def finetuned(params: FineTunedParams, *, tokenizer: Tokenizer, context: BuildContext, registry: "Registry") -> Any:
    """Build the encoder of a pre-trained model with a head.

    Raises:
        ConfigError: a parameter cannot be used.
        ArtefactError: the description of an encoder, a tokenizer or the head is incomplete.
    """
    from bionemo_core.finetuning.model.build import build

    return build(params, tokenizer, context, registry)
