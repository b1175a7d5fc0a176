"""What a served model computes for each kind of request, by the functions that the other tasks use."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bionemo_core.data.store.text_filter import clean_texts
from bionemo_core.errors import BioNeMoError, ConfigError
from bionemo_core.finetuning.pairs.predictor import predictor_of
from bionemo_core.inference.embedding import SQUARES, Embedder, EmbeddingSettings, is_per_sequence
from bionemo_core.inference.sampling import Seq2SeqInference
from bionemo_core.inference.scoring import PSEUDO_LIKELIHOOD, MaskedScorer, check_method
from bionemo_core.inference.scoring_answers import Predictor, reads_pairs
from bionemo_core.models.load import OpenedModel
from bionemo_core.tasks.embed import settings_of
from bionemo_core.tasks.serving.engine import Check, Work
from bionemo_core.tasks.serving.limits import TERMINALS, Limits
from bionemo_core.tasks.serving.request_bodies import EmbedBody, PredictBody, ScoreBody
from bionemo_core.tasks.serving.served_texts import ServedTexts, answer_width
from bionemo_core.tasks.settings import Embed
from bionemo_core.tasks.texts import judge_of
from bionemo_core.tasks.variants import read_given_variants

_ADVICE = 'Leave it out, or keep it with "on_invalid": "unk".'
_KEPT_EMBEDDERS = 16
_NUMBERS_OF_PREDICTION = 8
"""Numbers that an answer has for one residue, at the most: classes, mostly."""


class ServedModel:
    """A model and the limits of requests; each method returns the work for a request, after checking its limits.

    Args:
        opened: the model.
        limits: what a request may ask for.
        second: the model of the second sequences of pairs, if it is no part of the model.
        on_gpu: whether it computes on a GPU.
        embed_tokens: tokens in one forward pass of embeddings.
        score_tokens: tokens in one forward pass of scores and predictions.
        inference: makes the interface to an encoder-decoder; it raises if the model is none.
    """

    def __init__(
        self,
        opened: OpenedModel,
        limits: Limits,
        *,
        on_gpu: bool,
        embed_tokens: int,
        score_tokens: int,
        inference: Callable[[], Seq2SeqInference],
        second: OpenedModel | None = None,
    ) -> None:
        self.opened, self.limits = opened, limits
        self._second = second
        self.embed_tokens = embed_tokens
        self._on_gpu, self._score_tokens = on_gpu, score_tokens
        self.texts = ServedTexts(opened, limits, inference)
        """Requests about texts that the model writes."""
        self._embedder = lru_cache(_KEPT_EMBEDDERS)(self._make_embedder)
        self._predictor = lru_cache(_KEPT_EMBEDDERS)(self._make_predictor)
        self._scorer = lru_cache(lambda: MaskedScorer(opened.module, opened.tokenizer, score_tokens))

    def uses(self) -> dict[str, bool]:
        """Return which uses the model offers, by the name of the endpoint."""
        decodes = _works(self.texts.inference)
        return {
            "embed": _works(lambda: self._embedder(self._settings(EmbedBody(sequences=["A"])))),
            "score": _works(self._scorer),
            "predict": _works(lambda: self._predictor("error")),
            **dict.fromkeys(("sample", "interpolate", "encode", "decode"), decodes),
            "draw": judge_of(self.opened) is not None,
        }

    def embed(self, body: EmbedBody) -> Work:
        """Return the work of `/v1/embed`: for each sequence its arrays by output.

        Raises:
            BioNeMoError: the body is beyond the limits, or its fields do not fit together.
        """
        self.limits.check_texts(body.sequences)
        settings = self._settings(body).check()
        if not all(map(is_per_sequence, settings.outputs)):
            self.limits.check_rows(map(len, body.sequences), len(body.layers or "1"))

        def run(sequences: Sequence[str], check: Check) -> list[dict[str, NDArray[np.float32]]]:
            embedder = self._embedder(settings)
            embedder.before_batch = check
            found = embedder.run(clean_texts(self.opened.tokenizer, sequences, **_cleaning(body)))
            arrays: list[dict[str, NDArray[np.float32]]] = [{} for _ in sequences]
            for name in embedder.output_names:
                each: Any = found.arrays[name]
                if not is_per_sequence(name):
                    each = found.maps(name) if name in SQUARES else found.split(name)
                for own, array in zip(arrays, each, strict=True):
                    own[name] = array
            return arrays

        group = ("embed", settings, body.on_invalid, body.canonicalize)
        return Work(run, body.sequences, _tokens(body.sequences), self._numbers(body), group)

    def score(self, body: ScoreBody) -> Work:
        """Return the work of `/v1/score`: the scores, float64, and the strategy.

        Raises:
            BioNeMoError: the body is beyond the limits, or its fields do not fit together.
        """
        if (body.sequences is None) != (body.wild_type is not None and body.variants is not None):
            raise ConfigError("score: give either sequences, or wild_type together with variants.")
        self.limits.check_texts(body.sequences or body.variants or ())
        self.limits.check_texts([body.wild_type or ""])
        if body.sequences is not None and body.scoring not in (None, PSEUDO_LIKELIHOOD):
            raise ConfigError(f"scoring: sequences have {PSEUDO_LIKELIHOOD} only. Leave scoring out.")
        return Work.alone(lambda check: self._score(body, check))

    def _score(self, body: ScoreBody, check: Check) -> dict[str, Any]:
        scorer = self._scorer()

        def share(groups: Any) -> Any:
            for group in groups:
                check()
                yield scorer.answer_group(group)

        scorer.share = share
        window = body.on_long == "window"
        if body.sequences is not None:
            each = scorer.pseudo_log_likelihoods(scorer.clean(body.sequences), window=window)
            sums = np.array([one.sum(dtype=np.float64) for one in each])
            return {"scores": sums, "scoring": PSEUDO_LIKELIHOOD}
        wild_type = str(body.wild_type).strip().upper()
        scoring = None if body.scoring is None else check_method(body.scoring)
        variants, strategy = read_given_variants(
            body.variants or (), wild_type, scorer, first_position=body.first_position, scoring=scoring, window=window
        )
        found = scorer.score_in_windows(wild_type, variants, strategy, window=window)
        return {"scores": found.scores, "scoring": strategy}

    def predict(self, body: PredictBody) -> Work:
        """Return the work of `/v1/predict`: for each sequence or pair its array, and the cells of `task=predict`.

        Raises:
            BioNeMoError: the body is beyond the limits, or the model has no prediction head, or one for the other kind.
        """
        items = self._items_to_predict(body)

        def run(items: Sequence[Any], check: Check) -> list[tuple[NDArray[np.float32], list[str]]]:
            predictor = self._predictor(body.on_long)
            for embedder in predictor.embedders:
                embedder.before_batch = check
            found = predictor.predict(predictor.clean(items, **_cleaning(body)))
            return [(array, predictor.row(array)) for array in found]

        group = ("predict", body.on_long, body.on_invalid, body.canonicalize)
        tokens = _tokens(text for item in items for text in ([item] if isinstance(item, str) else item))
        return Work(run, items, tokens, tokens * _NUMBERS_OF_PREDICTION, group)

    def _items_to_predict(self, body: PredictBody) -> Sequence[str | list[str]]:
        """Return the sequences or the pairs of a body.

        Raises:
            BioNeMoError: there are none, or the model reads the other kind, or they are beyond the limits.
        """
        if (body.sequences is None) == (body.pairs is None):
            raise ConfigError("predict: give either sequences or pairs.")
        if reads_pairs(self.opened.module) != (body.pairs is not None):
            wanted = "pairs of sequences" if body.pairs is None else "single sequences"
            field = "pairs, each a list of two sequences" if body.pairs is None else "sequences"
            raise ConfigError(f"predict: the model reads {wanted}. Give {field}.")
        if body.pairs is None:
            self.limits.check_texts(body.sequences or ())
            return body.sequences or ()
        for side, word in enumerate(("first", "second")):
            self.limits.check_texts([pair[side] for pair in body.pairs], f"{word} sequence")
        return body.pairs

    def prediction_facts(self) -> dict[str, Any]:
        """Return the names of the cells of a prediction, its classes and its targets.

        Raises:
            ConfigError: the model has no prediction head.
        """
        predictor = self._predictor("error")
        info = predictor.info
        return {"columns": predictor.header(), "classes": list(info.classes), "targets": list(info.targets)}

    def _numbers(self, body: EmbedBody) -> int:
        """Return the most numbers in the answer to a body."""
        lengths = [len(text) + TERMINALS for text in body.sequences]
        rows = {True: len(lengths), False: sum(lengths)}
        layers = len(body.layers or "1")
        maps = sum(length * length for length in lengths) * any(name in SQUARES for name in body.outputs)
        vectors = sum(rows[is_per_sequence(name)] for name in body.outputs if name not in SQUARES)
        return vectors * layers * answer_width(self.opened) + maps

    def _settings(self, body: EmbedBody) -> EmbeddingSettings:
        task = Embed(
            input="",
            output="",
            outputs=list(body.outputs),
            pooling=body.pooling,
            on_long=body.on_long,
            window_overlap=body.window_overlap,
            tokens_per_batch=self.embed_tokens,
        )
        layers = None if body.layers is None else tuple(body.layers)
        return replace(settings_of(task, self._on_gpu), layers=layers, key_prefix="")

    def _make_embedder(self, settings: EmbeddingSettings) -> Embedder:
        return Embedder(self.opened.module, self.opened.tokenizer, settings)

    def _make_predictor(self, on_long: str) -> Predictor:
        settings = EmbeddingSettings(on_long=on_long, tokens_per_batch=self._score_tokens, unknown="unk")
        return predictor_of(self.opened, settings, self._second)


def _cleaning(body: EmbedBody | PredictBody) -> dict[str, Any]:
    """Return how the texts of a body are read, as options of `clean_texts`."""
    return {"on_invalid": body.on_invalid, "canonicalize": body.canonicalize, "advice": _ADVICE}


def _tokens(texts: Iterable[str]) -> int:
    """Return the most tokens of a request: one for each letter, and the terminal tokens."""
    return sum(len(text) + TERMINALS for text in texts)


def _works(make: Callable[[], Any]) -> bool:
    try:
        make()
    except BioNeMoError:
        return False
    return True
