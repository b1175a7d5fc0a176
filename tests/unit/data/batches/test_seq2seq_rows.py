"""Sources and targets stay together, within both budgets, for any number of workers and any layout of rows."""

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from bionemo_core.data.batches.batch import Seq2SeqBatch, StepBatch, TokenBatch
from bionemo_core.data.batches.loader import LoaderSettings, eval_loader, train_loader
from bionemo_core.data.batches.rng import RecordRng
from bionemo_core.data.tokenizer import CharacterTokenizer
from bionemo_core.errors import ConfigError, DataError
from bionemo_core.protocols import Example, Seq2SeqExample, Seq2SeqObjective

SEQ_LENGTH, TARGET_LENGTH = 64, 24
SHAPE: dict[str, Any] = {
    "seq_length": SEQ_LENGTH,
    "micro_batch_size": 2,
    "global_batch_size": 8,
    "pack_window": 32,
    "seed": 3,
}
Pair = tuple[list[int], list[int], list[int], list[bool]]


class Beginnings:
    """Asks for about the first third of a record, given a record without a residue or two of it."""

    target_length = TARGET_LENGTH

    def __init__(self, tokenizer: CharacterTokenizer) -> None:
        self.tokenizer = tokenizer

    def record_example(self, record: str | bytes, draw: RecordRng) -> Seq2SeqExample:
        ids = self.tokenizer.encode(record)[:SEQ_LENGTH]
        answer = np.append(ids[: len(ids) // 3], self.tokenizer.eos_id).astype(np.int32)[:TARGET_LENGTH]
        shown = np.append(np.int32(self.tokenizer.bos_id), answer[:-1])
        return Seq2SeqExample(
            ids[: len(ids) - int(draw.integers(1, 2)[0])] if len(ids) > 1 else ids, shown, answer, shown > 4
        )

    def laid_lengths(self, lengths: NDArray[np.integer]) -> tuple[NDArray[np.integer], NDArray[np.integer]]:
        return np.minimum(lengths, SEQ_LENGTH), np.minimum(lengths // 3 + 1, TARGET_LENGTH)


class Proteins(list[bytes]):
    """Random sequences with their lengths."""

    def __init__(self, n: int = 60) -> None:
        rng = np.random.default_rng(1)
        letters = np.frombuffer(b"LASGVERTDIPKNFQYHMCW", dtype=np.uint8)
        super().__init__(rng.choice(letters, rng.integers(1, 80)).tobytes() for _ in range(n))
        self.lengths = np.array([len(sequence) for sequence in self])


@pytest.fixture(scope="module")
def parts(tokenizer: CharacterTokenizer) -> tuple[Any, ...]:
    return Proteins(), tokenizer, Beginnings(tokenizer)


def pairs(batch: Seq2SeqBatch) -> Iterator[Pair]:
    """What the loss sees of each sequence that counts, found by its number."""
    for number in range(batch.num_sequences):
        source, target = ((side.segment_ids == number) & side.padding_mask for side in (batch.source, batch.target))
        yield (
            batch.source.tokens[source].tolist(),
            *(t[target].tolist() for t in (batch.target.tokens, batch.target.labels, batch.target.loss_mask)),
        )


def all_pairs(steps: list[StepBatch]) -> list[Pair]:
    return sorted(pair for step in steps for batch in step.micro_batches for pair in pairs(batch))


def expected(parts: tuple[Any, ...]) -> list[Pair]:
    """The pairs of an evaluation over all records, made without a loader."""
    records, _, objective = parts
    draws = (RecordRng(SHAPE["seed"], 0, index, "masking for evaluation") for index in range(len(records)))
    examples = [objective.record_example(record, draw) for record, draw in zip(records, draws, strict=True)]
    return sorted(tuple(array.tolist() for array in example) for example in examples)


@pytest.mark.parametrize(("packing", "static_shapes"), list(itertools.product([True, False], [True, False])))
def test_every_pair_arrives_whole_however_it_is_laid(
    parts: tuple[Any, ...], packing: bool, static_shapes: bool
) -> None:
    steps = list(eval_loader(*parts, LoaderSettings(**SHAPE, packing=packing, static_shapes=static_shapes)))
    assert all_pairs(steps) == expected(parts)
    assert sum(step.num_sequences for step in steps) == len(parts[0])


@pytest.mark.parametrize("static_shapes", [True, False])
def test_packed_boundaries_serve_cross_attention(parts: tuple[Any, ...], static_shapes: bool) -> None:
    for step in train_loader(*parts, LoaderSettings(**SHAPE, static_shapes=static_shapes), last_step=6):
        for batch in step.micro_batches:
            assert batch.packed
            sides = (batch.source, SEQ_LENGTH), (batch.target, TARGET_LENGTH)
            assert batch.source.cu_seqlens.shape == batch.target.cu_seqlens.shape
            for side, length in sides:
                segments = side.cu_seqlens.diff()
                assert side.cu_seqlens[0] == 0 and side.cu_seqlens[-1] == side.tokens.shape[1]
                assert segments[: side.num_sequences].tolist() == side.lengths
                assert segments.min() >= 0 and segments.max() <= side.max_seqlen <= length
                assert side.position_ids.max() < length
                assert side.num_tokens <= 2 * length
                if static_shapes:
                    assert 2 * length * max(0.5, side.num_tokens / (2 * length)) <= side.tokens.numel() <= 2 * length
            both = torch.stack([batch.source.cu_seqlens.diff(), batch.target.cu_seqlens.diff()])
            if not static_shapes:
                assert both.min() > 0
            else:
                # Padding on both sides is shared out, so that no query is without a key as long as there is a key.
                padding = both[:, batch.num_sequences :]
                if padding[0].sum() >= 2:
                    assert (padding[0][padding[1] > 0] > 0).all()


def test_static_shapes_are_few(parts: tuple[Any, ...]) -> None:
    for packing in (True, False):
        loader = train_loader(*parts, LoaderSettings(**SHAPE, packing=packing, static_shapes=True), last_step=6)
        shapes = {
            (side.tokens.shape, side.max_seqlen, None if side.cu_seqlens is None else side.cu_seqlens.shape)
            for step in loader
            for batch in step.micro_batches
            for side in (batch.source, batch.target)
        }
        assert len(shapes) <= (10 if packing else 8)


def test_the_decoder_row_has_a_budget_of_its_own(parts: tuple[Any, ...]) -> None:
    """With long targets the target side decides, with short ones the source side; no pack exceeds either."""
    _, tokenizer, objective = parts
    for target_length in (TARGET_LENGTH, 40):
        objective = Beginnings(tokenizer)
        objective.target_length = target_length
        for step in train_loader(
            Proteins(), tokenizer, objective, LoaderSettings(**{**SHAPE, "micro_batch_size": 1}), last_step=4
        ):
            for batch in step.micro_batches:
                assert batch.source.num_tokens <= SEQ_LENGTH == batch.source.budget
                assert batch.target.num_tokens <= target_length == batch.target.budget
                assert batch.budget == SEQ_LENGTH + target_length
                assert batch.num_tokens == batch.source.num_tokens + batch.target.num_tokens
                assert batch.num_loss_tokens == int(batch.target.loss_mask.sum()) > 0
                assert not batch.source.loss_mask.any()


@pytest.mark.parametrize("packing", [True, False])
def test_workers_ranks_and_restarts_change_nothing(parts: tuple[Any, ...], packing: bool) -> None:
    whole = list(train_loader(*parts, LoaderSettings(**SHAPE, packing=packing), last_step=6))
    start = {"first_step": 2, "consumed_samples": whole[1].consumed_samples, "last_step": 6}
    for num_workers, dp_size in ((0, 1), (1, 1), (2, 2), (0, 4)):
        ranks = [
            list(
                train_loader(
                    *parts,
                    LoaderSettings(**SHAPE, packing=packing, num_workers=num_workers, dp_rank=rank, dp_size=dp_size),
                    **start,
                )
            )
            for rank in range(dp_size)
        ]
        for number, step in enumerate(whole[2:]):
            assert all_pairs([rank[number] for rank in ranks]) == all_pairs([step])
            assert {rank[number].consumed_samples for rank in ranks} == {step.consumed_samples}


def test_what_fills_up_an_evaluation_does_not_count(parts: tuple[Any, ...]) -> None:
    _, tokenizer, objective = parts
    step = next(iter(eval_loader(Proteins(1), tokenizer, objective, LoaderSettings(**SHAPE, dp_rank=1, dp_size=4))))
    assert (step.num_sequences, step.num_tokens, step.num_loss_tokens, step.capacity) == (0, 0, 0, 0)
    assert step.micro_batches[0].source.tokens.numel() > 0


def test_a_batch_moves_with_both_sides(parts: tuple[Any, ...]) -> None:
    step = next(iter(train_loader(*parts, LoaderSettings(**SHAPE), last_step=1)))
    moved = step.to("meta").micro_batches[0]
    assert isinstance(moved, Seq2SeqBatch)
    assert {side.tokens.device.type for side in (moved.source, moved.target)} == {"meta"}


class TooLong(Beginnings):
    """Makes longer targets than it declares."""

    def record_example(self, record: str | bytes, draw: RecordRng) -> Seq2SeqExample:
        example = super().record_example(record, draw)
        twice = (np.concatenate([array, array]) for array in example[1:])
        return Seq2SeqExample(example.source, *twice)


class Empty(Beginnings):
    """Makes sources without a token."""

    def record_example(self, record: str | bytes, draw: RecordRng) -> Seq2SeqExample:
        return super().record_example(record, draw)._replace(source=np.empty(0, dtype=np.int32))


@pytest.mark.parametrize("dp_size", [1, 4])
def test_examples_beyond_their_bounds_are_refused_by_name(parts: tuple[Any, ...], dp_size: int) -> None:
    records, tokenizer, _ = parts
    short = Proteins()
    short.lengths = short.lengths - 2
    for dataset, objective, message in (
        (
            records,
            TooLong(tokenizer),
            r"record \d+: its example has \d+ target tokens, expected at most \d+\. The dataset's",
        ),
        (
            short,
            Beginnings(tokenizer),
            r"record \d+: its example has \d+ source tokens, expected at most \d+\. The dataset's",
        ),
        (records, Empty(tokenizer), r"record \d+: its example has 0 source tokens, expected at least 1"),
    ):
        with pytest.raises(DataError, match=message):
            list(train_loader(dataset, tokenizer, objective, LoaderSettings(**SHAPE, dp_size=dp_size), last_step=1))


def test_a_row_too_short_for_the_objective_is_refused(parts: tuple[Any, ...]) -> None:
    with pytest.raises(ConfigError, match=r"record \d+ has \d+ source tokens, but a pack holds 32.*batch\.seq_length"):
        list(train_loader(*parts, LoaderSettings(**{**SHAPE, "seq_length": 32}), last_step=1))
    with pytest.raises(DataError, match=r"padding: a sequence has \d+ tokens, but a row holds 32"):
        list(train_loader(*parts, LoaderSettings(**{**SHAPE, "seq_length": 32}, packing=False), last_step=1))


class Drawn(Proteins):
    """One of several spellings of each record, by the pass over the data."""

    def draw_record(self, index: int, draw: RecordRng) -> bytes:
        sequence = self[index]
        return sequence[: max(1, len(sequence) - int(draw.integers(1, 8)[0]))]


class OneSided:
    """An objective that sees the record itself, for a network without a decoder."""

    def __init__(self, tokenizer: CharacterTokenizer) -> None:
        self.tokenizer = tokenizer

    def record_example(self, record: str | bytes, draw: RecordRng) -> Example:
        ids = self.tokenizer.encode(record)[:SEQ_LENGTH]
        return Example(ids, ids, np.ones(len(ids), dtype=np.bool_))


def test_a_drawn_record_depends_on_the_pass_and_the_record_alone(tokenizer: CharacterTokenizer) -> None:
    parts = Drawn(), tokenizer, OneSided(tokenizer)
    passes = [
        {
            tuple(batch.tokens[0][batch.segment_ids[0] == n].tolist())
            for step in train_loader(*parts, LoaderSettings(**{**SHAPE, "micro_batch_size": size}), last_step=40)
            for batch in step.micro_batches
            for n in range(batch.num_sequences)
        }
        for size in (1, 4)
    ]
    assert passes[0] == passes[1]
    by_hand = {
        tuple(tokenizer.encode(parts[0].draw_record(index, RecordRng(3, 0, index, "record")))[:SEQ_LENGTH].tolist())
        for index in range(len(parts[0]))
    }
    assert by_hand < passes[0]
    batches = [
        batch for step in train_loader(*parts, LoaderSettings(**SHAPE), last_step=1) for batch in step.micro_batches
    ]
    assert all(isinstance(batch, TokenBatch) for batch in batches)


def test_drawn_records_without_bounds_are_refused_by_packing(tokenizer: CharacterTokenizer) -> None:
    records = Drawn()
    del records.lengths
    with pytest.raises(ConfigError, match=r"draws its records but offers no `lengths`.*batch\.packing=false"):
        train_loader(records, tokenizer, OneSided(tokenizer), LoaderSettings(**SHAPE), last_step=1)
    assert list(
        train_loader(records, tokenizer, OneSided(tokenizer), LoaderSettings(**SHAPE, packing=False), last_step=1)
    )


def test_the_objective_is_known_by_what_it_offers(tokenizer: CharacterTokenizer) -> None:
    assert isinstance(Beginnings(tokenizer), Seq2SeqObjective)
    assert not isinstance(OneSided(tokenizer), Seq2SeqObjective)
