"""One half of a latent search: proposing latents, and scoring the texts that they decode to. Numpy only, no torch.

A group has the searches of several starts and is all that a worker process needs; decoding happens elsewhere.
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
    """The state of the search from one start after an iteration; iteration 0 is the start itself."""

    start: int
    """Number of the start."""
    iteration: int
    oracle_calls: int
    """Candidates so far; equal ones in an iteration are scored once, but each counts."""
    text: str
    """The best text so far, in canonical form."""
    score: float
    """The score of the best text."""
    similarity: float
    """The similarity of the best text to the start."""
    mean_score: float
    """The mean score of this iteration's valid candidates; NaN if there is none."""
    valid: float
    """The share of this iteration's candidates that is valid."""


GroupUpdate = tuple[list[SearchStep], "NDArray[np.float32]"]
"""The last step of each search of a group, and the group's next candidates, [M * P, D]."""


class Proposer(Protocol):
    """The generator of the candidates of one start."""

    def ask(self) -> NDArray[np.float64]:
        """Return the next candidates, [P, D]."""
        ...

    def tell(self, rank_candidates: NDArray[np.float64]) -> None:
        """Update with the ranks of the last candidates, [P]; 0 is the best, and equal candidates share a rank."""
        ...


class Evolution:
    """CMA-ES (Hansen's `cma` package) around a start; its random numbers depend only on the seed and the start."""

    def __init__(self, latent: NDArray[np.float64], settings: SearchSettings, start: int) -> None:
        try:
            import cma
        except ModuleNotFoundError as error:
            raise ConfigError(
                "optimize: the algorithm cma-es needs the Python package 'cma', which is not installed. Run "
                "`pip install cma`."
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
        self._candidates: list[NDArray[np.float64]] = []

    def ask(self) -> NDArray[np.float64]:
        self._candidates = self._strategy.ask()
        return np.stack(self._candidates)

    def tell(self, rank_candidates: NDArray[np.float64]) -> None:
        self._strategy.tell(self._candidates, rank_candidates.tolist())


class Perturbation:
    """Gaussian noise around the start in every iteration: the baseline of a search."""

    def __init__(self, latent: NDArray[np.float64], settings: SearchSettings, start: int) -> None:
        self._latent, self._settings, self._start, self._iteration = latent, settings, start, 0

    def ask(self) -> NDArray[np.float64]:
        draw = RecordRng(self._settings.seed, self._iteration, self._start, PERTURBATION)
        self._iteration += 1
        shape = (self._settings.population, len(self._latent))
        # Box and Muller, because numpy keeps raw random words stable across versions, but not the normal distribution.
        radius = np.sqrt(-2.0 * np.log1p(-draw.uniform(shape[0] * shape[1])))
        noise = radius * np.cos(2.0 * math.pi * draw.uniform(shape[0] * shape[1]))
        return self._latent + self._settings.scaled_radius * noise.reshape(shape)

    def tell(self, rank_candidates: NDArray[np.float64]) -> None:
        pass


def rank_candidates(
    scores: NDArray[np.float64], similarity: NDArray[np.float64], minimum_similarity: float
) -> NDArray[np.float64]:
    """Return the rank of each candidate, from 0 for the best; equal candidates share a rank; shape [P].

    Candidates that are similar enough come first, higher scores before lower ones; then the others, more similar ones
    first; last the invalid ones, whose score is NaN. CMA-ES uses only ranks, so no penalty has to be weighed against
    a score.
    """
    invalid = np.isnan(scores)
    unlike = ~invalid & (similarity < minimum_similarity)
    kind = np.where(invalid, 2, np.where(unlike, 1, 0))
    value = np.where(invalid, 0.0, np.where(unlike, -similarity, -scores))
    rank = np.unique(np.stack((kind, value), axis=1), axis=0, return_inverse=True)[1]
    return rank.reshape(-1).astype(np.float64)


class SearchGroup:
    """The searches of some starts, whose candidates are scored together.

    Args:
        judge: returns the canonical form of a text, and similarities.
        oracle: scores canonical texts.
        settings: how to search.
        numbers: numbers of the starts, which determine their random numbers.
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

    def begin(self) -> GroupUpdate:
        """Score the starts; return their steps and the first candidates.

        Raises:
            ConfigError: the oracle has no score for a start.
        """
        kind = Evolution if self.settings.algorithm == "cma-es" else Perturbation
        pairs = zip(self.numbers, self.latents, strict=True)
        self._proposers = [kind(latent, self.settings, number) for number, latent in pairs]
        scores, similarity = self._score(self.starts, self.starts)
        for number, text, score in zip(self.numbers, self.starts, scores, strict=True):
            if math.isnan(score):
                raise ConfigError(f"search: the oracle has no score for start {number + 1}, {text!r}. Leave it out.")
        self.best = [
            SearchStep(number, 0, 0, text, float(score), float(same), float(score), 1.0)
            for number, text, score, same in zip(self.numbers, self.starts, scores, similarity, strict=True)
        ]
        return list(self.best), self._ask()

    def advance(self, texts: Sequence[str]) -> GroupUpdate:
        """Score the texts of the last candidates; return the new steps and the next candidates, none at the end.

        Raises:
            ConfigError: the oracle does not return one number for each text.
        """
        self._score_candidates(texts)
        last = self.best[0].iteration == self.settings.iterations
        return list(self.best), np.empty((0, self.latents.shape[1]), np.float32) if last else self._ask()

    def _ask(self) -> NDArray[np.float32]:
        return np.concatenate([proposer.ask() for proposer in self._proposers]).astype(np.float32)

    def _score_candidates(self, texts: Sequence[str]) -> None:
        population = self.settings.population
        form_of = {text: self.judge.canonical(text) for text in dict.fromkeys(texts)}
        canonical = [form_of[text] for text in texts]
        pairs = [(form, self.starts[index // population]) for index, form in enumerate(canonical)]
        # Latents close to each other often decode to the same text, which is scored once.
        different = list(dict.fromkeys((form, start) for form, start in pairs if form is not None))
        forms, starts = [form for form, _ in different], [start for _, start in different]
        results = zip(*self._score(forms, starts), strict=True)
        known: dict[tuple[str | None, str], tuple[float, float]] = dict(zip(different, results, strict=True))
        table = np.array([known.get(pair, (math.nan, 0.0)) for pair in pairs], dtype=np.float64)
        scores, similarity = table[:, 0], table[:, 1]
        for row, proposer in enumerate(self._proposers):
            own = slice(row * population, (row + 1) * population)
            signed = -scores[own] if self.settings.minimize else scores[own]
            ranking = rank_candidates(signed, similarity[own], self.settings.minimum_similarity)
            proposer.tell(ranking)
            self.best[row] = self._next_step(
                self.best[row], canonical[own], scores[own], similarity[own], int(ranking.argmin())
            )

    def _next_step(
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

    def _score(self, texts: Sequence[str], starts: Sequence[str]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        if not texts:
            return np.empty(0), np.empty(0)
        scores = np.asarray(self.oracle(texts, starts), dtype=np.float64)
        if scores.shape != (len(texts),):
            raise ConfigError(
                f"oracle: got an array of shape {scores.shape} for {len(texts)} texts, expected ({len(texts)},). "
                "Return one number for each text, NaN for a text without a score."
            )
        return scores, np.asarray(self.judge.similarity(texts, starts), dtype=np.float64)
