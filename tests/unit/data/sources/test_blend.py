"""A blend keeps its proportions at every position, and is the same in every process."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bionemo_core.builtin import load_registry
from bionemo_core.config.schema import Choice
from bionemo_core.data.batches.loader import LoaderSettings, eval_loader, train_loader
from bionemo_core.data.batches.masking import MaskedLanguageObjective
from bionemo_core.data.batches.order import SampleOrder
from bionemo_core.data.batches.rng import RecordRng
from bionemo_core.data.sources.blended_records import BlendedRecords, BlendOrder, JoinedRecords, cycle_shares, schedule
from bionemo_core.data.tokenizer import CharacterTokenizer
from bionemo_core.errors import ConfigError
from bionemo_core.protocols import BuildContext, DataSplits

SHAPE: dict[str, Any] = {"seq_length": 64, "micro_batch_size": 2, "global_batch_size": 8, "pack_window": 32, "seed": 3}


class Poly(list[bytes]):
    """Chains of one residue whose lengths tell them apart."""

    def __init__(self, residue: bytes, count: int) -> None:
        super().__init__(residue * (1 + i) for i in range(count))
        self.lengths = np.array([len(chain) for chain in self], dtype=np.int32)


class Drawing(Poly):
    def draw_record(self, index: int, draw: RecordRng) -> bytes:
        return self[index][: 1 + int(draw.integers(1, len(self[index]))[0])]


PARTS = Poly(b"A", 20), Poly(b"L", 5), Poly(b"G", 7)
SHARES = [6, 3, 1]


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        ([1.0, 1.0], [1, 1]),
        ([0.7, 0.2, 0.1], [7, 2, 1]),
        ([2.0, 4.0], [1, 2]),
        ([5.0], [1]),
        ([1e-3, 1.0], [1, 1000]),
        ([0.33333, 0.66667], [21845, 43691]),  # of 100,000: 21845.1 and 43690.9
    ],
)
def test_shares_are_the_weights(weights: list[float], expected: list[int]) -> None:
    assert cycle_shares(weights) == expected


@pytest.mark.parametrize("weight", [0.0, -1.0, float("nan"), float("inf")])
def test_a_weight_that_is_none_is_refused(weight: float) -> None:
    with pytest.raises(ConfigError, match=r"data\.weights\[1\]: .* expected a number above 0"):
        cycle_shares([1.0, weight])
    with pytest.raises(ConfigError, match=r"data\.weights\[0\]: 1e-06 is less than 1/65536"):
        cycle_shares([1e-6, 1.0])


def test_every_beginning_of_a_cycle_is_in_proportion() -> None:
    assert schedule([1, 1]).tolist() == [0, 1]
    assert schedule([1, 3]).tolist() == [1, 1, 0, 1]
    counts = np.stack([np.cumsum(schedule([6, 3, 1]) == part) for part in range(3)])
    exact = np.arange(1, 11) * np.array([[0.6], [0.3], [0.1]])
    assert np.abs(counts - exact).max() < 1


def test_each_part_passes_over_its_own_records() -> None:
    order = BlendedRecords(PARTS, SHARES).order(seed=5)
    data_pass, index = order.locate(np.arange(1000))
    firsts = [0, 20, 25, 32]
    for part, share in enumerate(SHARES):
        mine = (firsts[part] <= index) & (index < firsts[part + 1])
        assert mine.sum() == 100 * share
        size = len(PARTS[part])
        for number in range(100 * share // size):
            one_pass = index[mine][number * size : (number + 1) * size]
            assert sorted(one_pass - firsts[part]) == list(range(size))
            assert set(data_pass[mine][number * size : (number + 1) * size]) == {number}


def test_the_order_of_a_blend_is_the_published_one() -> None:
    # Golden: a change here breaks the resume of every blended run that exists.
    data_pass, index = BlendedRecords(PARTS, SHARES).order(seed=5).locate(np.arange(20))
    assert data_pass.tolist() == [0] * 17 + [1, 0, 0]
    assert index.tolist() == [6, 0, 21, 13, 24, 8, 5, 23, 11, 29, 1, 7, 22, 3, 20, 10, 4, 24, 18, 26]


def test_any_position_can_be_asked_for() -> None:
    order = BlendedRecords(PARTS, SHARES).order(seed=5)
    together = np.stack(order.locate(np.arange(300)))
    far = np.arange(300) + 10**15
    for positions, expected in ((np.arange(300), together), (far, np.stack(order.locate(far)))):
        one_by_one = [np.stack(order.locate(positions[i : i + 1]))[:, 0] for i in range(300)]
        assert np.stack(one_by_one, axis=1).tolist() == expected.tolist()
    with pytest.raises(ValueError, match="position -1 is negative"):
        order.locate(np.array([-1]))


def test_a_blend_may_hold_a_blend() -> None:
    outer = BlendedRecords([BlendedRecords(PARTS[:2], [3, 1]), PARTS[2]], [1, 1])
    index = outer.order(seed=1).locate(np.arange(800))[1]
    assert [((index >= a) & (index < b)).sum() for a, b in ((0, 20), (20, 25), (25, 32))] == [300, 100, 400]


class Huge:
    """A billion records whose lengths refuse to be read as a whole."""

    class Lengths:
        asked = 0

        def __len__(self) -> int:
            return 10**9

        def __array__(self, *_: object) -> None:
            raise MemoryError

        def __getitem__(self, indices: np.ndarray) -> np.ndarray:
            Huge.Lengths.asked += len(indices)
            return np.asarray(indices % 60, dtype=np.int32)

    lengths = Lengths()

    def __len__(self) -> int:
        return 10**9

    def __getitem__(self, index: int) -> bytes:
        return b"A" * (index % 60)


def test_a_billion_records_are_planned_without_reading_them(tokenizer: CharacterTokenizer, objective: Any) -> None:
    for records in (Huge(), BlendedRecords([Huge(), Huge()], [1, 3])):
        Huge.Lengths.asked = 0
        step = next(iter(train_loader(records, tokenizer, objective, LoaderSettings(**SHAPE), last_step=1)))
        assert step.num_sequences > 8
        assert Huge.Lengths.asked < 70_000  # a sample of 65,536, and one window


@pytest.fixture(scope="module")
def blended(tokenizer: CharacterTokenizer, objective: MaskedLanguageObjective) -> tuple[Any, ...]:
    return BlendedRecords(PARTS, SHARES), tokenizer, objective


def residues(steps: Any, tokenizer: CharacterTokenizer) -> list[bytes]:
    """The chain of each sequence, read from its labels."""
    return [
        tokenizer.decode(batch.labels[(batch.segment_ids == n) & batch.padding_mask].tolist()).encode()
        for step in steps
        for batch in step.micro_batches
        for n in range(batch.num_sequences)
    ]


@pytest.mark.parametrize("packing", [True, False])
def test_training_sees_the_proportions_on_any_ranks_and_after_restarts(blended: tuple[Any, ...], packing: bool) -> None:
    tokenizer = blended[1]
    whole = list(train_loader(*blended, LoaderSettings(**SHAPE, packing=packing), last_step=12))
    seen = Counter(chain[:1] for chain in residues(whole, tokenizer))
    total = sum(seen.values())
    window = SHAPE["pack_window"] if packing else 1
    for residue, share in zip((b"A", b"L", b"G"), SHARES, strict=True):
        assert abs(seen[residue] - total * share / 10) < window
    start = {"first_step": 5, "consumed_samples": whole[4].consumed_samples, "last_step": 12}
    for dp_size, num_workers in ((1, 1), (4, 0)):
        ranks = [
            list(
                train_loader(
                    *blended,
                    LoaderSettings(**SHAPE, packing=packing, dp_rank=r, dp_size=dp_size, num_workers=num_workers),
                    **start,
                )
            )
            for r in range(dp_size)
        ]
        for number, step in enumerate(whole[5:]):
            together = residues([rank[number] for rank in ranks], tokenizer)
            assert sorted(together) == sorted(residues([step], tokenizer))


def test_evaluation_sees_every_record_once(blended: tuple[Any, ...]) -> None:
    joined = JoinedRecords(PARTS)
    chains = residues(eval_loader(joined, *blended[1:], LoaderSettings(**SHAPE)), blended[1])
    assert sorted(chains) == sorted(chain for part in PARTS for chain in part)
    with pytest.raises(IndexError, match="record 32 of 32"):
        joined[32]


def test_records_are_drawn_where_a_part_draws() -> None:
    plain, drawing = JoinedRecords(PARTS), JoinedRecords([PARTS[0], Drawing(b"G", 9)])
    assert not hasattr(plain, "draw_record")
    assert drawing.draw_record(3, RecordRng(0, 0, 3, "record")) == PARTS[0][3]
    drawn = {drawing.draw_record(28, RecordRng(0, data_pass, 28, "record")) for data_pass in range(200)}
    assert drawn == {b"G" * n for n in range(1, 10)}
    assert JoinedRecords([PARTS[0], [b"A"]]).lengths is None


def test_training_goes_on_beyond_the_last_record(tokenizer: CharacterTokenizer, objective: Any) -> None:
    """Upsampling to max_steps: passes follow one another, each visits every record once, with masks of its own."""
    few = Poly(b"A", 5)
    steps = list(train_loader(few, tokenizer, objective, LoaderSettings(**SHAPE, packing=False), last_step=25))
    chains = residues(steps, tokenizer)
    assert len(chains) == 200
    for start in range(0, 200, 5):
        assert sorted(chains[start : start + 5]) == sorted(few)
    longest = [
        tuple(row[:7].tolist())
        for s in steps
        for b in s.micro_batches
        for row in b.tokens
        if row[6] != 3 or row[5] == 2
    ]
    assert len(set(longest)) > 5


def build(context: BuildContext, tokenizer: CharacterTokenizer, **params: Any) -> DataSplits:
    splits: DataSplits = load_registry().build(Choice("data", "blend", params), tokenizer=tokenizer, context=context)
    return splits


@pytest.fixture
def fasta(tmp_path: Path) -> Path:
    path = tmp_path / "a.fasta"
    path.write_text("".join(f">p{i}\n{'MKT' * (i + 1)}\n" for i in range(12)))
    return path


def test_the_component_blends_components_and_files(
    fasta: Path, tokenizer: CharacterTokenizer, context: BuildContext
) -> None:
    parts = [str(fasta), "sample", {"data": "fasta", "path": str(fasta), "val_fraction": 0.0, "test_fraction": 0.0}]
    splits = build(context, tokenizer, parts=parts, weights=[1.0, 2.0, 1.0])
    own = load_registry().build(Choice("data", "sample"), tokenizer=tokenizer, context=context)
    assert len(splits.train) == 10 + len(own.train) + 12
    assert splits.val is not None and len(splits.val) == 1 + len(own.val)
    assert isinstance(splits.train, BlendedRecords)
    index = splits.train.order(0).locate(np.arange(40))[1]
    assert [(index < 10).sum(), (index >= 10 + len(own.train)).sum()] == [10, 10]
    again = build(context, tokenizer, parts=parts, weights=[2.0, 4.0, 2.0])
    other = build(context, tokenizer, parts=parts, weights=[1.0, 1.0, 1.0])
    assert splits.fingerprint == again.fingerprint != other.fingerprint
    equal = build(context, tokenizer, parts=parts)
    assert equal.fingerprint == other.fingerprint


def test_a_part_that_cannot_be_built_is_named(
    fasta: Path, tokenizer: CharacterTokenizer, context: BuildContext
) -> None:
    for params, message in (
        ({"parts": []}, r"data\.parts: is empty"),
        (
            {"parts": [str(fasta)], "weights": [1.0, 2.0]},
            r"data\.weights: has 2 numbers, expected one for each of 1 part",
        ),
        ({"parts": ["sampel"]}, r"data\.parts\[0\]: no data source is called 'sampel'\. Did you mean 'sample'"),
        ({"parts": [{"path": str(fasta)}]}, r"data\.parts\[0\]: .* does not name a data component"),
        ({"parts": ["sample", {"data": "fasta", "pth": "a"}]}, r"data\.parts\[1\]: .*no parameter 'pth'"),
    ):
        with pytest.raises(ConfigError, match=message):
            build(context, tokenizer, **params)


def test_orders_of_parts_differ() -> None:
    order = BlendedRecords([Poly(b"A", 50), Poly(b"L", 50)], [1, 1]).order(0)
    assert isinstance(order, BlendOrder)
    index = order.locate(np.arange(100))[1]
    first, second = index[index < 50], index[index >= 50] - 50
    assert first.tolist() != second.tolist()
    assert first.tolist() != SampleOrder(50, 0).locate(np.arange(50))[1].tolist()
