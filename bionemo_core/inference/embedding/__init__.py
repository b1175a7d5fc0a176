"""Embeddings of sequences: `embedder` computes them, `embedding_results` puts them in the order of the input.

`contact_head` predicts contacts from attention maps.
"""

from bionemo_core.inference.embedding.embedder import (
    Embedder,
    EmbeddingSettings,
    check_known_tokens,
    embed,
)
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
