"""The task `embed`: write embeddings part by part, then join the parts into one output file."""

from __future__ import annotations

import itertools
import json
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bionemo_core._version import __version__
from bionemo_core.config.schema import RunSpec
from bionemo_core.data.store.record_store import PreparedStore
from bionemo_core.data.store.report import count_summary
from bionemo_core.data.tokenizer import reads_residues
from bionemo_core.errors import ConfigError, Preempted, Stopped
from bionemo_core.inference.embedding import (
    ATTENTIONS,
    CONTACTS,
    EMBEDDINGS,
    SQUARES,
    Embedder,
    EmbeddingSettings,
    is_per_sequence,
)
from bionemo_core.inference.outputs import Part, Parts, PartStore, PartWriter, missing_ranges, part_bounds, saved_ranges
from bionemo_core.inference.outputs_files import file_kind, write_output
from bionemo_core.interop.load_report import LoadReport
from bionemo_core.io.atomic import write_json
from bionemo_core.io.hashing import fingerprint_of
from bionemo_core.io.piped_input import is_pipe
from bionemo_core.io.plots import optional_picture
from bionemo_core.io.progress import Progress
from bionemo_core.models.load import OpenedModel
from bionemo_core.parallel.compiled_layers import compile_layers
from bionemo_core.parallel.ranks import Ranks
from bionemo_core.plurals import format_count
from bionemo_core.reporting.contact_maps import draw_contacts
from bionemo_core.runs.device import choose_device
from bionemo_core.runs.plan_text import quieten_libraries
from bionemo_core.runs.shared_work import ADVICE, exchange
from bionemo_core.runs.trainer import explain_lost_ranks
from bionemo_core.tasks.input_file import open_input
from bionemo_core.tasks.opening import model_fingerprint, open_for_use, start_workers
from bionemo_core.tasks.settings import Embed

if TYPE_CHECKING:
    from bionemo_core.plugins.registry import Registry

log = logging.getLogger("bionemo")

_PART_TOKENS, _RAGGED_PART_TOKENS = 1 << 22, 1 << 17
_SQUARE_PART_TOKENS = {ATTENTIONS: 1 << 10, CONTACTS: 1 << 15}
"""Residues in a part of outputs with a value for each pair of residues."""
_PART_SEQUENCES = 1 << 14
_FEW_BATCHES, _MANY_BATCHES = 4, 32
"""Batches that are computed together: few for a slow model on a CPU, so that results are saved soon enough; many on a
GPU, and for a perceiver, whose texts are sorted by length before they are put into batches."""
TRUNCATED = "truncated"
"""The mark of sequences that were cut, in the output and in the record beside it."""
_POOLINGS = {
    "mean": "mean over residues, without special tokens",
    "max": "maximum over residues, without special tokens",
    "cls": "state of the first terminal token",
}
_MADE_OF_LONG = {"truncate": TRUNCATED, "window": "read_in_windows"}


def embed(spec: RunSpec, registry: Registry, *, composed_yaml: str = "") -> None:
    """Run the task; a second start continues after the parts that are complete.

    Raises:
        BioNeMoError: the task failed.
    """
    quieten_libraries()
    task = Embed(**spec.task.params)
    output = Path(task.output).expanduser()
    file_kind(output)
    tensor_size = spec.parallel.tensor_model_parallel_size
    if tensor_size > 1 and (squares := [name for name in task.outputs or () if name in SQUARES]):
        raise ConfigError(
            f"parallel.tensor_model_parallel_size={tensor_size}: task.outputs=[{squares[0]}] needs all heads on one "
            "device. Leave it at 1."
        )
    if is_pipe(task.input) and spec.trainer.devices * spec.trainer.num_nodes > 1:
        raise ConfigError(f"task.input={task.input}: a pipe has one reader. Set trainer.devices=1, or name a file.")
    device = choose_device(spec)
    ranks = start_workers(spec, device, splits_model=True)
    opened = open_for_use(spec, registry, device, ranks)
    embedder = Embedder(opened.module, opened.tokenizer, settings_of(task, device.name == "cuda"))
    fixed_shapes = embedder.encoder.fixed_states is None  # a perceiver pads each batch to its own length
    if device.name == "cuda" and spec.trainer.compile is not False and fixed_shapes and not embedder.reads_layers:
        compile_layers(embedder.network)
    store = open_input(task.input, task, opened.tokenizer, device.context(spec))
    if task.heatmaps and CONTACTS not in embedder.settings.outputs:
        raise ConfigError("task.heatmaps=true: draws contacts. Request them with task.outputs=[contacts].")
    job = _Job.of(task, output, store, embedder, opened)
    if job.is_done():
        print(f"{output}: already complete; the same command wrote it before.")
        return
    job.refuse_to_overwrite()
    with explain_lost_ranks(ADVICE), job.parts.lock() if ranks.is_rank_zero else nullcontext():
        if ranks.is_rank_zero:
            job.parts.remove_others()
        ranks.barrier()
        with job.explain_stop():
            job.compute(ranks, spec.trainer.progress_bar)
            ranks.barrier()
            if ranks.is_rank_zero:
                job.finish()
            ranks.barrier()


def settings_of(task: Embed, on_gpu: bool) -> EmbeddingSettings:
    """Return the settings of the embedder."""
    return EmbeddingSettings(
        outputs=tuple(task.outputs or (EMBEDDINGS,)),
        layers=task.layers,
        pooling=task.pooling,
        on_long=task.on_long,
        window_overlap=task.window_overlap,
        text_form=task.text_form,
        terminal_rows=task.terminal_rows,
        tokens_per_batch=task.tokens_per_batch,
        key_prefix="task.",
        unknown="unk",  # the store holds such records only where the user has said so
        static_shapes=on_gpu,
    )


@dataclass(frozen=True)
class _Job:
    """One embedding task: its input, its output, and the parts written so far."""

    task: Embed
    output: Path
    store: PreparedStore
    embedder: Embedder
    parts: PartStore
    bounds: list[int]
    facts: dict[str, Any]
    long: NDArray[np.bool_]
    """Which sequences have more tokens than the model takes."""
    loaded: LoadReport

    @classmethod
    def of(cls, task: Embed, output: Path, store: PreparedStore, embedder: Embedder, opened: OpenedModel) -> _Job:
        lengths = store.lengths
        settings = embedder.settings
        long = _find_long(store, embedder)
        cut = {_MADE_OF_LONG[settings.on_long]: int(long.sum())} if long.any() else {}
        ragged = settings.on_long == "window" or not all(map(is_per_sequence, settings.outputs))
        tokens = task.tokens_per_part or (_RAGGED_PART_TOKENS if ragged else _PART_TOKENS)
        tokens = min([tokens, *(most for name, most in _SQUARE_PART_TOKENS.items() if name in settings.outputs)])
        head = embedder.contact_head
        facts = {
            "bionemo_run": __version__,
            "model": asdict(opened.spec.model),
            "tokenizer": asdict(opened.spec.tokenizer),
            "weights": model_fingerprint(opened),
            "settings": {
                "outputs": list(settings.outputs),
                "on_long": settings.on_long,
                "window_overlap": embedder.long_rule.overlap,
                "text": asdict(embedder.encoder.form),
                "terminal_rows": settings.terminal_rows,
                "pooling": _POOLINGS[settings.pooling],
                **({} if embedder.layers is None else {"layers": list(embedder.layers)}),
                **({"contact_head": head.fingerprint} if head else {}),
            },
            "input": store.fingerprint,
            "records": store.manifest["records"],
            **cut,
        }
        fingerprint = fingerprint_of({**facts, "tokens_per_part": tokens})
        parts = PartStore(output.with_name(f"{output.name}.parts"), fingerprint)
        bounds = part_bounds(lengths, tokens, _PART_SEQUENCES)
        return cls(task, output, store, embedder, parts, bounds, facts, long, opened.report)

    @property
    def record(self) -> Path:
        """The path of the JSON file beside the output, which describes it."""
        return self.output.with_name(f"{self.output.name}.json")

    def is_done(self) -> bool:
        """Return whether the output exists and was made from the same input, model and settings."""
        try:
            return self.output.is_file() and json.loads(self.record.read_bytes()) == self.facts
        except (OSError, ValueError):
            return False

    def refuse_to_overwrite(self) -> None:
        """Check that the output may be written.

        Raises:
            ConfigError: another output exists there.
        """
        if self.output.exists() and not self.task.overwrite and not self.parts.published():
            raise ConfigError(
                f"task.output={self.output}: already exists, and was not made from this input by this model. "
                "Choose another name, or set task.overwrite=true."
            )

    def compute(self, ranks: Ranks, progress_bar: bool) -> None:
        """Compute and write those sequences of this rank's blocks that no earlier start has written."""
        own_blocks = list(itertools.pairwise(self.bounds))[ranks.copy :: ranks.num_copies]
        remaining = self._remaining(own_blocks)
        if ranks.tensor_size > 1:  # the ranks of a copy compute the same, whatever each of them sees of the files
            remaining = exchange(remaining, ranks)[ranks.copy * ranks.tensor_size]
        own, total = (sum(stop - start for start, stop in ranges) for ranges in (own_blocks, remaining))
        if total < own:
            log.info("%d of %s were computed before.", own - total, format_count(own, "sequence"))
        tokens = 0
        of_rank = "sequences of the first rank" if ranks.size > 1 else "sequences"
        unit = "residues" if reads_residues(self.embedder.tokenizer) else "characters"
        shown = progress_bar and ranks.is_rank_zero and total > 0
        with Progress("embed", total, unit=of_rank, shown=shown, final_line=True) as progress:
            for first, last in remaining:
                with PartWriter[Part](self.parts, first, writes=ranks.leads_copy) as writer:
                    for start, stop in self._steps(first, last):
                        ids = [self.store.id(row) for row in range(start, stop)]
                        writer.add(Part(ids, self.embedder.run([self.store[row] for row in range(start, stop)], ids)))
                        tokens += int(self.store.lengths[start:stop].sum())
                        progress.advance(stop - start, f", {tokens / progress.elapsed_s:,.0f} {unit}/s")

    def _remaining(self, blocks: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
        """Return the sequences of these blocks that no undamaged part has, as first sequences and ends."""
        published = self.parts.published()
        remaining = []
        for block in blocks:
            saved = [one for one in saved_ranges(published, block) if self.parts.has(one[0])]
            remaining += missing_ranges(saved, block)
        return remaining

    def _steps(self, first: int, last: int) -> Iterator[tuple[int, int]]:
        """Divide sequences into steps of a few batches; interrupted work continues with the same steps."""
        many = self.embedder.device.type == "cuda" or self.embedder.encoder.fixed_states is not None
        batches = _MANY_BATCHES if many else _FEW_BATCHES
        if any(name in SQUARES for name in self.embedder.settings.outputs):
            batches = 1
        tokens = self.embedder.tokens_per_batch * batches
        bounds = part_bounds(self.store.lengths[first:last], tokens, last - first)
        return ((first + start, first + stop) for start, stop in itertools.pairwise(bounds))

    @contextmanager
    def explain_stop(self) -> Iterator[None]:
        """Say what is saved when a signal stops the work.

        Raises:
            Preempted: a signal has stopped it, and something is saved.
            Stopped: a signal has stopped it before anything was saved.
        """
        try:
            yield
        except Stopped as stop:
            if self.is_done():
                raise Preempted(f"task=embed: stopped by {stop.name}; {self.output} is complete.") from None
            saved = self._num_saved()
            if not saved:
                self.parts.remove()
                raise
            raise Preempted(
                f"task=embed: stopped by {stop.name}; {saved:,} of {format_count(len(self.store), 'sequence')} are "
                f"saved in {self.parts.folder}. Run the same command again to compute the others."
            ) from None

    def _num_saved(self) -> int:
        published = self.parts.published()
        ranges = [saved_ranges(published, block) for block in itertools.pairwise(self.bounds)]
        return sum(stop - start for saved in ranges for start, stop in saved)

    def finish(self) -> None:
        """Write the output and its record, and remove the parts.

        Raises:
            StorageError: a file cannot be written.
        """
        marks = {TRUNCATED: self.long} if self.embedder.settings.on_long == "truncate" else {}
        parts = Parts(self.parts, self.bounds, self.facts, marks)
        write_output(self.output, parts)
        self.loaded.write(self.output)
        write_json(self.record, self.facts, indent=2, sort_keys=True)
        if self.task.heatmaps:
            maps = self.output.with_name(f"{self.output.name}.contacts")
            with optional_picture(maps):
                draw_contacts(maps, parts)
        self.parts.remove()
        outputs = ", ".join(self.embedder.output_names)
        cut = ""
        if self.long.any():
            made = _MADE_OF_LONG[self.embedder.settings.on_long].replace("_", " ")
            cut = f", {int(self.long.sum()):,} longer than {self.embedder.long_rule.max_residues:,} tokens and {made}"
        counts = count_summary(self.facts["records"])
        print(f"{self.output}: {outputs} of {format_count(len(self.store), 'sequence')}{cut}; {counts}")


def _find_long(store: PreparedStore, embedder: Embedder) -> NDArray[np.bool_]:
    """Find the sequences that are too long, before anything is computed; letters are only an upper bound on tokens.

    Raises:
        DataError: there is one, with `on_long=error`.
    """
    rule, long = embedder.long_rule, np.zeros(len(store), dtype=np.bool_)
    for row in np.flatnonzero(store.lengths > rule.max_residues).tolist():
        long[row] = rule.is_long(store[row], embedder.tokenizer)
        if long[row]:
            embedder.check_length(len(embedder.tokenizer.encode(store[row])), store.id(row))
    return long
