"""The task `optimize`: search a model's latent space for texts with higher scores."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bionemo_core.config.schema import Choice, RunSpec
from bionemo_core.errors import BioNeMoError, ConfigError, Preempted
from bionemo_core.inference.latent_search import ModelLatents, SearchResult, SearchStep, find_oracle
from bionemo_core.inference.latent_search import optimize as search
from bionemo_core.inference.sampling import Seq2SeqInference
from bionemo_core.inference.search_settings import SearchSettings
from bionemo_core.io.atomic import write_json
from bionemo_core.io.plots import optional_picture
from bionemo_core.io.progress import Progress
from bionemo_core.io.results_folder import mark_unfinished
from bionemo_core.models.load import OpenedModel
from bionemo_core.parallel.ranks import Ranks
from bionemo_core.plurals import format_count
from bionemo_core.protocols import Oracle, TextJudge
from bionemo_core.reporting.search_curve import draw_trajectory
from bionemo_core.runs.device import choose_device
from bionemo_core.runs.plan_text import quieten_libraries
from bionemo_core.runs.shared_work import SharedWork
from bionemo_core.tasks.opening import open_for_use, start_workers
from bionemo_core.tasks.settings import Optimize
from bionemo_core.tasks.texts import (
    Texts,
    inference_of,
    judge_of,
    new_table,
    read_texts,
    results_folder,
)
from bionemo_core.training.signals import StopSignal

if TYPE_CHECKING:
    from bionemo_core.plugins.registry import Registry

RESULTS, TRAJECTORY, SUMMARY = "optimized.csv", "trajectory.csv", "summary.json"
PICTURE, GRID = "trajectory.png", "optimized.png"
MOST_DRAWN = 30
BASELINE = "random"

_STEP_COLUMNS = ("iteration", "oracle_calls", "text", "score", "similarity", "mean_score", "valid")


def optimize(spec: RunSpec, registry: Registry, *, composed_yaml: str = "") -> None:
    """Run the task: write two tables, a summary and two pictures to the results folder.

    Raises:
        BioNeMoError: the task failed.
    """
    quieten_libraries()
    task = Optimize(**spec.task.params)
    settings = settings_of(task, spec.seed)
    device = choose_device(spec)
    ranks = start_workers(spec, device)
    opened = open_for_use(spec, registry, device, ranks)
    judge = judge_of(opened)
    if judge is None:
        raise ConfigError(
            f"task=optimize: model {opened.spec.model.name!r} of {opened.spec.model.distribution} has no judge "
            "of its texts, so it cannot score any. Use a model that has one, such as molmim."
        )
    space = _SharedLatents(inference_of(opened, spec, task.batch_size), ranks)

    def lead() -> None:
        oracle = choose_oracle(task, judge, registry)
        texts = read_texts(task, task.input, space.inference, device.context(spec))
        starts = usable_starts(texts, oracle, judge, task)
        _search(spec, opened, _Parts(task, settings, space, starts, oracle, judge), composed_yaml)

    space.work.lead(lead, ignore_signals=True)


class _SharedLatents(ModelLatents):
    """The latent space of a model whose candidates the ranks decode together."""

    def __init__(self, inference: Seq2SeqInference, ranks: Ranks) -> None:
        super().__init__(inference)
        self.work = SharedWork(ranks, super().decode)

    def decode(self, latents: NDArray[np.float32]) -> list[str]:
        parts = np.array_split(latents, min(self.work.ranks.size, len(latents)))
        return [text for texts in self.work.share(parts) for text in texts]


@dataclass(frozen=True)
class _Parts:
    """What a search needs."""

    task: Optimize
    settings: SearchSettings
    space: ModelLatents
    texts: Texts
    oracle: Oracle
    judge: TextJudge


def _search(spec: RunSpec, opened: OpenedModel, parts: _Parts, composed_yaml: str) -> None:
    """Search, and write the results: all, or those before a signal or a failure.

    Raises:
        BioNeMoError: the search failed.
        Preempted: a signal stopped the search.
    """
    task, texts = parts.task, parts.texts
    with results_folder(spec, task.output, composed_yaml, opened.report) as folder:
        started = monotonic()
        outcome = _run_searches(parts, show_progress=spec.trainer.progress_bar)
        if outcome.failure is not None and not outcome.results:
            raise outcome.failure
        seconds = monotonic() - started
        report = _Report(task, texts, parts.judge, outcome.results, seconds, outcome.stopped_by)
        report.write(folder.path)
    print(report.text())
    print(f"{'folder':>12}  {folder.path}", flush=True)
    if outcome.stopped_by is None:
        return
    mark_unfinished(folder.path)
    last = outcome.results[-1]
    kept = (
        f"after {last.iterations} of {format_count(last.settings.iterations, 'iteration')} of "
        f"{last.settings.algorithm}; the results so far are in {folder.path}. The same command starts over."
    )
    if outcome.failure is None:
        raise Preempted(f"task=optimize: stopped by {outcome.stopped_by} {kept}")
    if isinstance(outcome.failure, BioNeMoError):
        raise type(outcome.failure)(f"{outcome.failure} This was {kept}") from outcome.failure
    raise outcome.failure


class _Outcome(NamedTuple):
    """What the searches have found."""

    results: list[SearchResult]
    stopped_by: str | None = None
    """The signal, or the class of failure, that has ended the searches early."""
    failure: Exception | None = None


def _run_searches(parts: _Parts, *, show_progress: bool) -> _Outcome:
    """Run the search, and its baseline if there is one, until the end, a signal or a failure."""
    task, settings, texts = parts.task, parts.settings, parts.texts.texts
    searches = [settings, replace(settings, algorithm=BASELINE)] if task.baseline else [settings]
    results: list[SearchResult] = []
    with StopSignal() as stop_signal:
        for one in searches:
            total = one.iterations * len(texts)
            with Progress(one.algorithm, total, unit="iterations", shown=show_progress) as progress:
                steps = _Steps(progress)
                options: dict[str, Any] = {"num_workers": task.num_workers, "progress": steps}
                options["stop"] = lambda: stop_signal.requested is not None
                try:
                    results.append(search(parts.space, texts, parts.oracle, parts.judge, one, **options))
                except Exception as failure:
                    if len(steps.best) == len(texts):  # the starts at least are scored
                        results.append(SearchResult.of_steps(one, steps.all))
                    return _Outcome(results, type(failure).__name__, failure)
            if stop_signal.requested:
                break
        last = results[-1]
        finished = len(results) == len(searches) and last.iterations == last.settings.iterations
        return _Outcome(results, None if finished else stop_signal.requested)


def choose_oracle(task: Optimize, judge: TextJudge, registry: Registry) -> Oracle:
    """Return the score that `task.oracle` names: one of the judge's own, else one that a plugin offers.

    Raises:
        ConfigError: there is none, or its parameters cannot be used.
    """
    params = dict(task.oracle_params or {})
    if task.oracle in judge.oracles and params:
        raise ConfigError(f"task.oracle_params: the score {task.oracle} has no keys. Leave task.oracle_params out.")
    if task.oracle in judge.oracles:
        return judge.oracles[task.oracle]
    if registry.find("oracle", task.oracle) is None:
        return find_oracle(task.oracle, judge, others=registry.names("oracle"), key="task.oracle")
    registered = registry.get("oracle", task.oracle)
    registered.check_ranges(params, "task.oracle_params")
    oracle: Oracle = registry.build(
        Choice("oracle", registered.name, params, registered.distribution, registered.version)
    )
    return oracle


def settings_of(task: Optimize, seed: int) -> SearchSettings:
    """Return the settings of the search.

    Raises:
        ConfigError: a value is out of its range.
    """
    if task.baseline and task.algorithm == BASELINE:
        raise ConfigError(f"task.baseline=true: task.algorithm is {BASELINE} already. Leave one of them out.")
    shared = [field.name for field in dataclasses.fields(SearchSettings) if hasattr(task, field.name)]
    return SearchSettings(**{name: getattr(task, name) for name in shared}, seed=seed, key_prefix="task.")


def usable_starts(texts: Texts, oracle: Oracle, judge: TextJudge, task: Optimize) -> Texts:
    """Return the valid texts; of these the `task.worst` with the worst scores, in their order.

    Raises:
        ConfigError: no text is valid.
    """
    canonical = [judge.canonical(text) for text in texts.texts]
    rows = [row for row, form in enumerate(canonical) if form is not None]
    forms = [str(canonical[row]) for row in rows]
    if not rows:
        raise ConfigError(f"task.input={task.input}: none of its {len(canonical)} texts is a valid {judge.noun}.")
    if task.worst is not None and task.worst < len(rows):
        scores = np.nan_to_num(np.asarray(oracle(forms, forms), dtype=np.float64), nan=math.inf)
        lowest = np.argsort(-scores if task.minimize else scores, kind="stable")[: task.worst]
        rows = [rows[place] for place in sorted(lowest.tolist())]
    invalid = sum(form is None for form in canonical)
    chosen = [texts.ids[row] for row in rows], [texts.texts[row] for row in rows]
    return Texts(*chosen, texts.rejected, texts.num_long, invalid)


class _Steps:
    """The steps of a search so far, as a callback that shows them in the progress bar."""

    def __init__(self, progress: Progress) -> None:
        self._progress, self._done = progress, 0
        self.all: list[SearchStep] = []
        self.best: dict[int, float] = {}
        """The best score of each start."""

    def __call__(self, step: SearchStep) -> None:
        self.all.append(step)
        self._done += step.iteration > 0
        self.best[step.start] = step.score
        self._progress.update(self._done, f", mean of the best {np.mean(list(self.best.values())):.4f}")


@dataclass(frozen=True)
class _Report:
    """The results of the searches, as files and printed lines."""

    task: Optimize
    texts: Texts
    judge: TextJudge
    results: Sequence[SearchResult]
    seconds: float
    stopped_by: str | None = None

    def write(self, folder: Path) -> None:
        """Write tables, summary and pictures.

        Raises:
            StorageError: a table or the summary cannot be written.
        """
        self._write_results(folder / RESULTS)
        with new_table(folder / TRAJECTORY, ("algorithm", "id", *_STEP_COLUMNS)) as add_rows:
            for result in self.results:
                rows = ((result.settings.algorithm, self.texts.ids[step.start], step) for step in result.steps)
                add_rows((a, name, *(getattr(step, column) for column in _STEP_COLUMNS)) for a, name, step in rows)
        write_json(folder / SUMMARY, self.summary())
        if self.task.picture:
            with optional_picture(folder / PICTURE):
                draw_trajectory(folder / PICTURE, self.results, self.task.oracle)
            pairs = list(zip(self.results[0].first, self.results[0].best, strict=True))[: MOST_DRAWN // 2]
            drawn = [step for pair in pairs for step in pair]
            captions = [_caption(step, self.task.oracle) for step in drawn]
            with optional_picture(folder / GRID):
                self.judge.draw_grid([step.text for step in drawn], captions, str(folder / GRID))

    def _write_results(self, path: Path) -> None:
        names = [result.settings.algorithm.replace("-", "_") for result in self.results]
        own = [f"{name}_{column}" for name in names for column in ("text", "score", "similarity")]
        with new_table(path, ("id", "start", "start_score", *own)) as add_rows:
            for row, first in enumerate(self.results[0].first):
                best = [result.best[row] for result in self.results]
                values = [value for step in best for value in (step.text, step.score, step.similarity)]
                add_rows([(self.texts.ids[row], first.text, first.score, *values)])

    def summary(self) -> dict[str, Any]:
        """Return the task and, for each algorithm, means over the starts."""
        first = [step.score for step in self.results[0].first]
        content: dict[str, Any] = {
            "task": asdict(self.task),
            "starts": len(first),
            "left_out": self.texts.left_out,
            "seconds": self.seconds,
            "stopped_by": self.stopped_by,
            "mean_start_score": float(np.mean(first)),
        }
        for result in self.results:
            best, later = result.best, [step for step in result.steps if step.iteration]
            content[result.settings.algorithm] = {
                "oracle_calls": sum(step.oracle_calls for step in best),
                "mean_score": float(np.mean([step.score for step in best])),
                "mean_gain": result.mean_gain,
                "improved": sum(step.text != start.text for step, start in zip(best, result.first, strict=True)),
                "mean_similarity": float(np.mean([step.similarity for step in best])),
                "iterations": result.iterations,
                "valid": float(np.mean([step.valid for step in later])) if later else None,
            }
        return content

    def text(self) -> str:
        """Return the summary as aligned lines to print."""
        summary = self.summary()
        lines = [("starts", f"{summary['starts']:,}, mean {self.task.oracle} {summary['mean_start_score']:.4f}")]
        if self.texts.left_out:
            lines.append(("left out", self.texts.left_out))
        for result in self.results:
            own = summary[result.settings.algorithm]
            valid = "" if own["valid"] is None else f", {own['valid']:.1%} valid"
            lines.append(
                (
                    result.settings.algorithm,
                    f"mean {own['mean_score']:.4f} (gain {own['mean_gain']:+.4f}), {own['improved']} of "
                    f"{summary['starts']} improved, similarity {own['mean_similarity']:.3f}, "
                    f"{format_count(own['oracle_calls'], 'oracle call')}{valid}",
                )
            )
        calls = sum(summary[result.settings.algorithm]["oracle_calls"] for result in self.results)
        lines.append(("time", f"{self.seconds:,.1f} s, {calls / max(self.seconds, 1e-9):,.0f} candidates a second"))
        return "\n".join(f"{name:>12}  {what}" for name, what in lines)


def _caption(step: SearchStep, oracle: str) -> str:
    if step.iteration == 0:
        return f"start: {oracle} {step.score:.3f}"
    return f"best: {oracle} {step.score:.3f}, similarity {step.similarity:.2f}"
