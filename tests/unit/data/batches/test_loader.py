"""A step is the same for any number of workers, ranks or restarts."""

import copy
import os
import signal
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from bionemo_core.data.batches.batch import StepBatch, TokenBatch
from bionemo_core.data.batches.loader import LoaderSettings, eval_loader, train_loader
from bionemo_core.data.batches.masking import MaskedLanguageObjective
from bionemo_core.data.batches.rows import RowShape, collate, round_up_segments
from bionemo_core.data.tokenizer import CharacterTokenizer
from bionemo_core.errors import ConfigError, DataError, ResourceError
from bionemo_core.protocols import Example

SHAPE: dict[str, Any] = {"seq_length": 64, "micro_batch_size": 2, "global_batch_size": 8, "pack_window": 32, "seed": 3}


class Proteins(list[bytes]):
    """Random sequences with their lengths."""

    def __init__(self, n: int = 40) -> None:
        rng = np.random.default_rng(0)
        letters = np.frombuffer(b"LASGVERTDIPKNFQYHMCW", dtype=np.uint8)
        super().__init__(rng.choice(letters, rng.integers(1, 80)).tobytes() for _ in range(n))
        self.lengths = np.array([len(sequence) for sequence in self])


@pytest.fixture
def parts(tokenizer: CharacterTokenizer, objective: MaskedLanguageObjective) -> tuple[Any, ...]:
    return Proteins(), tokenizer, objective


def sequences(batch: TokenBatch) -> Iterator[tuple[list[int], ...]]:
    """Return what the loss sees of each sequence that counts, in any layout of rows."""
    if batch.num_sequences == 0:
        return
    for number in range(batch.num_sequences):
        real = (batch.segment_ids == number) & batch.padding_mask
        yield tuple(t[real].tolist() for t in (batch.tokens, batch.labels, batch.loss_mask, batch.position_ids))


def all_sequences(steps: list[StepBatch]) -> list[tuple[list[int], ...]]:
    return sorted(s for step in steps for batch in step.micro_batches for s in sequences(batch))


SHAPES = [
    {},
    {"static_shapes": True},
    {"packing": False},
    {"packing": False, "static_shapes": True},
    {"packing": False, "dynamic_padding": False},
]


@pytest.mark.parametrize("extra", SHAPES)
def test_rows_are_consistent(parts: tuple[Any, ...], extra: dict[str, Any]) -> None:
    tokenizer = parts[1]
    for step in train_loader(*parts, LoaderSettings(**SHAPE, **extra), last_step=4):
        assert len(step.micro_batches) == 4
        for batch in step.micro_batches:
            assert batch.packed == extra.get("packing", True)
            assert (batch.tokens == batch.labels)[~batch.loss_mask].all()
            assert (batch.tokens[~batch.padding_mask] == tokenizer.pad_id).all()
            assert not batch.loss_mask[~batch.padding_mask].any()
            assert batch.num_loss_tokens == int(batch.loss_mask.sum()) > 0
            assert batch.num_sequences == len(batch.lengths)
            assert batch.num_tokens == sum(batch.lengths)
            for number, (_, labels, _, positions) in enumerate(sequences(batch)):
                assert positions == list(range(batch.lengths[number]))
                assert labels[0] == tokenizer.bos_id
                assert labels[-1] == tokenizer.eos_id or len(labels) == 64
            if batch.packed:
                boundaries = batch.cu_seqlens.tolist()
                assert batch.tokens.shape[0] == 1
                assert boundaries[-1] == batch.tokens.shape[1] and boundaries == sorted(boundaries)
                assert max(np.diff(boundaries)) <= batch.max_seqlen
                assert boundaries[: len(batch.lengths) + 1] == np.cumsum([0, *batch.lengths]).tolist()
                assert batch.position_ids.max() < 64


@pytest.mark.parametrize("extra", SHAPES)
def test_record_keys_name_the_record_of_each_sequence(parts: tuple[Any, ...], extra: dict[str, Any]) -> None:
    records, tokenizer, _ = parts
    seen = []
    for step in train_loader(*parts, LoaderSettings(**SHAPE, **extra), last_step=8):
        for batch in step.micro_batches:
            assert len(batch.record_keys) == (len(batch.cu_seqlens) - 1 if batch.packed else len(batch.tokens))
            keys = batch.record_keys.tolist()
            seen += [tuple(key) for key in keys[: batch.num_sequences]]
            for (_, index), (_, labels, _, _) in zip(keys, sequences(batch), strict=False):
                ids = tokenizer.encode(records[index]).tolist()
                assert labels[1 : 1 + len(ids)] == ids[:63]
    assert len(set(seen)) == len(seen) and {data_pass for data_pass, _ in seen} >= {0, 1}


def test_static_shapes_are_few(parts: tuple[Any, ...]) -> None:
    fixed = {"packing": False, "dynamic_padding": False}
    for extra, most in (({}, 5), ({"packing": False}, 4), (fixed, 1)):
        loader = train_loader(*parts, LoaderSettings(**SHAPE, **extra, static_shapes=True), last_step=6)
        batches = [batch for step in loader for batch in step.micro_batches]
        shapes = {(b.tokens.shape, b.max_seqlen, None if b.cu_seqlens is None else b.cu_seqlens.shape) for b in batches}
        assert len(shapes) <= most
        full = SHAPE["seq_length"] * SHAPE["micro_batch_size"]
        assert all(full // 2 <= shape[0].numel() <= full for shape in shapes if shape[2] is not None)


def test_padded_rows_under_static_shapes_have_one_of_four_lengths() -> None:
    shape = RowShape(seq_length=50, micro_batch_size=3, pad_id=0, packing=False, static_shapes=True)
    found = []
    for longest in range(1, 51):
        ids = [np.arange(1, 1 + size, dtype=np.int32) for size in (longest, 1)]
        rows = collate([Example(one, one, np.ones(len(one), dtype=np.bool_)) for one in ids], 2, shape)
        found.append(rows.tokens.shape)
        assert rows.tokens.shape[1] - longest < 13
        assert rows.tokens[0, :longest].tolist() == ids[0].tolist()
        assert rows.padding_mask[:2].sum() == longest + 1
    assert sorted(set(found)) == [(3, 13), (3, 26), (3, 39), (3, 50)]


def test_segments_under_static_shapes_come_in_few_numbers() -> None:
    numbers = [round_up_segments(count) for count in range(1, 5000)]
    assert all(count <= number <= max(16, 2 * count) for count, number in enumerate(numbers, start=1))
    assert all(number <= 1.25 * count for count, number in enumerate(numbers, start=1) if count > 512)
    assert len(set(numbers)) < 24


def test_shape_changes_nothing_in_a_packed_step(parts: tuple[Any, ...]) -> None:
    dynamic = list(train_loader(*parts, LoaderSettings(**SHAPE), last_step=3))
    static = list(train_loader(*parts, LoaderSettings(**SHAPE, static_shapes=True), last_step=3))
    assert all_sequences(dynamic) == all_sequences(static)


@pytest.mark.parametrize("packing", [True, False])
def test_workers_and_restarts_change_nothing(parts: tuple[Any, ...], packing: bool) -> None:
    whole = list(train_loader(*parts, LoaderSettings(**SHAPE, packing=packing), last_step=6))
    for num_workers in (0, 1, 2):
        rest = list(
            train_loader(
                *parts,
                LoaderSettings(**SHAPE, packing=packing, num_workers=num_workers),
                first_step=2,
                consumed_samples=whole[1].consumed_samples,
                last_step=6,
            )
        )
        assert [step.step for step in rest] == [2, 3, 4, 5]
        for a, b in zip(whole[2:], rest, strict=True):
            assert a.consumed_samples == b.consumed_samples
            assert [x.tokens.tolist() for x in a.micro_batches] == [x.tokens.tolist() for x in b.micro_batches]


@pytest.mark.parametrize("packing", [True, False])
def test_ranks_share_the_global_batch(parts: tuple[Any, ...], packing: bool) -> None:
    alone = list(train_loader(*parts, LoaderSettings(**SHAPE, packing=packing), last_step=3))
    for dp_size in (2, 4):
        ranks = [
            list(
                train_loader(*parts, LoaderSettings(**SHAPE, packing=packing, dp_rank=r, dp_size=dp_size), last_step=3)
            )
            for r in range(dp_size)
        ]
        for number, step in enumerate(alone):
            assert all_sequences([step]) == all_sequences([rank[number] for rank in ranks])
            assert {rank[number].consumed_samples for rank in ranks} == {step.consumed_samples}


def test_a_step_says_its_pass_over_the_data(parts: tuple[Any, ...]) -> None:
    loaders = [
        train_loader(*parts, LoaderSettings(**SHAPE, packing=False, dp_rank=r, dp_size=4), last_step=11)
        for r in range(4)
    ]
    # 40 proteins, 8 a step: the step in which a pass ends is the fifth.
    assert [[step.data_pass for step in loader] for loader in loaders] == [[0] * 5 + [1] * 5 + [2]] * 4


def test_the_pass_follows_the_count_where_a_window_spans_several(parts: tuple[Any, ...]) -> None:
    shape = {**SHAPE, "pack_window": 400}  # ten passes over 40 proteins
    steps = list(train_loader(*parts, LoaderSettings(**shape, packing=True), last_step=12))
    assert [step.data_pass for step in steps] == [(step.consumed_samples - 1) // 40 for step in steps]
    assert steps[0].data_pass == 0 < steps[-1].data_pass


@pytest.mark.processes
def test_evaluation_sees_everything_once_with_the_same_masks(parts: tuple[Any, ...]) -> None:
    loader = eval_loader(*parts, LoaderSettings(**SHAPE, num_workers=1))
    first, second = list(loader), list(loader)
    assert all_sequences(first) == all_sequences(second)
    assert sum(step.num_sequences for step in first) == 40 == first[-1].consumed_samples
    assert len(loader) == len(first)
    for dp_size in (2, 4):
        ranks = [list(eval_loader(*parts, LoaderSettings(**SHAPE, dp_rank=r, dp_size=dp_size))) for r in range(dp_size)]
        assert sorted(all_sequences([s for rank in ranks for s in rank])) == all_sequences(first)
        assert len({tuple(len(step.micro_batches) for step in rank) for rank in ranks}) == 1
    assert len(list(eval_loader(*parts, LoaderSettings(**SHAPE), limit_batches=1))) == 1


@pytest.mark.parametrize("packing", [True, False])
def test_validation_has_masks_of_its_own(parts: tuple[Any, ...], packing: bool) -> None:
    _, tokenizer, objective = parts
    records = [b"MKTAYIAKQRQISFVKSHFSRQ" * 2 + bytes([letter]) for letter in b"ACDEFGHI"]  # each occurs once
    train = list(train_loader(records, tokenizer, objective, LoaderSettings(**SHAPE, packing=packing), last_step=1))
    evaluation = list(eval_loader(records, tokenizer, objective, LoaderSettings(**SHAPE, packing=packing)))
    masks = [
        {tuple(labels): tuple(loss_mask) for _, labels, loss_mask, _ in all_sequences(steps)}
        for steps in (train, evaluation)
    ]
    shared = masks[0].keys() & masks[1].keys()  # the first pass of training has the same records
    assert len(shared) > 2
    assert all(masks[0][record] != masks[1][record] for record in shared)


def test_what_fills_up_an_evaluation_does_not_count(parts: tuple[Any, ...]) -> None:
    _, tokenizer, objective = parts
    few = Proteins(1)
    step = next(iter(eval_loader(few, tokenizer, objective, LoaderSettings(**SHAPE, dp_rank=1, dp_size=4))))
    assert (step.num_sequences, step.num_tokens, step.num_loss_tokens, step.capacity) == (0, 0, 0, 0)
    assert step.micro_batches[0].tokens.numel() > 0


def test_training_and_evaluation_masks_differ_from_pass_to_pass(parts: tuple[Any, ...]) -> None:
    _, tokenizer, objective = parts
    loader = train_loader([b"MKTAYIAKQRQISFVKSHFSRQ" * 2], tokenizer, objective, LoaderSettings(**SHAPE), last_step=2)
    rows = [tuple(s[0]) for step in loader for batch in step.micro_batches for s in sequences(batch)]
    assert len(set(rows)) > 0.9 * len(rows)


def test_sizes_that_contradict_are_refused(parts: tuple[Any, ...]) -> None:
    with pytest.raises(ConfigError, match="8 is not a multiple of micro_batch_size 3 x 1"):
        train_loader(*parts, LoaderSettings(**{**SHAPE, "micro_batch_size": 3}), last_step=1)
    with pytest.raises(DataError, match="no sequences"):
        train_loader([], *parts[1:], LoaderSettings(**SHAPE), last_step=1)


class Broken(Proteins):
    def __getitem__(self, index: Any) -> bytes:
        raise DataError(f"x.fasta: record {index} is gone")


class Deadly(Proteins):
    def __getitem__(self, index: Any) -> bytes:
        os.kill(os.getpid(), signal.SIGKILL)
        return b""


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_bad_record_keeps_its_message(parts: tuple[Any, ...], num_workers: int) -> None:
    with pytest.raises(DataError, match=r"^x\.fasta: record \d+ is gone$"):
        list(train_loader(Broken(), *parts[1:], LoaderSettings(**SHAPE, num_workers=num_workers), last_step=1))


@pytest.mark.processes
def test_a_dead_worker_is_an_error(parts: tuple[Any, ...]) -> None:
    with pytest.raises(ResourceError, match=r"DataLoader worker \(pid.*num_workers"):
        list(train_loader(Deadly(), *parts[1:], LoaderSettings(**SHAPE, num_workers=1), last_step=1))


class Signalled(Proteins):
    def __getitem__(self, index: Any) -> bytes:
        for number in (signal.SIGINT, signal.SIGUSR1):
            os.kill(os.getpid(), number)
        return super().__getitem__(index)


class Terminated(Proteins):
    sent = False

    def __getitem__(self, index: Any) -> bytes:
        if not self.sent:
            self.sent = True
            os.kill(os.getpid(), signal.SIGTERM)
        return super().__getitem__(index)


@pytest.mark.processes
@pytest.mark.parametrize("records", [Signalled(), Terminated()])
def test_workers_leave_signals_to_the_run(parts: tuple[Any, ...], records: Proteins) -> None:
    steps = list(train_loader(records, *parts[1:], LoaderSettings(**SHAPE, num_workers=1), last_step=2))
    assert all_sequences(steps) == all_sequences(list(train_loader(*parts, LoaderSettings(**SHAPE), last_step=2)))


def test_batches_move_and_travel(parts: tuple[Any, ...]) -> None:
    step = next(iter(train_loader(*parts, LoaderSettings(**SHAPE), last_step=1)))
    moved = step.to("cpu").to(torch.device("meta"))
    assert moved.micro_batches[0].cu_seqlens.device.type == "meta"
    assert moved.num_loss_tokens == step.num_loss_tokens
    twin = copy.deepcopy(step)
    assert twin.micro_batches[0].tokens.equal(step.micro_batches[0].tokens)
    assert 0 < step.num_tokens <= step.capacity
