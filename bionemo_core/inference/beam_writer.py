"""What an encoder-decoder writes for sources by beam search, and how often a target is among the first answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import torch

from bionemo_core.data.model_input import ModelInput, input_form
from bionemo_core.errors import ConfigError, DataError
from bionemo_core.inference.philox import RowRng
from bionemo_core.inference.sampling import Seq2SeqInference

if TYPE_CHECKING:
    from bionemo_core.protocols import CanonicalForm, Tokenizer

_METHOD = "beam-search-perturbate-sample"
_COUNTED = (1, 2, 3, 5, 10, 20, 50)
"""The numbers of first answers that an accuracy is given for, as far as there are so many."""


class Written(NamedTuple):
    """One answer to a source."""

    text: str
    score: float
    """log P / penalty in nats, as the beam search ranks it (`bionemo_core.inference.beam`)."""

    @classmethod
    def revive(cls, answers: Sequence[Sequence[Sequence[Any]]]) -> list[list[Self]]:
        """Return the answers to each source of which only the values are left."""
        return [[cls(*one) for one in of_source] for of_source in answers]


@dataclass(frozen=True)
class BeamWriter:
    """A beam search that keeps all of its beams as answers."""

    inference: Seq2SeqInference
    beam_size: int = 5
    beam_alpha: float = 0.0

    def __post_init__(self) -> None:
        """Check the size of the search.

        Raises:
            ConfigError: there is to be no beam.
        """
        if self.beam_size < 1:
            raise ConfigError(f"beam search: beam_size: got {self.beam_size}, expected 1 or more.")

    def is_long(self, source: str | bytes) -> bool:
        """Return whether a source has more tokens than the model takes."""
        return len(self.inference.tokenizer.encode(source)) > self.inference.seq_length

    def write(self, sources: Sequence[str | bytes]) -> list[list[Written]]:
        """Return the answers to each source, best first, at most `beam_size`; a source that is too long is cut.

        Raises:
            DataError: a source is empty.
        """
        model, tokenizer = self.inference, self.inference.tokenizer
        encode = ModelInput(tokenizer, input_form(tokenizer)).encode
        ids = [encode(source)[: model.seq_length] for source in sources]
        for number, tokens in enumerate(ids, start=1):
            if not tokens.size:
                raise DataError(f"source {number} is empty. Leave it out.")
        settings = {"beam_size": self.beam_size, "beam_alpha": self.beam_alpha, "keep_only_best_tokens": False}
        decoding = model.decoding(_METHOD, settings)
        answers: list[list[Written]] = [[] for _ in sources]
        for rows, hiddens, mask in model.encode_batches(ids, max(1, model.batch_size // self.beam_size)):
            beams = decoding.decode(hiddens, mask, RowRng.of(0, len(rows), device=hiddens.device))
            texts = model.detokenize(beams.tokens.flatten(0, 1))
            for place, row in enumerate(rows.tolist()):
                own = texts[place * self.beam_size : (place + 1) * self.beam_size]
                scores = beams.scores[place].tolist()
                answers[row] = [Written(*one) for one in zip(own, scores, strict=True) if one[1] > -torch.inf]
        return answers


@dataclass
class ExactMatch:
    """The ranks of targets among answers; molecules are compared by their canonical form, other texts as they stand."""

    tokenizer: Tokenizer
    ranks: list[int] = field(default_factory=list)
    """The rank of each target so far, from 1; 0: it is not among the answers."""

    def _form_of(self, text: str) -> str | None:
        form: CanonicalForm | None = getattr(self.tokenizer, "canonical", None)
        if form is None:
            return text
        canonical = form(text.encode("latin-1", errors="replace")) if text else None
        return None if canonical is None else canonical.decode("latin-1")

    def rank(self, target: str, answers: Sequence[Written]) -> int:
        """Return the rank of the first answer that equals the target, from 1, and count it; 0: there is none.

        Every answer takes a rank, also one that is no molecule or equals an earlier one.
        """
        wanted = self._form_of(target)
        equal = (number for number, one in enumerate(answers, start=1) if self._form_of(one.text) == wanted)
        found = 0 if wanted is None else next(equal, 0)
        self.ranks.append(found)
        return found

    def accuracies(self, num_answers: int) -> dict[str, float]:
        """Return the share of targets among the first k answers, for some k up to `num_answers`."""
        if not self.ranks:
            return {}
        counted = sorted({k for k in _COUNTED if k <= num_answers} | {num_answers})
        return {f"top_{k}_accuracy": sum(0 < rank <= k for rank in self.ranks) / len(self.ranks) for k in counted}
