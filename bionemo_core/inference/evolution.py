"""One side of a latent search: proposing latents and judging the texts that they decode to. Numpy only, no torch.

A group holds the searches of several starts and is all that a worker process needs; decoding happens elsewhere.
Shape letters: M starts of a group, P candidates of one start in one iteration, D dimensions of a latent.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from bionemo_core.data.batches.rng import RecordRng
from bionemo_core.errors import ConfigError
from bionemo_core.inference.search_settings import SearchSettings

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bionemo_core.protocols import Oracle, TextJudge

PERTURBATION = "random perturbation"


@dataclass(frozen=True)
class SearchStep:
    """Where the search of one start stands after an iteration; iteration 0 is the start itself."""

    start: int
    """Number of the start."""
    iteration: int
    oracle_calls: int
    """Candidates judged so far; equal ones of an iteration are scored once and counted each."""
    text: str
    """The best so far, in its canonical form."""
    score: float
    similarity: float
    """Of the best to the start."""
    mean_score: float
    """Of this iteration's valid candidates; NaN where there is none."""
    valid: float
    """Share of this iteration's candidates."""


Answer = tuple[list[SearchStep], "NDArray[np.float32]"]
"""Where each search of a group stands, and its next candidates, [M * P, D]."""


class Proposer(Protocol):
    """Makes the candidates of one start."""

    def ask(self) -> NDArray[np.float64]:
        """Return the next candidates, [P, D]."""
        ...

    def tell(self, ranks: NDArray[np.float64]) -> None:
        """Take note of how those candidates did, [P]; 0 is the best rank, and equal ones share it."""
        ...


class Evolution:
    """CMA-ES (Hansen's `cma` package) around a start; what it draws depends on seed and start alone."""

    def __init__(self, latent: NDArray[np.float64], settings: SearchSettings, start: int) -> None:
        try:
            import cma
        except ModuleNotFoundError as error:
            raise ConfigError(
                "optimize: it needs the Python package 'cma', which is not installed here. Run `pip install cma`."
            ) from error
        generator = np.random.Generator(np.random.Philox(key=[settings.seed, start]))
        options: dict[str, Any] = {
            "popsize": settings.population,
            "CMA_diagonal": settings.diagonal,
            "randn": lambda *shape: generator.standard_normal(shape),
            "seed": math.nan,  # numpy's global generator is left alone
            "verbose": -9,
            "verb_log": 0,
        }
        self._strategy = cma.CMAEvolutionStrategy(latent, settings.sigma, options)
        self._asked: list[NDArray[np.float64]] = []

    def ask(self) -> NDArray[np.float64]:
        self._asked = self._strategy.ask()
        return np.stack(self._asked)

    def tell(self, ranks: NDArray[np.float64]) -> None:
        self._strategy.tell(self._asked, ranks.tolist())


class Perturbation:
    """Gaussian noise around a start, again and again: what a search has to beat."""

    def __init__(self, latent: NDArray[np.float64], settings: SearchSettings, start: int) -> None:
        self._latent, self._settings, self._start, self._asked = latent, settings, start, 0

    def ask(self) -> NDArray[np.float64]:
        draw = RecordRng(self._settings.seed, self._asked, self._start, PERTURBATION)
        self._asked += 1
        shape = (self._settings.population, len(self._latent))
        # Box and Muller: numpy keeps its raw words stable across versions, its normal distribution not.
        radius = np.sqrt(-2.0 * np.log1p(-draw.uniform(shape[0] * shape[1])))
        noise = radius * np.cos(2.0 * math.pi * draw.uniform(shape[0] * shape[1]))
        return self._latent + self._settings.scaled_radius * noise.reshape(shape)

    def tell(self, ranks: NDArray[np.float64]) -> None:
        pass


def ranks(
    scores: NDArray[np.float64], similarity: NDArray[np.float64], minimum_similarity: float
) -> NDArray[np.float64]:
    """Return the rank of each candidate from 0, higher scores first; equal scores share a rank; shape [P].

    Candidates that are similar enough come first, by score; then the others, the more similar the better; last
    what is not valid, whose score is NaN. CMA-ES sees ranks only, so no penalty has to be weighed against a score.
    """
    invalid = np.isnan(scores)
    unlike = ~invalid & (similarity < minimum_similarity)
    kind = np.where(invalid, 2, np.where(unlike, 1, 0))
    value = np.where(invalid, 0.0, np.where(unlike, -similarity, -scores))
    place = np.unique(np.stack((kind, value), axis=1), axis=0, return_inverse=True)[1]
    return place.reshape(-1).astype(np.float64)


class SearchGroup:
    """The searches of some starts, judged together.

    Args:
        judge: tells what a text stands for.
        oracle: scores canonical texts.
        settings: how to search.
        numbers: numbers of the starts, which decide what is drawn for them.
        starts: their canonical texts.
        latents: their latents, [M, D].
    """

    def __init__(
        self,
        judge: TextJudge,
        oracle: Oracle,
        settings: SearchSettings,
        numbers: Sequence[int],
        starts: Sequence[str],
        latents: NDArray[np.float64],
    ) -> None:
        self.judge, self.oracle, self.settings = judge, oracle, settings
        self.numbers, self.starts, self.latents = list(numbers), list(starts), latents
        self.best: list[SearchStep] = []
        self._proposers: list[Proposer] = []

    def begin(self) -> Answer:
        """How the starts score, and the first candidates.

        Raises:
            ConfigError: the oracle gives no number for a start.
        """
        kind = Evolution if self.settings.algorithm == "cma-es" else Perturbation
        pairs = zip(self.numbers, self.latents, strict=True)
        self._proposers = [kind(latent, self.settings, number) for number, latent in pairs]
        scores, similarity = self._scores(self.starts, self.starts)
        for number, text, score in zip(self.numbers, self.starts, scores, strict=True):
            if math.isnan(score):
                raise ConfigError(f"search: the oracle gives no score for start {number}, {text!r}. Leave it out.")
        self.best = [
            SearchStep(number, 0, 0, text, float(score), float(like), float(score), 1.0)
            for number, text, score, like in zip(self.numbers, self.starts, scores, similarity, strict=True)
        ]
        return list(self.best), self._candidates()

    def go_on(self, texts: Sequence[str]) -> Answer:
        """Where each search stands after its candidates decoded to `texts`, and the next candidates, none at the end.

        Raises:
            ConfigError: the oracle does not return one number a text.
        """
        self._judge(texts)
        last = self.best[0].iteration == self.settings.iterations
        return list(self.best), np.empty((0, self.latents.shape[1]), np.float32) if last else self._candidates()

    def _candidates(self) -> NDArray[np.float32]:
        return np.concatenate([one.ask() for one in self._proposers]).astype(np.float32)

    def _judge(self, texts: Sequence[str]) -> None:
        population = self.settings.population
        form_of = {text: self.judge.canonical(text) for text in dict.fromkeys(texts)}
        canonical = [form_of[text] for text in texts]
        pairs = [(form, self.starts[place // population]) for place, form in enumerate(canonical)]
        # Latents close to each other often decode to the same text: it is scored once.
        different = list(dict.fromkeys((form, start) for form, start in pairs if form is not None))
        found = zip(*self._scores([one[0] for one in different], [one[1] for one in different]), strict=True)
        known: dict[tuple[str | None, str], tuple[float, float]] = dict(zip(different, found, strict=True))
        judged = np.array([known.get(pair, (math.nan, 0.0)) for pair in pairs], dtype=np.float64)
        scores, similarity = judged[:, 0], judged[:, 1]
        for row, proposer in enumerate(self._proposers):
            own = slice(row * population, (row + 1) * population)
            signed = -scores[own] if self.settings.minimize else scores[own]
            place = ranks(signed, similarity[own], self.settings.minimum_similarity)
            proposer.tell(place)
            self.best[row] = self._after(
                self.best[row], canonical[own], scores[own], similarity[own], int(place.argmin())
            )

    def _after(
        self,
        before: SearchStep,
        texts: Sequence[str | None],
        scores: NDArray[np.float64],
        similarity: NDArray[np.float64],
        leader: int,
    ) -> SearchStep:
        known = ~np.isnan(scores)
        step = replace(
            before,
            iteration=before.iteration + 1,
            oracle_calls=before.oracle_calls + len(texts),
            mean_score=float(scores[known].mean()) if known.any() else math.nan,
            valid=float(np.mean([text is not None for text in texts])),
        )
        better = scores[leader] < before.score if self.settings.minimize else scores[leader] > before.score
        if better and similarity[leader] >= self.settings.minimum_similarity:
            text = str(texts[leader])
            return replace(step, text=text, score=float(scores[leader]), similarity=float(similarity[leader]))
        return step

    def _scores(self, texts: Sequence[str], starts: Sequence[str]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        if not texts:
            return np.empty(0), np.empty(0)
        scores = np.asarray(self.oracle(texts, starts), dtype=np.float64)
        if scores.shape != (len(texts),):
            raise ConfigError(
                f"oracle: it was given {len(texts)} texts and returned an array of shape {scores.shape}. "
                "Return one number a text, NaN for what has no score."
            )
        return scores, np.asarray(self.judge.similarity(texts, starts), dtype=np.float64)
