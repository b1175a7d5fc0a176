"""Embeddings of sequences: `embedder` computes them, `embedding_results` puts them in the order of the input.

`embedding_settings` says what is asked, `model_request` whether the model has it; `text_embedding` does all of it for a
list of texts. `contact_head` predicts contacts from attention maps.
"""

from bionemo_core.inference.embedding.embedder import Embedder, check_known_tokens
from bionemo_core.inference.embedding.embedding_results import (
    ATTENTIONS,
    CONTACTS,
    EMBEDDINGS,
    HIDDENS,
    LIKELIHOODS,
    LOGITS,
    OUTPUTS,
    RAGGED,
    SQUARES,
    Embedded,
    SequencePart,
    is_per_sequence,
    log_likelihoods,
)
from bionemo_core.inference.embedding.embedding_settings import EmbeddingSettings
from bionemo_core.inference.embedding.text_embedding import embed

__all__ = [
    "ATTENTIONS",
    "CONTACTS",
    "EMBEDDINGS",
    "HIDDENS",
    "LIKELIHOODS",
    "LOGITS",
    "OUTPUTS",
    "RAGGED",
    "SQUARES",
    "Embedded",
    "Embedder",
    "EmbeddingSettings",
    "SequencePart",
    "check_known_tokens",
    "embed",
    "is_per_sequence",
    "log_likelihoods",
]
