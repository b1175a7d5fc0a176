"""Predictions for pairs of sequences: the encoder reads each sequence once, and the head their features."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bionemo_core.data.store.text_filter import clean_texts
from bionemo_core.errors import DataError
from bionemo_core.finetuning.pairs.features import as_states, pair_features, unique_texts
from bionemo_core.finetuning.pairs.side_encoder import own_second
from bionemo_core.inference.embedding import EMBEDDINGS, Embedder, EmbeddingSettings
from bionemo_core.inference.embedding.embedding_results import check_finite
from bionemo_core.inference.scoring_answers import Predictor, reads_pairs
from bionemo_core.models.load import OpenedModel

_Reader = Callable[[int, Sequence[bytes]], NDArray[np.float32]]
"""Returns the mean states of the texts of one side, float32 [texts, hidden]."""


@dataclass
class PairPredictor(Predictor):
    """A model that was fine-tuned on pairs and predicts for pairs, each `(first, second)`."""

    of_pairs = True
    second: Embedder | None = None
    """Reads the second sequences; None: the encoder of the first ones reads both."""

    @classmethod
    def of(cls, opened: OpenedModel, settings: EmbeddingSettings, second: OpenedModel | None) -> PairPredictor:
        """Return the predictor of a model.

        Args:
            opened: the model.
            settings: how sequences are read.
            second: the model of the second sequences, which is moved to the device and the dtype of the first; None:
                the model's own second encoder, or the only one.
        """
        predictor = cls(opened.module, opened.tokenizer, settings)
        reader = second or own_second(opened.module)
        if reader is not None:
            like = next(opened.module.parameters())
            form = replace(settings, text_form=getattr(opened.module, "text_form", None))
            predictor.second = Embedder(reader.module.to(like.device, like.dtype).eval(), reader.tokenizer, form)
        return predictor

    @property
    def embedders(self) -> tuple[Embedder, ...]:
        """What reads the first and the second sequences."""
        return (self.embedder,) if self.second is None else (self.embedder, self.second)

    def clean(self, sequences: Sequence[Any], **options: Any) -> list[Any]:
        """Return pairs from Python as the task reads them from a file; `options` are those of `clean_texts`.

        Raises:
            DataError: a sequence is empty or invalid, or is not one of a pair.
        """
        sequences = list(sequences)
        for number, pair in enumerate(sequences, start=1):
            if not isinstance(pair, Collection) or isinstance(pair, str | bytes) or len(pair) != 2:
                raise DataError(f"pair {number}: expected two sequences, because the model was fine-tuned on pairs.")
        tokenizers = self.tokenizer, self.embedders[-1].tokenizer
        sides = [
            clean_texts(tokenizer, [pair[side] for pair in sequences], what=f"{word} sequence", **options)
            for side, (word, tokenizer) in enumerate(zip(("first", "second"), tokenizers, strict=True))
        ]
        return list(zip(*sides, strict=True))

    def features(self, pairs: Sequence[tuple[bytes, bytes]], read: _Reader | None = None) -> torch.Tensor:
        """Return the features of pairs, float32 [pairs, features] on the CPU.

        Args:
            pairs: the pairs.
            read: what computes the mean states of one side's texts, as `mean_states` does; None: that.

        Raises:
            DataError: a sequence is empty, too long, or has a letter that the tokenizer does not know.
        """
        read = read or self.mean_states
        firsts, seconds = zip(*pairs, strict=True)
        if self.second is not None:
            return pair_features(_states(firsts, 0, read), _states(seconds, 1, read), with_products=False)
        both = _states((*firsts, *seconds), 0, read)
        with_products = not getattr(self.info, "matching", False)
        return pair_features(both[: len(pairs)], both[len(pairs) :], with_products=with_products)

    def mean_states(self, side: int, texts: Sequence[bytes]) -> NDArray[np.float32]:
        """Return the mean states of texts, float32 [texts, hidden]; `side` is the number of the embedder.

        Raises:
            DataError: as `features`.
        """
        names = [text.decode("latin-1")[:20] for text in texts]
        states: NDArray[np.float32] = self.embedders[side].run(texts, names).arrays[EMBEDDINGS]
        return states

    def is_long_pair(self, pair: tuple[bytes, bytes]) -> bool:
        """Return whether one of the sequences has more tokens than its model takes."""
        reader = self.second or self.embedder
        return self.is_long(pair[0]) or reader.long_rule.is_long(pair[1], reader.tokenizer)

    @torch.inference_mode()
    def predict(self, sequences: Sequence[Any], names: Sequence[str] = ()) -> list[NDArray[np.float32]]:
        """Return an array per pair, float32 [1, outputs]; see `Predictor.predict`."""
        return self.outputs_of(self.features(sequences)) if sequences else []

    @torch.inference_mode()
    def outputs_of(self, features: torch.Tensor) -> list[NDArray[np.float32]]:
        """Return the predictions for some features, an array per pair, float32 [1, outputs]."""
        network: Any = self.module.network
        self.module.eval()
        predictions = self.info.in_units(network.outputs(as_states(features.to(self.embedder.device)))).cpu().numpy()
        check_finite(predictions, "prediction: values")
        return list(predictions[:, None])


def predictor_of(opened: OpenedModel, settings: EmbeddingSettings, second: OpenedModel | None = None) -> Predictor:
    """Return the predictor of a fine-tuned model; `second` is the model of the second sequences, see `PairPredictor`.

    Raises:
        ConfigError: the model has no prediction head, or a setting does not fit it.
    """
    if reads_pairs(opened.module):
        return PairPredictor.of(opened, settings, second)
    return Predictor(opened.module, opened.tokenizer, settings)


def _states(texts: tuple[bytes, ...], side: int, read: _Reader) -> torch.Tensor:
    """Return the mean states of texts, float32 [texts, hidden]; a text that occurs again is read once."""
    records, rows = unique_texts(texts)
    return torch.from_numpy(read(side, records.sequences))[rows]
