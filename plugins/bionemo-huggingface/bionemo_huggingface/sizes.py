"""The keys of the plugin's components. Imports no torch.

No `from __future__ import annotations` here: the configuration reads these annotations at run time.
"""

import json
from dataclasses import dataclass, field
from typing import Annotated, Any

from bionemo_core.ranges import Natural, Range, Share

TokenIds = Annotated[list[int], Range(least=0)]

PROTBERT_LETTERS = "LAGVESIKRDTPNQFYMHCWXUBZO"
PROTBERT_PIECES = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *PROTBERT_LETTERS)
"""The vocabulary of ProtBert (Elnaggar et al. 2022), which many encoders of proteins share."""

RARE_LETTERS, ANY_LETTER = "UZOB", "X"
"""The letters that the recipe of ProtBert and ProtT5 replaces, and what it replaces them by."""


def plain_text(values: dict[str, Any]) -> str:
    """Return values as JSON, the same text for the same values; it holds no `$`, which a configuration would resolve.

    Raises:
        ValueError: a number is not finite.
    """
    text = json.dumps(values, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return text.replace("$", "\\u0024")


SMALL_BERT = plain_text(
    {
        "model_type": "bert",
        "vocab_size": len(PROTBERT_PIECES),
        "hidden_size": 256,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "intermediate_size": 1024,
        "max_position_embeddings": 512,
        "pad_token_id": 0,
    }
)
"""The configuration of a small BERT of proteins, for a model that is not read from a folder."""


@dataclass(frozen=True)
class MaskingShares:
    """Shares of the masked-language objective."""

    modify_percent: Share = 0.15  # share of the tokens to predict
    mask_percent: Share = 0.8  # share of the predicted tokens that become the mask token
    perturb_percent: Share = 0.1  # share of the predicted tokens that become another token
    identity_percent: Share = 0.1  # share of the predicted tokens that stay as they are


@dataclass(frozen=True)
class VocabularyForm:
    """The special tokens of a vocabulary, and the form in which its models want a text."""

    pad_id: Natural = 0  # id of the padding
    unk_id: Natural = 1  # id of letters that the vocabulary lacks
    bos_id: Natural = 2  # id of the token before a text, such as [CLS]
    eos_id: Natural = 3  # id of the token after a text, such as [SEP]
    mask_id: Natural = 4  # id of the mask
    other_special_ids: TokenIds = field(default_factory=list)  # ids of further special tokens
    has_bos: bool = True  # a text is preceded by the token bos_id
    has_eos: bool = True  # a text is followed by the token eos_id
    replaced: str = ""  # letters that are read as the letter `replacement`, such as UZOB
    replacement: str = ""  # the letter as which those in `replaced` are read, such as X
