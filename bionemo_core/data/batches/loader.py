"""The loader of batches: the main process plans steps, workers read, tokenise, mask and collate records."""

import logging
import os
import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset, Sampler, get_worker_info

from bionemo_core.data.batches.batch import StepBatch, micro_batch_of
from bionemo_core.data.batches.order import SampleOrder
from bionemo_core.data.batches.packing import RowLengths
from bionemo_core.data.batches.plans import MicroPlan, Planner, StepPlan
from bionemo_core.data.batches.rng import RecordRng
from bionemo_core.data.batches.rows import RowArrays, RowShape, Seq2SeqArrays, collate, collate_pairs
from bionemo_core.data.model_input import input_form
from bionemo_core.errors import BioNeMoError, ConfigError, DataError
from bionemo_core.io.exhaustion import find_exhaustion
from bionemo_core.plurals import format_count
from bionemo_core.protocols import (
    AnyObjective,
    Example,
    RecordDataset,
    Seq2SeqExample,
    Seq2SeqObjective,
    Tokenizer,
)

log = logging.getLogger("bionemo")

TRAINING = "masking"
EVALUATION = "masking for evaluation"
RECORD = "record"
_GRACE_S = 30


@dataclass(frozen=True)
class LoaderSettings:
    """How records become the batches of a rank; sizes count rows, lengths count tokens."""

    seq_length: int
    """Tokens of a row; of an encoder-decoder those of a source."""
    micro_batch_size: int
    """Rows in one forward pass on one device."""
    global_batch_size: int
    """Rows in one step on all data-parallel ranks."""
    packing: bool = True
    """Whether several sequences stand end to end in a row."""
    pack_window: int = 4096
    """The number of sequences that are considered together when packs are formed."""
    dynamic_padding: bool = True
    """Without packing: whether to pad to the longest sequence of the micro batch, not to `seq_length`."""
    static_shapes: bool = False
    """Whether to use few batch shapes, because layers are compiled for each."""
    seed: int = 1234
    """The seed of order, masks and drawn records."""
    num_workers: int = 0
    """Processes that make batches; 0: this one makes them."""
    dp_rank: int = 0
    dp_size: int = 1
    """The number of data-parallel ranks."""
    pin_memory: bool = False
    """Whether batches are in page-locked memory."""


@dataclass(frozen=True)
class StepArrays:
    """A `StepBatch` in numpy; a worker sends it through a pipe, without shared memory."""

    step: int
    consumed_samples: int
    micro_batches: list[RowArrays | Seq2SeqArrays]
    data_pass: int

    def batch(self) -> StepBatch:
        """Make the batch that shares the memory of these arrays."""
        micro_batches = [micro_batch_of(rows) for rows in self.micro_batches]
        return StepBatch(micro_batches, self.step, self.consumed_samples, self.data_pass)

    def pin_memory(self) -> StepBatch:
        """Make the batch in page-locked memory; DataLoader calls this, in a thread of its own if there are workers."""
        return self.batch().pin_memory()


class WorkerFailure(NamedTuple):
    """A classified error that a worker sends, without its traceback."""

    kind: type[BioNeMoError]
    message: str


class StepDataset(Dataset[Any]):
    """The arrays of each step, as a pure function of its plan in any process."""

    def __init__(
        self,
        records: RecordDataset,
        tokenizer: Tokenizer,
        objective: AnyObjective,
        shape: RowShape,
        seed: int,
        purpose: str,
    ) -> None:
        self._records = records
        self._draw_record = getattr(records, "draw_record", None)
        self._tokenizer = tokenizer
        self._objective: Any = objective
        self._shape = shape
        self._seed = seed
        self._purpose = purpose

    def __getitem__(self, plan: StepPlan) -> StepArrays | WorkerFailure:
        try:
            micro_batches = [self._micro_batch(micro) for micro in plan.micro_batches]
        except BioNeMoError as error:
            if get_worker_info() is None:
                raise
            return WorkerFailure(type(error), str(error))
        return StepArrays(plan.step, plan.consumed_samples, micro_batches, plan.data_pass)

    def _micro_batch(self, plan: MicroPlan) -> RowArrays | Seq2SeqArrays:
        examples: Any = self._examples(plan.data_passes.tolist(), plan.indices.tolist())
        check_sizes(examples, plan)
        own: Any = getattr(self._objective, "collate", None)
        collate_rows: Any = own or (collate_pairs if self._shape.target_length else collate)
        rows: RowArrays | Seq2SeqArrays = collate_rows(examples, plan.num_packs, self._shape)
        rows = rows.with_record_keys(plan.data_passes, plan.indices)
        return rows if plan.counted else rows.without_loss()

    def _examples(self, data_passes: list[int], indices: list[int]) -> Sequence[Example | Seq2SeqExample]:
        keys = list(zip(data_passes, indices, strict=True))
        rngs = [RecordRng(self._seed, data_pass, index, self._purpose) for data_pass, index in keys]
        records = [self._record(data_pass, index) for data_pass, index in keys]
        if hasattr(self._objective, "record_example"):
            return [self._objective.record_example(record, rng) for record, rng in zip(records, rngs, strict=True)]
        ids = [add_bos_eos(self._tokenizer, record, self._shape.seq_length) for record in records]
        if hasattr(self._objective, "examples"):
            examples: Sequence[Example] = self._objective.examples(ids, rngs)
            return examples
        return [self._objective.example(record_ids, rng) for record_ids, rng in zip(ids, rngs, strict=True)]

    def _record(self, data_pass: int, index: int) -> str | bytes:
        if self._draw_record is None:
            return self._records[index]
        record: str | bytes = self._draw_record(index, RecordRng(self._seed, data_pass, index, RECORD))
        return record


def check_sizes(examples: Sequence[Example | Seq2SeqExample], plan: MicroPlan) -> None:
    """Check that every example has tokens, and no more than its pack was planned for.

    Each is compared with its own bound, so that the same records fail for any number of ranks.

    Raises:
        DataError: an example does not fit; the message names the first such record.
    """
    for number, (side, lengths) in enumerate(_lengths_of_sides(examples).items()):
        bounds = [max(lengths)] * len(lengths) if plan.bounds is None else plan.bounds[number].tolist()
        for index, length, bound in zip(plan.indices.tolist(), lengths, bounds, strict=True):
            if not length:
                raise DataError(
                    f"data: record {index}: its example has 0 {side}, expected at least 1. Correct the objective."
                )
            if length > bound:
                raise DataError(
                    f"data: record {index}: its example has {length} {side}, expected at most {bound}. "
                    "The dataset's `lengths` or the objective's `laid_lengths` are too low: correct them."
                )


def _lengths_of_sides(examples: Sequence[Example | Seq2SeqExample]) -> dict[str, list[int]]:
    if all(isinstance(example, Example) for example in examples):
        return {"tokens": [len(example[0]) for example in examples]}
    return {"source tokens": [len(e[0]) for e in examples], "target tokens": [len(e[1]) for e in examples]}


def add_bos_eos(tokenizer: Tokenizer, record: str | bytes, seq_length: int) -> NDArray[np.int32]:
    """Encode a record with BOS and EOS, then truncate it to `seq_length`; a long one loses its EOS, as in v1.

    Letters are replaced as the tokenizer's `input_form` says.
    """
    ids = tokenizer.encode(input_form(tokenizer).spell(record))
    result = np.empty(len(ids) + 2, dtype=np.int32)
    result[0] = tokenizer.bos_id
    result[1:-1] = ids
    result[-1] = tokenizer.eos_id
    return result[:seq_length]


class _StepSampler(Sampler[StepPlan]):
    """The plans of steps, which DataLoader sends to its workers one by one."""

    def __init__(self, planner: Planner, consumed_samples: int, first_step: int, last_step: int) -> None:
        self._planner = planner
        self._range = consumed_samples, first_step, last_step

    def __iter__(self) -> Iterator[StepPlan]:
        return self._planner.training(*self._range)

    def __len__(self) -> int:
        return max(0, self._range[2] - self._range[1])


class StepLoader(DataLoader[Any]):
    """A DataLoader of `StepBatch`es; its workers report classified errors, and leave signals to the main process."""

    def __iter__(self) -> Iterator[StepBatch]:  # type: ignore[override]
        """Yield the steps in order.

        Raises:
            BioNeMoError: a record cannot be used.
            ResourceError: a worker process was killed.
        """
        try:
            for output in super().__iter__():
                if isinstance(output, WorkerFailure):
                    raise output.kind(output.message)
                yield output.batch() if isinstance(output, StepArrays) else output
        except RuntimeError as error:
            raise find_exhaustion(error) or error from error


def _start_worker(worker: int) -> None:
    """Leave signals to the main process, which saves at the end of a step and needs its workers until then.

    The first SIGTERM, which the whole process group may get, only starts a time-out; a second one ends the worker.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)

    def leave(number: int, frame: object) -> None:
        # Exit status 0, because torch raises in the main process for any other.
        os._exit(0)

    def linger(number: int, frame: object) -> None:
        signal.signal(signal.SIGTERM, leave)
        signal.alarm(_GRACE_S)

    signal.signal(signal.SIGALRM, leave)
    signal.signal(signal.SIGTERM, linger)


def _planner(
    dataset: RecordDataset, tokenizer: Tokenizer, objective: AnyObjective, settings: LoaderSettings, split: str
) -> Planner:
    if len(dataset) == 0:
        raise DataError(f"data: the {split} split has no sequences. Name another file, or make the split larger.")
    seq_length = settings.seq_length
    if seq_length < 3:
        raise ConfigError(f"batch.seq_length: {seq_length}, expected at least 3: BOS, a token, EOS.")
    own_order = getattr(dataset, "order", None) if split == "train" else None
    order = own_order(settings.seed) if own_order else SampleOrder(len(dataset), settings.seed)
    two_sides = isinstance(objective, Seq2SeqObjective)
    if settings.packing:
        lengths = _lengths(dataset, tokenizer, split, two_sides=two_sides)
    else:
        lengths = np.broadcast_to(np.int32(1), len(dataset))
    if isinstance(objective, Seq2SeqObjective):
        row_lengths = RowLengths(lengths, (seq_length, objective.target_length), objective.laid_lengths)
    else:
        row_lengths = RowLengths(lengths, (seq_length,), lambda lengths: (np.minimum(lengths + 2, seq_length),))
    return Planner(
        order,
        row_lengths,
        micro_batch_size=settings.micro_batch_size,
        global_batch_size=settings.global_batch_size,
        packing=settings.packing,
        pack_window=settings.pack_window,
        seed=settings.seed,
        dp_rank=settings.dp_rank,
        dp_size=settings.dp_size,
    )


def _lengths(dataset: RecordDataset, tokenizer: Tokenizer, split: str, *, two_sides: bool) -> Any:
    """Return the tokens of each record: the dataset's `lengths`, or its `side_lengths`, [records, 2]; else counted."""
    lengths = getattr(dataset, "lengths", None)
    if two_sides:
        lengths = getattr(dataset, "side_lengths", lengths)
    if lengths is not None:
        return lengths
    if hasattr(dataset, "draw_record"):
        raise ConfigError(
            f"data: the {split} split draws its records but offers no `lengths`, which packing needs as upper bounds. "
            "Add `lengths` to the dataset, or set batch.packing=false."
        )
    log.info(
        "The %s split has no `lengths`; reading its %s once to pack them.", split, format_count(len(dataset), "record")
    )
    return np.array([len(tokenizer.encode(dataset[i])) for i in range(len(dataset))], dtype=np.int32)


def _row_shape(settings: LoaderSettings, tokenizer: Tokenizer, objective: AnyObjective) -> RowShape:
    return RowShape(
        settings.seq_length,
        settings.micro_batch_size,
        tokenizer.pad_id,
        settings.packing,
        settings.dynamic_padding,
        settings.static_shapes,
        target_length=objective.target_length if isinstance(objective, Seq2SeqObjective) else 0,
    )


def _identity(arrays: object) -> object:
    return arrays


def _loader(steps: StepDataset, plans: Any, settings: LoaderSettings, *, persistent_workers: bool) -> StepLoader:
    if settings.num_workers < 0:
        raise ConfigError(f"batch.num_workers: {settings.num_workers}, expected 0 or more.")
    return StepLoader(
        steps,
        batch_size=None,
        sampler=plans,
        collate_fn=_identity,
        num_workers=settings.num_workers,
        worker_init_fn=_start_worker,
        persistent_workers=persistent_workers and settings.num_workers > 0,
        pin_memory=settings.pin_memory,
    )


def train_loader(
    dataset: RecordDataset,
    tokenizer: Tokenizer,
    objective: AnyObjective,
    settings: LoaderSettings,
    *,
    last_step: int,
    first_step: int = 0,
    consumed_samples: int = 0,
) -> StepLoader:
    """Make the loader of steps first_step .. last_step - 1 of a run, for this rank.

    The content of a step depends only on the data, the seed and the batch settings, not on workers, ranks or restarts.

    Args:
        dataset: the records.
        tokenizer: reads the records.
        objective: makes examples from records.
        settings: how records become batches.
        last_step: the number of steps of the run.
        first_step: the first step to load, counted from 0.
        consumed_samples: sequences that all ranks together have consumed before `first_step`.

    Raises:
        ConfigError: the sizes contradict each other, or `consumed_samples` is not the end of a step.
        DataError: the dataset is empty.
    """
    planner = _planner(dataset, tokenizer, objective, settings, "train")
    shape = _row_shape(settings, tokenizer, objective)
    steps = StepDataset(dataset, tokenizer, objective, shape, settings.seed, TRAINING)
    plans = _StepSampler(planner, consumed_samples, first_step, last_step)
    return _loader(steps, plans, settings, persistent_workers=False)


def eval_loader(
    dataset: RecordDataset,
    tokenizer: Tokenizer,
    objective: AnyObjective,
    settings: LoaderSettings,
    *,
    limit_batches: int | None = None,
) -> StepLoader:
    """Make the loader of one pass over the dataset, or of `limit_batches` steps, with the same masks every time.

    The seed shuffles the order, so that a limited evaluation sees a random sample of the dataset.

    Raises:
        ConfigError: the sizes contradict each other.
        DataError: the dataset is empty.
    """
    planner = _planner(dataset, tokenizer, objective, settings, "evaluation")
    shape = _row_shape(settings, tokenizer, objective)
    steps = StepDataset(dataset, tokenizer, objective, shape, settings.seed, EVALUATION)
    return _loader(steps, planner.evaluation(limit_batches), settings, persistent_workers=True)
