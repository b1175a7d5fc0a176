"""The task `sample`: sample texts near those of a file or from the model's prior, and measure their quality."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any

from bionemo_core.config.schema import RunSpec
from bionemo_core.data.readers import detect_format
from bionemo_core.errors import ConfigError
from bionemo_core.inference.methods import method_options
from bionemo_core.inference.sample_metrics import COLUMNS, GeneratedText, SampleCounts
from bionemo_core.inference.sampling import Seq2SeqInference
from bionemo_core.io.atomic import write_json
from bionemo_core.io.plots import optional_picture
from bionemo_core.io.progress import Progress
from bionemo_core.models.load import OpenedModel
from bionemo_core.parallel.ranks import Ranks
from bionemo_core.protocols import BuildContext, TextJudge
from bionemo_core.runs.device import choose_device
from bionemo_core.runs.kept_results import KeptResults
from bionemo_core.runs.plan_text import quieten_libraries
from bionemo_core.runs.shared_work import SharedWork
from bionemo_core.tasks.opening import model_fingerprint, open_for_use, start_workers
from bionemo_core.tasks.settings import Sample
from bionemo_core.tasks.texts import (
    Texts,
    inference_of,
    judge_of,
    new_table,
    read_texts,
    results_folder,
)
from bionemo_core.tasks.unread_keys import refuse_unread

if TYPE_CHECKING:
    from bionemo_core.plugins.registry import Registry

TABLE, SUMMARY, PICTURE = "samples.csv", "summary.json", "samples.png"
_OPTIONS = ("top_k", "top_p", "temperature", "beam_size", "keep_only_best_tokens", "beam_alpha")

NEAR_KEYS = ("limit", "num_samples", "scaled_radius", "on_long", "on_invalid")
"""Keys of sampling near texts; samples from the prior do not use them."""

READING_KEYS = ("format", "sequence_column", "id_column", "header_lines", "separator", "canonicalize")
"""Keys of reading `task.input` and `task.known`."""


def sample(spec: RunSpec, registry: Registry, *, composed_yaml: str = "") -> None:
    """Run the task: write `samples.csv`, `summary.json` and `samples.png` to the results folder.

    Raises:
        BioNeMoError: the task failed.
    """
    quieten_libraries()
    task = Sample(**spec.task.params)
    options = _options(task)
    device = choose_device(spec)
    ranks = start_workers(spec, device)
    opened = open_for_use(spec, registry, device, ranks)
    inference = inference_of(opened, spec, task.batch_size, task.max_length)
    if task.input is None:
        _ = inference.latent_shape  # fail before a folder is made if the model has no prior
    job = _Job(task, options, spec.seed, inference, ranks, opened)
    job.work.lead(lambda: _write(spec, opened, job, device.context(spec), composed_yaml))


def _write(spec: RunSpec, opened: OpenedModel, job: _Job, context: BuildContext, composed_yaml: str) -> None:
    task, judge = job.task, judge_of(opened)
    texts = read_texts(task, task.input, job.inference, context) if task.input else None
    known = _read_known(task, job.inference, judge, context) if task.known else None
    with results_folder(spec, task.output, composed_yaml, opened.report) as folder:
        started = monotonic()
        counts = SampleCounts(judge, known)
        total = len(texts.texts) if texts else int(task.num_molecules or 0)
        with (
            new_table(folder.path / TABLE, COLUMNS) as add_rows,
            Progress("sample", total, shown=spec.trainer.progress_bar) as progress,
        ):
            for done, written in job.sample_near(texts) if texts else job.sample_prior(total):
                add_rows(counts.count(written))
                progress.update(done)
        summary = {
            "task": asdict(task),
            "num_inputs": len(texts.texts) if texts else 0,
            "left_out": texts.left_out if texts else "",
            **counts.summary(),
            "seconds": monotonic() - started,
        }
        write_json(folder.path / SUMMARY, summary)
        drawn = False
        with optional_picture(folder.path / PICTURE):
            drawn = counts.draw(folder.path / PICTURE, task.picture)
    if texts and texts.left_out:
        print(f"{'left out':>17}  {texts.left_out}")
    print(counts.text(summary))
    print(f"{'folder':>17}  {folder.path}: {', '.join([TABLE, SUMMARY, *([PICTURE] if drawn else [])])}", flush=True)


@dataclass(frozen=True)
class _Part:
    """Texts to sample near, or a number of samples from the prior; `first` is the number of the first of them."""

    first: int
    count: int
    texts: list[str] | None = None


class _Job:
    """The sampling calls of the task, which the ranks share; draws depend on the number of a text, not on the rank."""

    def __init__(
        self,
        task: Sample,
        options: dict[str, Any],
        seed: int,
        inference: Seq2SeqInference,
        ranks: Ranks,
        opened: OpenedModel,
    ) -> None:
        self.task, self.inference = task, inference
        self._options = {"sampling_method": task.sampling_method, "seed": seed, **options}
        # Without a name the results get another folder at each start, so nothing could go on.
        output = Path(task.output).expanduser() if task.output else None
        self.work = KeptResults(SharedWork(ranks, self._sample), output, lambda: self._facts(opened), "task=sample")

    def _facts(self, opened: OpenedModel) -> dict[str, Any]:
        """Return what samples depend on besides the texts."""
        settings = {key: value for key, value in asdict(self.task).items() if key not in ("output", "num_molecules")}
        options = {**self._options, "settings": settings}
        return {"model": asdict(opened.spec.model), "weights": model_fingerprint(opened), "options": options}

    def _sample(self, part: _Part) -> list[Any]:
        options = {**self._options, "first_sequence": part.first}
        if part.texts is None:
            return self.inference.sample_prior(part.count, **options)
        near: list[Any] = self.inference.sample(
            self.task.num_samples, scaled_radius=self.task.scaled_radius, seqs=part.texts, **options
        )
        return near

    def sample_near(self, texts: Texts) -> Iterator[tuple[int, list[GeneratedText]]]:
        """Yield the number of texts that are done, and the samples near the last of them."""
        parts = [
            _Part(place.start, len(place), texts.texts[place.start : place.stop])
            for place in _divide(len(texts.texts), max(1, 4 * self.inference.batch_size // self.task.num_samples))
        ]
        for part, found in zip(parts, self.work.share(parts), strict=True):
            names = texts.ids[part.first : part.first + part.count]
            written = []
            for name, start, samples in zip(names, part.texts or (), found, strict=True):
                for number, sampled in enumerate(samples):
                    written += [GeneratedText(name, start, number, *beam) for beam in _beams(sampled)]
            yield part.first + part.count, written

    def sample_prior(self, total: int) -> Iterator[tuple[int, list[GeneratedText]]]:
        """Yield the number of samples that are done, and the last of them."""
        parts = [_Part(place.start, len(place)) for place in _divide(total, 4 * self.inference.batch_size)]
        for part, found in zip(parts, self.work.share(parts), strict=True):
            written = []
            for number, sampled in enumerate(found, start=part.first):
                written += [GeneratedText("", "", number, *beam) for beam in _beams(sampled)]
            yield part.first + part.count, written


def _divide(total: int, size: int) -> Iterator[range]:
    return (range(first, min(first + size, total)) for first in range(0, total, size))


def _beams(sampled: str | Sequence[str]) -> Iterator[tuple[int, str]]:
    yield from enumerate([sampled] if isinstance(sampled, str) else sampled)


def _options(task: Sample) -> dict[str, Any]:
    """Check the settings, and return the options of the method that are set."""
    if (task.input is None) == (task.num_molecules is None):
        raise ConfigError(
            "task=sample: give either task.input=FILE, texts to start from, or task.num_molecules=N, "
            "the number of samples from the prior."
        )
    if task.input is None:
        refuse_unread(task, NEAR_KEYS, "without task.input")
        if task.known is None:
            refuse_unread(task, READING_KEYS, "without task.input or task.known")
    for name in ("num_molecules", "limit", "batch_size", "max_length"):
        value = getattr(task, name)
        if value is not None and value < 1:
            raise ConfigError(f"task.{name}: got {value}, expected 1 or more.")
    if not math.isfinite(task.scaled_radius):
        raise ConfigError(f"task.scaled_radius: got {task.scaled_radius}, expected a finite number.")
    options = {name: getattr(task, name) for name in _OPTIONS if getattr(task, name) is not None}
    method_options(task.sampling_method, options, task.num_samples, task.scaled_radius, "task.")
    return options


def _read_known(task: Sample, inference: Seq2SeqInference, judge: TextJudge | None, context: Any) -> set[str]:
    """Read the known texts in canonical form."""
    task = replace(task, limit=None, on_long="skip", on_invalid="skip")
    if (task.format or detect_format([Path(str(task.known))])) not in ("csv", "tsv"):
        task = replace(task, header_lines=1, separator=None)  # the layout of the input, which is a table
    every = read_texts(task, str(task.known), inference, context)
    if judge is None:
        return set(every.texts)
    return {text for text in map(judge.canonical, every.texts) if text is not None}
