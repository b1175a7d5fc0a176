"""Span corruption, the objective of T5 (Raffel et al. 2020, section 3.1.4; the options are those of v1)."""

import math
from dataclasses import fields

import numpy as np
from numpy.typing import NDArray

from bionemo_core.data.batches.rng import RecordRng
from bionemo_core.data.model_input import ModelInput, input_form
from bionemo_core.errors import ConfigError
from bionemo_core.protocols import Seq2SeqExample, Tokenizer
from bionemo_t5.sizes import Spans
from bionemo_t5.tokenizer import sentinel_ids

ENDS = 2
"""Positions that v1 keeps free of `seq_length` tokens, though the encoder gets neither BOS nor EOS."""
GEOMETRIC_P = 0.2
"""Of the geometric distribution of span lengths, where no mean is given (SpanBERT, section 3.1)."""


class SpanCorruption:
    """The objective that takes spans out of a sequence and predicts them; pure, numpy only, runs in loader workers.

    The encoder sees each span as one sentinel, the first span as the first sentinel and so on. The decoder gets BOS,
    then each sentinel and the tokens that it stands for, and is asked for the same and EOS. Records are cut to
    `seq_length` - 2 tokens, as in v1. The encoder's input has the form of the tokenizer: ProtT5's has letters replaced
    and ends with EOS, ProtT5nv's has neither.
    """

    own_keys = tuple(one.name for one in fields(Spans))

    def __init__(
        self,
        tokenizer: Tokenizer,
        *,
        seq_length: int,
        seq_length_dec: int,
        masked_lm_prob: float = 0.15,
        max_ngram_size: int = 1,
        mean_ngram_size: float | None = None,
        geometric_dist: bool = True,
    ) -> None:
        """Take the settings, under v1's names.

        Args:
            masked_lm_prob: share of the tokens that are taken out; of any sequence at least one is.
            max_ngram_size: longest span in tokens.
            mean_ngram_size: mean of the geometric distribution of span lengths, before they are cut to the longest.
            geometric_dist: draw lengths from that distribution; if not, length n with a weight of 1 / n.

        Raises:
            ConfigError: a setting is out of its range, or decoder or sentinels are too few for the longest sequence.
        """
        _check_spans(masked_lm_prob, max_ngram_size, mean_ngram_size, geometric_dist)
        sentinels = sentinel_ids(tokenizer)
        _check_room(seq_length, seq_length_dec, masked_lm_prob, len(sentinels))
        self.tokenizer = tokenizer
        self.input = ModelInput(tokenizer, input_form(tokenizer))
        self._max_tokens = seq_length - ENDS  # of training; v1 embeds `seq_length` tokens
        self.target_length = seq_length_dec
        self.masked_lm_prob = masked_lm_prob
        self.max_ngram_size = max_ngram_size
        self._p = GEOMETRIC_P if mean_ngram_size is None else 1 / mean_ngram_size
        self._geometric = geometric_dist
        self._sentinels = np.array(sentinels, dtype=np.int32)

    def laid_lengths(self, lengths: NDArray[np.integer]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return upper bounds of source and target tokens for records of `lengths` tokens, shape [records] each."""
        source = np.minimum(lengths, self._max_tokens).astype(np.int64)
        return source + self.input.num_terminals, 1 + 2 * self._num_taken(source)

    def _num_taken(self, lengths: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.maximum(1, np.rint(lengths * self.masked_lm_prob)).astype(np.int64)

    def record_example(self, record: str | bytes, draw: RecordRng) -> Seq2SeqExample:
        """Return the example for a record's residues; every random choice comes from `draw`."""
        ids = self.input.encode(record)[: self._max_tokens]
        taken, begins = self._spans(len(ids), draw)
        sentinels = self._sentinels[: int(begins.sum())]
        marked = ids.copy()
        marked[begins] = sentinels
        spans = np.insert(ids[taken], np.flatnonzero(begins[taken]), sentinels)
        decoder_input = np.concatenate(([self.tokenizer.bos_id], spans)).astype(np.int32)
        labels = np.concatenate((spans, [self.tokenizer.eos_id])).astype(np.int32)
        source = self.input.add_terminals(marked[begins | ~taken])
        return Seq2SeqExample(source, decoder_input, labels, np.ones(len(labels), dtype=np.bool_))

    def _spans(self, num_tokens: int, draw: RecordRng) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Which tokens are taken out and which of them begin a span, shape [tokens] each."""
        wanted = int(self._num_taken(np.array(num_tokens)))
        taken, begins = np.zeros((2, num_tokens), dtype=np.bool_)
        order = np.argsort(draw.words(num_tokens), kind="stable")
        if self.max_ngram_size == 1:
            taken[order[:wanted]] = True
            return taken, taken.copy()
        left = wanted
        for begin, length in zip(order.tolist(), self._lengths(num_tokens, draw).tolist(), strict=True):
            end = min(begin + min(length, left), num_tokens)
            if taken[begin:end].any():
                continue
            taken[begin:end], begins[begin] = True, True
            left -= end - begin
            if left == 0:
                break
        return taken, begins

    def _lengths(self, count: int, draw: RecordRng) -> NDArray[np.int64]:
        """`count` span lengths."""
        uniform = draw.uniform(count)
        if not self._geometric:
            weights = 1 / np.arange(1, self.max_ngram_size + 1)
            return 1 + np.searchsorted(np.cumsum(weights) / weights.sum(), uniform, side="right")
        if self._p == 1:
            return np.ones(count, dtype=np.int64)
        lengths = 1 + np.floor(np.log1p(-uniform) / math.log1p(-self._p)).astype(np.int64)
        return np.minimum(lengths, self.max_ngram_size)


def _check_spans(masked_lm_prob: float, max_ngram_size: int, mean_ngram_size: float | None, geometric: bool) -> None:
    if not 0 < masked_lm_prob < 1:
        raise ConfigError(f"model.masked_lm_prob: got {masked_lm_prob}, expected a share between 0 and 1.")
    if max_ngram_size < 1:
        raise ConfigError(f"model.max_ngram_size: got {max_ngram_size}, expected 1 or more tokens.")
    if mean_ngram_size is not None and (mean_ngram_size < 1 or not geometric):
        raise ConfigError(
            f"model.mean_ngram_size: got {mean_ngram_size} with model.geometric_dist={geometric}; it is the mean "
            "of the geometric distribution, and at least 1. Use model.geometric_dist=true, or leave it out."
        )


def _check_room(seq_length: int, seq_length_dec: int, masked_lm_prob: float, num_sentinels: int) -> None:
    if seq_length <= ENDS:
        raise ConfigError(f"model.seq_length: got {seq_length}, expected more than the {ENDS} tokens kept free.")
    longest_answer = round(seq_length * masked_lm_prob * 2 + 1)
    if seq_length_dec < longest_answer:
        raise ConfigError(
            f"model.seq_length_dec: got {seq_length_dec}, but a sequence of {seq_length} tokens needs "
            f"round({seq_length} x model.masked_lm_prob={masked_lm_prob} x 2 + 1) = {longest_answer} in the decoder: "
            "a sentinel and a token for each token taken out, and one end. Set it to at least that number."
        )
    needed = math.ceil(seq_length * masked_lm_prob)
    if num_sentinels < needed:
        raise ConfigError(
            f"tokenizer: it has {num_sentinels} sentinels (<extra_id_0> and on), but a sequence of "
            f"{seq_length} tokens may need {needed}, one for each span, at model.masked_lm_prob={masked_lm_prob}. "
            "Raise tokenizer.num_sentinel_tokens, or lower model.seq_length."
        )
