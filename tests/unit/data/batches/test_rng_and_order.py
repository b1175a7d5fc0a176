"""Random numbers and order are functions: the same arguments give the same result in every release."""

import numpy as np
import pytest

from bionemo_core.data.batches.order import SampleOrder
from bionemo_core.data.batches.rng import RecordRng

GOLDEN_WORDS = [1508436522180412645, 17346988125553491259, 15675521924310243506]
GOLDEN_ORDER = [0, 3, 1, 7, 9, 2, 6, 8, 5, 4, 2, 9, 1, 0, 5, 4, 8, 6, 3, 7]


def test_stream_is_the_published_one() -> None:
    # Golden: a change here breaks the resume of every run that exists.
    assert RecordRng(1, 2, 3, "x").words(3).tolist() == GOLDEN_WORDS
    assert SampleOrder(10, seed=7).locate(np.arange(20))[1].tolist() == GOLDEN_ORDER


def test_streams_do_not_disturb_each_other() -> None:
    alone = RecordRng(5, 0, 9, "mask")
    expected = [alone.uniform(6), alone.uniform(5)]
    first, other = RecordRng(5, 0, 9, "mask"), RecordRng(5, 0, 10, "mask")
    got = [first.uniform(6)]
    other.uniform(100)
    got.append(first.uniform(5))
    assert all((a == b).all() for a, b in zip(expected, got, strict=True))


@pytest.mark.parametrize("n", range(1, 10))
def test_calls_share_no_words(n: int) -> None:
    stream = RecordRng(5, 0, 9, "mask")
    words = np.concatenate([stream.words(n) for _ in range(5)])
    assert len(set(words.tolist())) == len(words)


def test_every_argument_matters() -> None:
    streams = [
        RecordRng(*key).words(4).tobytes()
        for key in [(1, 2, 3, "a"), (2, 2, 3, "a"), (1, 3, 3, "a"), (1, 2, 4, "a"), (1, 2, 3, "b")]
    ]
    assert len(set(streams)) == len(streams)


def test_draws_are_uniform() -> None:
    uniform = np.concatenate([RecordRng(0, 0, index, "u").uniform(100) for index in range(500)])
    assert uniform.min() >= 0 and uniform.max() < 1
    assert abs(uniform.mean() - 0.5) < 0.005
    counts = np.bincount(RecordRng(0, 0, 0, "i").integers(70_000, 7), minlength=7)
    assert ((counts - 10_000) ** 2 / 10_000).sum() < 25  # chi-square, 6 degrees of freedom: p = 0.0003


def test_integers_refuses_an_empty_range() -> None:
    with pytest.raises(ValueError, match="high is 0"):
        RecordRng(0, 0, 0, "i").integers(1, 0)


def test_passes_differ_and_look_random() -> None:
    order = SampleOrder(1000, seed=3)
    first, second = (order.locate(np.arange(p * 1000, (p + 1) * 1000))[1] for p in (0, 1))
    assert (first == second).mean() < 0.02
    assert abs(np.corrcoef(first, np.arange(1000))[0, 1]) < 0.1
    assert abs(np.corrcoef(first[1:], first[:-1])[0, 1]) < 0.1


def test_all_orders_of_a_small_set_occur_equally_often() -> None:
    orders = [tuple(SampleOrder(3, seed).locate(np.arange(3))[1].tolist()) for seed in range(3000)]
    counts = np.array([orders.count(order) for order in sorted(set(orders))])
    assert len(counts) == 6
    assert ((counts - 500) ** 2 / 500).sum() < 25


def test_a_billion_records_cost_nothing() -> None:
    order = SampleOrder(10**12, seed=0)
    data_pass, index = order.locate(np.array([0, 10**12 - 1, 10**12, 5 * 10**12 + 7]))
    assert data_pass.tolist() == [0, 0, 1, 5]
    assert ((index >= 0) & (index < 10**12)).all()
