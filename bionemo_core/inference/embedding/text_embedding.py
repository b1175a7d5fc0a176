"""Embeddings of a list of texts in one call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bionemo_core.data.store.text_filter import clean_texts
from bionemo_core.data.text_lists import check_texts
from bionemo_core.errors import ConfigError, DataError
from bionemo_core.inference.embedding.embedder import Embedder
from bionemo_core.inference.embedding.embedding_settings import EmbeddingSettings
from bionemo_core.protocols import Tokenizer

if TYPE_CHECKING:
    import pytorch_lightning as pl


def embed(
    module: pl.LightningModule,
    tokenizer: Tokenizer,
    sequences: Sequence[str | bytes],
    *,
    canonicalize: bool = True,
    **settings: Any,
) -> NDArray[np.float32]:
    """Return the embedding of every sequence, float32 [sequences, hidden]: the mean of its residues' states.

    Sequences are cleaned and checked as `task=embed` does: residues in upper case, texts in the tokenizer's canonical
    form unless `canonicalize` is false. `settings` are the fields of `EmbeddingSettings` except `outputs`; with
    `layers=[20]` the embeddings are those of this layer.

    Raises:
        ConfigError: the model cannot embed, or a setting is out of its range.
        DataError: there is no sequence, or one is empty, too long, has an unknown letter, or is no text.
    """
    sequences = check_texts(sequences)
    if not sequences:
        raise DataError("embed: the list of sequences is empty. Pass at least one.")
    embedder = Embedder(module, tokenizer, EmbeddingSettings.named(**settings))
    if len(embedder.output_names) > 1:
        raise ConfigError(
            f"embed: returns one array, but got {len(embedder.output_names)} layers. Pass one layer per call."
        )
    cleaned = clean_texts(
        tokenizer,
        sequences,
        on_invalid=embedder.settings.unknown,
        canonicalize=canonicalize,
        advice="Leave it out, or keep it with unknown='unk'.",
    )
    return embedder.run(cleaned).arrays[embedder.output_names[0]]
