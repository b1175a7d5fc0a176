"""What a served model computes for requests about texts: drawn from a model that writes them, or as a picture."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bionemo_core.errors import ConfigError, DataError
from bionemo_core.inference.decoding import StepDecoder
from bionemo_core.inference.sampling import Seq2SeqInference
from bionemo_core.models.load import OpenedModel
from bionemo_core.plurals import format_count
from bionemo_core.protocols import TextJudge
from bionemo_core.tasks.serving.engine import Check, Work
from bionemo_core.tasks.serving.limits import TERMINALS, Limits, TooMuch
from bionemo_core.tasks.serving.request_bodies import (
    MOST_RADIUS,
    DecodeBody,
    DecodingBody,
    DrawBody,
    EncodeBody,
    InterpolateBody,
    SampleBody,
)
from bionemo_core.tasks.texts import judge_of

_MOST_DRAWN, _MOST_CAPTION = 500, 60
"""Letters of a text that is drawn, and of a caption."""


@dataclass(frozen=True)
class StoppableDecoder:
    """A decoder that ends at the next token if nobody waits for the result."""

    decoder: StepDecoder
    check: Check

    def start(self, memory: Any, max_length: int) -> Any:
        return self.decoder.start(memory, max_length)

    def step(self, tokens: torch.Tensor, state: Any) -> torch.Tensor:
        self.check()
        return self.decoder.step(tokens, state)


class ServedTexts:
    """A model of texts and the limits of requests; each method returns the work for a request, after checking it.

    Args:
        opened: the model.
        limits: what a request may ask for.
        inference: makes the interface to an encoder-decoder; it raises if the model is none.
    """

    def __init__(self, opened: OpenedModel, limits: Limits, inference: Callable[[], Seq2SeqInference]) -> None:
        self.opened, self.limits = opened, limits
        self.inference = lru_cache(inference)

    def sample(self, body: SampleBody) -> Work:
        """Return the work of `/v1/sample`: texts [text][sample], or from the prior [sample].

        Raises:
            BioNeMoError: the body is beyond the limits.
        """
        self.limits.check_texts(body.texts or ())
        self._check_samples(body, len(body.texts or "1"))
        options = {"sampling_method": body.sampling_method, "seed": body.seed, **body.options}
        if body.texts is None:
            return Work.alone(lambda check: self._decoding(check).sample_prior(body.num_samples, **options))
        near = {"scaled_radius": body.scaled_radius, "seqs": body.texts, **options}
        return Work.alone(lambda check: self._decoding(check).sample(body.num_samples, **near))

    def interpolate(self, body: InterpolateBody) -> Work:
        """Return the work of `/v1/interpolate`: texts [point][sample].

        Raises:
            BioNeMoError: the body is beyond the limits.
        """
        self.limits.check_texts([body.first, body.second])
        self._check_samples(body, body.num_interpolations)
        return Work.alone(
            lambda check: self._decoding(check).interpolate_samples(
                body.first,
                body.second,
                body.num_interpolations,
                body.num_samples,
                sampling_method=body.sampling_method,
                sampling_kwarg={"scaled_radius": body.scaled_radius, **body.options},
                seed=body.seed,
            )
        )

    def encode(self, body: EncodeBody) -> Work:
        """Return the work of `/v1/encode`: for each text its hidden states, float32 [positions, hidden].

        Raises:
            BioNeMoError: the body is beyond the limits.
        """
        self.limits.check_texts(body.texts)
        self.limits.check_rows(map(len, body.texts))

        def run(check: Check) -> list[NDArray[np.float32]]:
            hiddens, mask = self.inference().seq_to_hiddens(body.texts)
            return [row[real].float().cpu().numpy() for row, real in zip(hiddens, mask, strict=True)]

        letters = sum(len(text) + TERMINALS for text in body.texts)
        return replace(Work.alone(run), numbers=letters * answer_width(self.opened))

    def decode(self, body: DecodeBody) -> Work:
        """Return the work of `/v1/decode`: a text for each.

        Raises:
            BioNeMoError: the body is beyond the limits, or its rows have no common width.
        """
        self.limits.check_count(len(body.hiddens), "hiddens")
        self.limits.check_rows(map(len, body.hiddens))
        widths = {len(position) for text in body.hiddens for position in text}
        if len(widths) != 1 or not all(body.hiddens):
            raise DataError("hiddens: expected [texts][positions][hidden], with a position or more and one width.")
        # As lists of Python numbers they would take eight times the memory while they wait.
        try:
            hiddens = [torch.tensor(text) for text in body.hiddens]
        except OverflowError as error:
            raise DataError(f"hiddens: {error}. Pass what encode returns.") from error
        return Work.alone(lambda check: self._decode(hiddens, check))

    def draw(self, body: DrawBody) -> Work:
        """Return the work of `/v1/draw`: a PNG picture of all texts.

        Raises:
            BioNeMoError: the body is beyond the limits, or the plugin of the model draws nothing.
        """
        self.limits.check_texts(body.texts)
        judge = judge_of(self.opened)
        if judge is None:
            raise ConfigError(f"draw: the plugin of {self.opened.spec.model.name} draws no texts.")
        numbers = [str(number) for number in range(1, len(body.texts) + 1)]
        captions = numbers if body.captions is None else body.captions
        if len(captions) != len(body.texts):
            raise DataError(
                f"captions: got {len(captions)} for {format_count(len(body.texts), 'text')}. Give one for each."
            )
        if longest := [text for text in body.texts if len(text) > _MOST_DRAWN]:
            raise TooMuch(f"texts: one has {len(longest[0]):,} letters; at most {_MOST_DRAWN} can be drawn.")
        cut = [one[:_MOST_CAPTION] for one in captions]
        return Work.alone(lambda _: _draw(judge, body.texts, cut))

    def _decode(self, texts: Sequence[torch.Tensor], check: Check) -> list[str]:
        inference = self._decoding(check)
        config: Any = getattr(inference.network, "config", None)
        width = texts[0].shape[1]
        wanted = getattr(config, "hidden_size", width)
        if width != wanted:
            raise DataError(f"hiddens: got a width of {width}, but the model has {wanted}. Pass what encode returns.")
        longest = max(map(len, texts))
        hiddens = torch.zeros(len(texts), longest, width)
        mask = torch.zeros(len(texts), longest, dtype=torch.bool)
        for row, text in enumerate(texts):
            hiddens[row, : len(text)], mask[row, : len(text)] = text, True
        if not hiddens.abs().le(MOST_RADIUS).all():
            raise DataError(f"hiddens: a value is beyond {MOST_RADIUS:,.0f}. Pass what encode returns.")
        return inference.hiddens_to_seq(hiddens, mask)

    def _decoding(self, check: Check) -> Seq2SeqInference:
        inference = self.inference()
        return replace(inference, decoder=StoppableDecoder(inference.decoder or inference.network, check))

    def _check_samples(self, body: DecodingBody, starts: int) -> None:
        self.limits.check_samples(starts * body.num_samples * (body.beam_size or 1))


def answer_width(opened: OpenedModel) -> int:
    """Return the most numbers that an answer has for one letter in one layer."""
    config: Any = getattr(opened.module.network, "config", None)
    return max(getattr(config, "hidden_size", 0), opened.tokenizer.vocab_size)


def _draw(judge: TextJudge, texts: list[str], captions: list[str]) -> bytes:
    with TemporaryDirectory() as folder:
        path = Path(folder, "texts.png")
        judge.draw_grid(texts, captions, str(path))
        if not path.is_file():
            raise ConfigError("draw: the server lacks a library for pictures; its log names it.")
        return path.read_bytes()
