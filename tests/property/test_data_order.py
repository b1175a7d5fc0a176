"""Order, packs and masks keep their promises for every size and seed."""

import itertools
from itertools import islice

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from bionemo_core.data.batches.masking import MaskedLanguageObjective
from bionemo_core.data.batches.order import SampleOrder
from bionemo_core.data.batches.packing import RowLengths, balanced_bins, best_fit, best_fit_of_pairs, packs
from bionemo_core.data.batches.rng import RecordRng
from bionemo_core.data.sources.blended_records import BlendOrder, schedule

seeds = st.integers(0, 2**64 - 1)


@given(st.integers(1, 3000), seeds, st.integers(0, 5), st.booleans())
def test_order_is_a_bijection_in_every_pass(num_samples: int, seed: int, data_pass: int, shuffle: bool) -> None:
    positions = np.arange(num_samples) + data_pass * num_samples
    passes, index = SampleOrder(num_samples, seed, shuffle).locate(positions)
    assert (passes == data_pass).all()
    assert np.bincount(index, minlength=num_samples).tolist() == [1] * num_samples


@given(st.integers(1, 10**15), seeds, st.lists(st.integers(0, 10**17), min_size=1, max_size=20))
def test_order_has_random_access(num_samples: int, seed: int, positions: list[int]) -> None:
    order = SampleOrder(num_samples, seed)
    together = order.locate(np.array(positions))
    one_by_one = [order.locate(np.array([position])) for position in positions]
    assert together[0].tolist() == [int(p[0]) for p, _ in one_by_one]
    assert together[1].tolist() == [int(i[0]) for _, i in one_by_one]
    assert ((together[1] >= 0) & (together[1] < num_samples)).all()


@given(
    st.lists(st.integers(1, 64), min_size=1, max_size=80),
    st.integers(1, 50),
    st.integers(1, 4),
    st.integers(0, 99),
    st.booleans(),
)
def test_packs_partition_every_window(
    lengths: list[int], window: int, num_windows: int, seed: int, packing: bool
) -> None:
    order, sizes = SampleOrder(len(lengths), seed), np.array(lengths)
    stop = window * num_windows
    result = list(packs(order, RowLengths(sizes, (64,)), window, stop=stop, packing=packing, seed=seed))
    seen = 0
    for pack in result:
        tokens = sizes[order.locate(pack.positions)[1]]
        assert pack.sizes.tolist() == [tokens.tolist()]
        assert tokens.sum() <= 64
        assert {int(p) // window for p in pack.positions} == {seen // window}
        seen += len(pack.positions)
        assert packing or pack.positions.tolist() == [seen - 1]
    assert sorted(np.concatenate([pack.positions for pack in result])) == list(range(stop))


@given(st.lists(st.integers(1, 64), min_size=1, max_size=60), st.integers(1, 40), st.integers(0, 30))
def test_packs_resume_at_every_boundary(lengths: list[int], window: int, place: int) -> None:
    order, row_lengths = SampleOrder(len(lengths), 1), RowLengths(np.array(lengths), (64,))
    whole = list(islice(packs(order, row_lengths, window), place + 5))
    consumed = sum(len(pack.positions) for pack in whole[:place])
    rest = list(islice(packs(order, row_lengths, window, consumed), 5))
    assert [p.positions.tolist() for p in rest] == [p.positions.tolist() for p in whole[place:]]


@given(st.lists(st.integers(1, 32), max_size=200))
def test_dealt_bins_hold_everything_once_and_are_alike(sizes: list[int]) -> None:
    bins = balanced_bins(np.array(sizes, dtype=np.int64), 64)
    assert sorted(itertools.chain.from_iterable(chosen.tolist() for chosen in bins)) == list(range(len(sizes)))
    loads = [sum(sizes[i] for i in chosen) for chosen in bins]
    assert all(load <= 64 for load in loads)
    assert len(bins) <= -(-sum(sizes) // 64) * 2
    if bins:
        assert max(loads) - min(loads) <= 32  # no more than one item


@given(st.lists(st.integers(1, 32), max_size=200), st.integers(1, 10))
def test_best_fit_respects_both_limits(sizes: list[int], max_sequences: int) -> None:
    bins = best_fit(np.array(sizes, dtype=np.int64), 32, max_sequences)
    assert sorted(i for chosen in bins for i in chosen.tolist()) == list(range(len(sizes)))
    assert all(sum(sizes[i] for i in chosen) <= 32 and len(chosen) <= max_sequences for chosen in bins)


@given(
    st.lists(st.tuples(st.integers(1, 32), st.integers(1, 20)), min_size=1, max_size=200),
    st.integers(1, 10),
)
def test_best_fit_respects_the_budgets_of_both_sides(pairs: list[tuple[int, int]], max_sequences: int) -> None:
    bins = best_fit_of_pairs(np.array(pairs, dtype=np.int64).T, (32, 20), max_sequences)
    assert sorted(i for chosen in bins for i in chosen.tolist()) == list(range(len(pairs)))
    for chosen in bins:
        assert sum(pairs[i][0] for i in chosen) <= 32 and sum(pairs[i][1] for i in chosen) <= 20
        assert len(chosen) <= max_sequences


@given(st.lists(st.integers(1, 60), min_size=1, max_size=12))
def test_a_blend_is_in_proportion_after_any_number_of_positions(shares: list[int]) -> None:
    parts, total = schedule(shares), sum(shares)
    for part, share in enumerate(shares):
        counts = np.cumsum(parts == part)
        # In whole numbers, times `total`: strictly within one record of the exact share.
        assert (np.abs(counts * total - np.arange(1, total + 1) * share) < total).all()


@given(
    st.lists(st.tuples(st.integers(1, 40), st.integers(1, 9)), min_size=1, max_size=6),
    seeds,
    st.lists(st.integers(0, 10**17), min_size=1, max_size=20),
)
def test_a_blend_has_random_access_and_passes_over_each_part(
    parts: list[tuple[int, int]], seed: int, positions: list[int]
) -> None:
    sizes, shares = (list(column) for column in zip(*parts, strict=True))
    order = BlendOrder([SampleOrder(size, seed) for size in sizes], sizes, shares)
    together = order.locate(np.array(positions))
    one_by_one = [order.locate(np.array([position])) for position in positions]
    assert together[1].tolist() == [int(i[0]) for _, i in one_by_one]
    rounds = 40 * sum(shares)
    data_pass, index = order.locate(np.arange(rounds))
    pairs = set(zip(data_pass.tolist(), index.tolist(), strict=True))
    assert len(pairs) == rounds  # no record twice in one pass over its part
    for first, size, share in zip(np.cumsum([0, *sizes]).tolist(), sizes, shares, strict=False):
        mine = (index >= first) & (index < first + size)
        assert mine.sum() == 40 * share
        assert data_pass[mine].max() == (40 * share - 1) // size


@given(
    st.lists(st.integers(0, 29), min_size=1, max_size=300),
    st.floats(0, 1),
    st.tuples(st.integers(0, 10), st.integers(0, 10), st.integers(0, 10)).filter(any),
    seeds,
    st.integers(0, 2**40),
)
def test_masks_keep_the_rule(
    tokens: list[int], modify: float, shares: tuple[int, int, int], seed: int, index: int
) -> None:
    mask, perturb, identity = (share / sum(shares) for share in shares)
    objective = MaskedLanguageObjective(
        mask_id=4,
        special_ids=range(5),
        vocab_size=30,
        modify_percent=modify,
        mask_percent=mask,
        perturb_percent=perturb,
        identity_percent=identity,
    )
    ids = np.array(tokens, dtype=np.int32)
    first, again = (objective.example(ids, RecordRng(seed, 0, index, "m")) for _ in range(2))
    assert (first.tokens == again.tokens).all() and (first.loss_mask == again.loss_mask).all()
    assert (first.labels == ids).all() and ids.tolist() == tokens
    chosen, changed = first.loss_mask, first.tokens != ids
    assert not changed[~chosen].any()
    assert chosen.any() == (modify > 0)
    assert modify < 1 or chosen.all()
    perturbed = changed & (first.tokens != 4)
    assert (first.tokens[perturbed] >= 5).all()
    if identity == 0:
        assert (changed | (ids == 4))[chosen].all()
    if perturb == 0:
        assert not perturbed.any()
