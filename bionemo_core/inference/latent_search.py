"""Guided optimisation in the latent space of a model: CMA-ES for many starts at once.

Each start has a search of its own; the candidates of all starts are decoded together. With workers, candidates are
proposed and scored in other processes, each of which has some of the starts; this process decodes the candidates of
the workers that are ready. The result of a start depends neither on the number of workers nor on the other starts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch

from bionemo_core.errors import ConfigError, DataError
from bionemo_core.inference.evolution import SearchGroup, SearchStep
from bionemo_core.inference.search_settings import SearchSettings
from bionemo_core.inference.search_workers import LocalGroup, RemoteGroup, wait_for_ready
from bionemo_core.plugins.did_you_mean import did_you_mean

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bionemo_core.inference.sampling import Seq2SeqInference
    from bionemo_core.protocols import Oracle, TextJudge

__all__ = ["LatentSpace", "ModelLatents", "SearchResult", "SearchSettings", "SearchStep", "of_each_text", "optimize"]


class LatentSpace(Protocol):
    """A map from texts to latents of fixed size and back."""

    def encode(self, texts: Sequence[str]) -> NDArray[np.float64]:
        """Return the latents, [texts, D]."""
        ...

    def decode(self, latents: NDArray[np.float32]) -> list[str]:
        """Return the text of each latent, which depends on nothing else."""
        ...


class ModelLatents:
    """The latent space of an opened model, decoded greedily.

    Raises:
        ConfigError: the model has no latent space of fixed size.
    """

    def __init__(self, inference: Seq2SeqInference) -> None:
        shape = getattr(inference.network, "latent_shape", None)
        if shape is None:
            raise ConfigError(
                f"optimize: {type(inference.network).__name__} has no latent space of fixed size to search. "
                "Use a model that has one, such as molmim."
            )
        self.inference = inference
        self.shape: tuple[int, int] = tuple(shape)

    def encode(self, texts: Sequence[str]) -> NDArray[np.float64]:
        hiddens, _ = self.inference.seq_to_hiddens(texts)
        return np.asarray(hiddens.flatten(1).double().cpu().numpy(), dtype=np.float64)

    def decode(self, latents: NDArray[np.float32]) -> list[str]:
        hiddens = torch.from_numpy(np.ascontiguousarray(latents)).view(-1, *self.shape)
        return self.inference.hiddens_to_seq(hiddens, torch.ones(hiddens.shape[:2], dtype=torch.bool))


@dataclass(frozen=True)
class SearchResult:
    """The result of a search."""

    settings: SearchSettings
    starts: list[str]
    """The canonical texts of the starts."""
    steps: list[SearchStep]
    """The steps, ordered by start and then by iteration; iteration 0 is the start itself."""

    @classmethod
    def of_steps(cls, settings: SearchSettings, steps: Sequence[SearchStep]) -> SearchResult:
        """Return the result of the steps so far, in any order: the iterations that all starts have done."""
        done: dict[int, int] = {}
        for step in steps:
            done[step.start] = max(step.iteration, done.get(step.start, 0))
        common = min(done.values())
        kept = [step for step in steps if step.iteration <= common]
        kept.sort(key=lambda step: (step.start, step.iteration))
        return cls(settings, [step.text for step in kept if step.iteration == 0], kept)

    @property
    def first(self) -> list[SearchStep]:
        """The first step of each search: the start itself."""
        return [step for step in self.steps if step.iteration == 0]

    @property
    def best(self) -> list[SearchStep]:
        """The last step of each search; all searches have the same number of iterations."""
        return [step for step in self.steps if step.iteration == self.iterations]

    @property
    def iterations(self) -> int:
        """The number of iterations done: that of the settings, or fewer if the search was stopped."""
        return max(step.iteration for step in self.steps)

    @property
    def mean_gain(self) -> float:
        """The mean of (best score - start score); when minimising, of (start score - best score)."""
        gains = [best.score - first.score for first, best in zip(self.first, self.best, strict=True)]
        return math.fsum(-gain if self.settings.minimize else gain for gain in gains) / len(gains)


def of_each_text(function: Callable[[str], float]) -> Oracle:
    """Return an oracle from a function of one text; it can go to workers if the function is defined in a module."""
    return _OfEachText(function)


class _OfEachText:
    def __init__(self, function: Callable[[str], float]) -> None:
        self.function = function

    def __call__(self, texts: Sequence[str], starts: Sequence[str], /) -> NDArray[np.float64]:
        return np.array([self.function(text) for text in texts], dtype=np.float64)


# Long: one loop that reads from top to bottom.
def optimize(
    latent_space: LatentSpace,
    starts: Sequence[str],
    oracle: str | Oracle,
    judge: TextJudge,
    settings: SearchSettings | None = None,
    *,
    num_workers: int = 0,
    progress: Callable[[SearchStep], None] | None = None,
    stop: Callable[[], bool] | None = None,
) -> SearchResult:
    """Search from each of `starts` for texts that `oracle` scores higher.

    Args:
        latent_space: the space to search; `ModelLatents(Seq2SeqInference.of(opened))` for an opened model.
        starts: texts to start from; the judge must accept each as valid.
        oracle: the name of one of the judge's oracles, or a function of (texts, starts), see
            `bionemo_core.protocols.Oracle`.
        judge: returns validity, canonical form and similarity.
        settings: population, iterations and so on.
        num_workers: processes that propose and score; 0: this process does it. With workers, your own function
            must be defined in a module that they can import.
        progress: called with every step.
        stop: called between iterations, once every start has its score; if it returns true, the search ends with
            the iterations that all starts have done.

    Raises:
        ConfigError: the oracle is unknown or has no score for a start, or a worker ended.
        DataError: there is no start, or one is not valid or too long for the model.
    """
    settings = settings or SearchSettings()
    canonical = _canonical_starts(starts, judge)
    latents = latent_space.encode(canonical)
    shares = _assign_starts(len(canonical), num_workers)
    search_groups = [
        SearchGroup(
            judge,
            find_oracle(oracle, judge),
            settings,
            numbers=share,
            starts=[canonical[number] for number in share],
            latents=latents[share],
        )
        for share in shares
    ]
    groups: list[LocalGroup | RemoteGroup] = [
        RemoteGroup(group) if num_workers else LocalGroup(group) for group in search_groups
    ]
    try:
        steps = _run(groups, latent_space, len(canonical), progress, stop)
    finally:
        for group in groups:
            group.stop()
    return SearchResult.of_steps(settings, steps)


def find_oracle(oracle: str | Oracle, judge: TextJudge, *, others: Sequence[str] = (), key: str = "oracle") -> Oracle:
    """Return the oracle with that name; a function is returned as it is.

    Args:
        oracle: the name, or the function.
        judge: has the oracles.
        others: more names for the message.
        key: the user's key for `oracle`, for messages.

    Raises:
        ConfigError: the judge has no oracle of this name.
    """
    if not isinstance(oracle, str):
        return oracle
    if oracle not in judge.oracles:
        known = [*judge.oracles, *others]
        raise ConfigError(f"{key}: got {oracle!r}.{did_you_mean(oracle, known)} Known: {', '.join(known)}.")
    return judge.oracles[oracle]


def _run(
    groups: Sequence[LocalGroup | RemoteGroup],
    latent_space: LatentSpace,
    num_starts: int,
    progress: Callable[[SearchStep], None] | None,
    stop: Callable[[], bool] | None,
) -> list[SearchStep]:
    steps: list[SearchStep] = []
    scored: set[int] = set()
    for group in groups:
        group.begin()
    running = list(groups)
    while running:
        pending: list[tuple[LocalGroup | RemoteGroup, NDArray[np.float32]]] = []
        for group in wait_for_ready(running):
            new_steps, candidates = group.receive()
            steps += new_steps
            scored |= {step.start for step in new_steps}
            if progress is not None:
                for step in new_steps:
                    progress(step)
            if len(candidates):
                pending.append((group, candidates))
            else:
                running.remove(group)
        if stop is not None and len(scored) == num_starts and stop():
            return steps
        texts = latent_space.decode(np.concatenate([candidates for _, candidates in pending])) if pending else []
        for group, candidates in pending:
            own, texts = texts[: len(candidates)], texts[len(candidates) :]
            group.send(own)
    return steps


def _canonical_starts(starts: Sequence[str], judge: TextJudge) -> list[str]:
    if not starts:
        raise DataError("optimize: there are no starts. Give at least one text.")
    texts = []
    for number, text in enumerate(starts, start=1):
        canonical = judge.canonical(text)
        if canonical is None:
            raise DataError(
                f"optimize: start {number}, {text[:80]!r}, is not a valid {judge.noun}. Correct it or leave it out."
            )
        texts.append(canonical)
    return texts


def _assign_starts(num_starts: int, num_workers: int) -> list[list[int]]:
    """Return the numbers of the starts of each group: at most `num_workers` groups, and one without workers."""
    groups = max(1, min(num_workers, num_starts))
    return [list(range(first, num_starts, groups)) for first in range(groups)]
