"""The objective of given pairs: the encoder reads the source, and the decoder writes the target."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bionemo_core.data.batches.rng import RecordRng
from bionemo_core.data.model_input import ModelInput, input_form, max_text_tokens
from bionemo_core.data.pair_records import split_pair
from bionemo_core.errors import ConfigError, DataError
from bionemo_core.plurals import leave_out
from bionemo_core.protocols import DataSplits, Seq2SeqExample, Seq2SeqObjective, Tokenizer


class PairObjective:
    """The objective that makes examples from pairs; pure, numpy only, runs in loader workers.

    The encoder gets the source in the tokenizer's form; the decoder gets BOS and the target, and is asked for the
    target and EOS. Nothing is masked and nothing is drawn.
    """

    def __init__(self, tokenizer: Tokenizer, *, max_tokens: int, target_length: int) -> None:
        """Take the limits.

        Args:
            tokenizer: the model's.
            max_tokens: tokens of the longest source, without terminal tokens; the rest of a longer one is cut.
            target_length: positions of the decoder; a target of as many tokens loses its end, as it is cut.
        """
        self.tokenizer = tokenizer
        self.input = ModelInput(tokenizer, input_form(tokenizer))
        self.max_tokens = max_tokens
        self.target_length = target_length
        self.max_target_tokens = target_length - 1
        self._bos = np.array([tokenizer.bos_id], dtype=np.int32)
        self._eos = np.array([tokenizer.eos_id], dtype=np.int32)

    def laid_lengths(self, lengths: NDArray[np.integer]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the source and target tokens of pairs, shape [records] each.

        Args:
            lengths: the tokens of each source and target, shape [records, 2]; or of both together, [records].
        """
        given = np.asarray(lengths, dtype=np.int64)
        source, target = (given[:, 0], given[:, 1]) if given.ndim == 2 else (given, given)
        return (
            np.minimum(source, self.max_tokens) + self.input.num_terminals,
            np.minimum(target + 1, self.target_length),
        )

    def record_example(self, record: str | bytes, draw: RecordRng) -> Seq2SeqExample:
        """Return the example of a pair.

        Raises:
            DataError: the record is not a pair, or a side of it is empty.
        """
        sides = split_pair(record)
        source, target = self.input.encode(sides[0]), self.tokenizer.encode(sides[1])
        if not (source.size and target.size):
            raise DataError(f"data: the pair {record[:80]!r} has an empty side. Leave such records out of the dataset.")
        labels = np.concatenate((target, self._eos))[: self.target_length]
        decoder_input = np.concatenate((self._bos, target))[: self.target_length]
        source = self.input.add_terminals(source[: self.max_tokens])
        return Seq2SeqExample(source, decoder_input, labels, np.ones(len(labels), dtype=np.bool_))


def learn_pairs(
    module: Any,
    splits: DataSplits,
    tokenizer: Tokenizer,
    model: str,
    changed: Mapping[str, Any] = MappingProxyType({}),
) -> None:
    """Have a model learn the pairs of its data in place of its own objective, if the data hold pairs.

    Args:
        module: the model.
        splits: the data.
        tokenizer: the model's.
        model: its name, for messages.
        changed: the model's keys that the user has set to other values than their defaults, and these values.

    Raises:
        ConfigError: the model has no decoder, or a key was set that only its own objective reads.
    """
    if not getattr(splits.train, "pairs", False):
        return
    own = getattr(module, "objective", None)
    if not isinstance(own, Seq2SeqObjective):
        raise ConfigError(
            f"model={model}: the data are pairs of a source and a target, but the model has no decoder to write the "
            "target. Choose an encoder-decoder, such as megamolbart or prott5nv."
        )
    as_pairs, own_keys = getattr(own, "values_of_pairs", {}), getattr(own, "own_keys", ())
    given = {key: changed[key] for key in own_keys if key in changed}
    if unread := [f"model.{key}" for key, value in given.items() if key not in as_pairs or value != as_pairs[key]]:
        raise ConfigError(
            f"{', '.join(unread)}: not used with data of pairs, whose sources and targets are learnt as they stand. "
            f"{leave_out(unread)}"
        )
    terminals = sum(input_form(tokenizer).terminals)
    limits = {"max_tokens": max_text_tokens(module, terminals), "target_length": own.target_length}
    module.objective = PairObjective(tokenizer, **limits)
