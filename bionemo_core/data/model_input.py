"""The way from a text to the tokens that a model's encoder gets when it is used.

Letters are replaced as the tokenizer says, looked up, and put between the terminal tokens. An encoder that was trained
with BOS and EOS always gets both; any other gets those that the tokenizer's `input_form` asks for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bionemo_core.errors import ConfigError
from bionemo_core.protocols import InputForm, Tokenizer

TOKENIZER, PLAIN = TEXT_FORMS = ("tokenizer", "plain")
"""The tokenizer's `input_form`, or the letters as they are without additional terminal tokens."""


def input_form(tokenizer: Tokenizer, text_form: str = TOKENIZER, key: str = "text_form") -> InputForm:
    """Return the form of a tokenizer's texts; a tokenizer without `input_form`, and `plain`, change and add nothing.

    `key` is the user's key for `text_form`, for messages.

    Raises:
        ConfigError: `text_form` is unknown.
    """
    if text_form not in TEXT_FORMS:
        raise ConfigError(f"{key}: got {text_form!r}, expected one of {', '.join(TEXT_FORMS)}.")
    form: InputForm = getattr(tokenizer, "input_form", InputForm()) if text_form == TOKENIZER else InputForm()
    return form


def max_text_tokens(module: Any, num_terminals: int) -> int:
    """Return the tokens of the longest text that a model takes, without terminal tokens; the same for every use.

    An objective that cuts its texts shorter than `seq_length` says so by `max_tokens`: later positions are untrained.
    """
    room: int = module.seq_length - num_terminals
    return min(room, getattr(getattr(module, "objective", None), "max_tokens", room))


@dataclass(frozen=True)
class ModelInput:
    """The conversion of texts to the tokens of one encoder, whose form is `form`."""

    tokenizer: Tokenizer
    form: InputForm

    @property
    def num_terminals(self) -> int:
        """The number of terminal tokens of a text."""
        return sum(self.form.terminals)

    def encode(self, text: str | bytes) -> NDArray[np.int32]:
        """Return the ids of a text without terminal tokens, shape [tokens]."""
        return self.tokenizer.encode(self.form.spell(text))

    def add_terminals(self, ids: NDArray[np.int32]) -> NDArray[np.int32]:
        """Return the tokens that the encoder gets for these ids, shape [tokens + terminals]."""
        before, after = self.form.terminals
        ends = [self.tokenizer.bos_id] * before, [self.tokenizer.eos_id] * after
        return np.concatenate([ends[0], ids, ends[1]]).astype(np.int32) if self.num_terminals else ids
