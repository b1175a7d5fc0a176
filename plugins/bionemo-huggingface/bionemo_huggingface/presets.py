"""Factories of the plugin's components.

No `from __future__ import annotations`, no return annotation and no torch at import: hydra-zen reads these
signatures as configurations.
"""

from dataclasses import dataclass, field
from typing import Optional

from bionemo_core.protocols import BuildContext, Tokenizer
from bionemo_core.ranges import SequenceLength
from bionemo_huggingface.sizes import (
    PROTBERT_LETTERS,
    PROTBERT_PIECES,
    SMALL_BERT,
    MaskingShares,
    TokenIds,
    VocabularyForm,
)


@dataclass(frozen=True)
class Alphabet:
    """Pieces of a vocabulary of letters."""

    pieces: list[str] = field(default_factory=lambda: list(PROTBERT_PIECES))  # all tokens in the order of their ids
    letters: str = PROTBERT_LETTERS  # the letters that a text may have
    letter_ids: TokenIds = field(default_factory=lambda: list(range(5, 30)))  # the id of each of these letters


def letters(alphabet: Alphabet, special: VocabularyForm):
    """Return a tokenizer with a token for each letter."""
    from bionemo_huggingface.tokenizer import LetterTokenizer

    return LetterTokenizer(alphabet.pieces, alphabet.letters, alphabet.letter_ids, special)


def pieces(definition: str, special: VocabularyForm):
    """Return a tokenizer with tokens of several letters.

    Args:
        definition: the content of a tokenizer.json
    """
    from bionemo_huggingface.tokenizer import PieceTokenizer

    return PieceTokenizer(definition, special)


def encoder(
    masking: MaskingShares,
    config: str = SMALL_BERT,
    seq_length: SequenceLength = 512,
    *,
    tokenizer: Tokenizer,
    context: BuildContext,
):
    """Build an encoder of transformers.

    It takes one sequence a row, padded to the longest of its batch.

    Args:
        config: the content of the folder's config.json, without what does not describe the model
        seq_length: the longest sequence in tokens, terminal tokens included
    """
    from bionemo_huggingface.model import build

    return build(config, seq_length, masking, tokenizer, context)


def connector(seq_length: Optional[SequenceLength] = None, replaced: Optional[str] = None):
    """Return the connector to Hugging Face folders.

    Args:
        seq_length: the longest sequence in tokens; null: the folder's own limit
        replaced: letters to read as X, such as UZOB; null: UZOB for the vocabularies of ProtBert and ProtT5, else none
    """
    from bionemo_huggingface.connector import EncoderFolders

    return EncoderFolders(seq_length, replaced)
