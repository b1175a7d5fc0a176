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
from bionemo_core.io.progress import Progress
from bionemo_core.parallel.ranks import Ranks
from bionemo_core.protocols import TextJudge
from bionemo_core.runs.device import choose_device
from bionemo_core.runs.plan_text import quieten_libraries
from bionemo_core.tasks.opening import open_for_use
from bionemo_core.tasks.settings import Sample
from bionemo_core.tasks.texts import (
    Texts,
    inference_of,
    judge_of,
    new_table,
    read_texts,
    refuse_several_devices,
    results_folder,
    select_device,
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
    refuse_several_devices(spec)
    device = choose_device(spec)
    opened = open_for_use(spec, registry, device, Ranks(device=select_device(device)))
    inference, judge = inference_of(opened, spec, task.batch_size, task.max_length), judge_of(opened)
    context = device.context(spec)
    texts = read_texts(task, task.input, inference, context) if task.input else None
    known = _read_known(task, inference, judge, context) if task.known else None
    if texts is None:
        _ = inference.latent_shape  # fail before a folder is made if the model has no prior
    with results_folder(spec, task.output, composed_yaml, opened.report) as folder:
        started = monotonic()
        counts = SampleCounts(judge, known)
        total = len(texts.texts) if texts else int(task.num_molecules or 0)
        job = _Job(task, options, spec.seed, inference)
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
        drawn = counts.draw(folder.path / PICTURE, task.picture)
    if texts and texts.left_out:
        print(f"{'left out':>17}  {texts.left_out}")
    print(counts.text(summary))
    print(f"{'folder':>17}  {folder.path}: {', '.join([TABLE, SUMMARY, *([PICTURE] if drawn else [])])}", flush=True)


@dataclass(frozen=True)
class _Job:
    """The sampling calls of the task."""

    task: Sample
    options: dict[str, Any]
    seed: int
    inference: Seq2SeqInference

    def sample_near(self, texts: Texts) -> Iterator[tuple[int, list[GeneratedText]]]:
        """Yield the number of texts that are done, and the samples near the last of them."""
        task = self.task
        at_once = max(1, 4 * self.inference.batch_size // task.num_samples)
        for first in range(0, len(texts.texts), at_once):
            part = slice(first, first + at_once)
            found = self.inference.sample(
                task.num_samples,
                sampling_method=task.sampling_method,
                scaled_radius=task.scaled_radius,
                seqs=texts.texts[part],
                seed=self.seed,
                first_sequence=first,
                **self.options,
            )
            written = []
            for name, start, samples in zip(texts.ids[part], texts.texts[part], found, strict=True):
                for number, sampled in enumerate(samples):
                    written += [GeneratedText(name, start, number, *beam) for beam in _beams(sampled)]
            yield first + len(found), written

    def sample_prior(self, total: int) -> Iterator[tuple[int, list[GeneratedText]]]:
        """Yield the number of samples that are done, and the last of them."""
        at_once = 4 * self.inference.batch_size
        for first in range(0, total, at_once):
            number = min(at_once, total - first)
            found = self.inference.sample_prior(
                number,
                sampling_method=self.task.sampling_method,
                seed=self.seed,
                first_sequence=first,
                **self.options,
            )
            written = []
            for place, sampled in enumerate(found, start=first):
                written += [GeneratedText("", "", place, *beam) for beam in _beams(sampled)]
            yield first + number, written


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
