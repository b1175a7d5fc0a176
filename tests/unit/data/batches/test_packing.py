"""Packs partition the order, are full, and can be resumed at the end of any pack."""

from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from bionemo_core.data.batches.order import SampleOrder
from bionemo_core.data.batches.packing import RowLengths, packs
from bionemo_core.data.readers import FastaSource
from bionemo_core.errors import ConfigError


def _lengths(n: int = 3000) -> np.ndarray:
    return np.clip(np.random.default_rng(0).lognormal(5.45, 0.75, n).astype(int), 20, 512)


@pytest.mark.parametrize("capacity", [512, 1024])
def test_real_proteins_fill_the_packs(realdata: Path, capacity: int) -> None:
    source = FastaSource(realdata / "uniprot_16k.fasta.gz")
    residues = [len(record.sequence.translate(None, b"\n")) for record in source.records(source.paths[0])]
    lengths = np.minimum(np.array(residues) + 2, capacity)
    result = list(islice(packs(SampleOrder(len(lengths), 0), RowLengths(lengths, (capacity,)), 4096), 4000))
    assert sum(int(pack.sizes.sum()) for pack in result) / (len(result) * capacity) >= 0.97


def test_both_budgets_are_kept_and_the_one_that_binds_is_filled() -> None:
    """The shapes of span-corrupted proteins (512 and 256, v1's) and of molecules whose two sides are alike."""
    residues, characters = _lengths(), np.random.default_rng(1).normal(40, 8, 3000).astype(int).clip(10, 90)
    for lengths, capacities, rule in (
        (residues, (512, 256), lambda n: (np.minimum(n, 512), np.minimum(2 * np.round(0.15 * n) + 1, 256))),
        (residues, (512, 140), lambda n: (np.minimum(n, 512), np.minimum(2 * np.round(0.15 * n) + 1, 140))),
        (characters, (512, 512), lambda n: (n + 2, n + 1)),
    ):
        row_lengths = RowLengths(lengths, capacities, rule)
        result = list(packs(SampleOrder(3000, 0), row_lengths, 3000, stop=3000))
        totals = np.array([pack.sizes.sum(axis=1) for pack in result])
        assert (totals <= capacities).all()
        assert (totals.sum(axis=0) / (len(result) * np.array(capacities))).max() >= 0.97
        assert max(len(pack.positions) for pack in result) <= row_lengths.max_sequences_per_pack()


def test_resume_continues_at_every_boundary() -> None:
    order, row_lengths = SampleOrder(3000, 1), RowLengths(_lengths(), (512,))
    whole = list(islice(packs(order, row_lengths, 256), 400))
    consumed = np.cumsum([len(pack.positions) for pack in whole]).tolist()
    for place in (1, 17, 120, 250):
        rest = list(islice(packs(order, row_lengths, 256, consumed[place - 1]), 50))
        assert [p.positions.tolist() for p in rest] == [p.positions.tolist() for p in whole[place : place + 50]]


def test_a_place_inside_a_pack_is_refused() -> None:
    order, row_lengths = SampleOrder(3000, 1), RowLengths(_lengths(), (512,))
    sizes = [len(pack.positions) for pack in islice(packs(order, row_lengths, 256), 50)]
    first_shared = next(i for i, size in enumerate(sizes) if size > 1)
    with pytest.raises(ConfigError, match="end inside a pack"):
        next(packs(order, row_lengths, 256, sum(sizes[:first_shared]) + 1))


def test_length_does_not_drift_along_a_window() -> None:
    result = list(packs(SampleOrder(3000, 1), RowLengths(_lengths(), (512,)), 3000, stop=3000))
    counts = np.array([len(pack.positions) for pack in result])
    half = len(counts) // 2
    assert abs(counts[:half].mean() - counts[half:].mean()) < 0.3


def test_without_packing_the_order_is_plain() -> None:
    order, row_lengths = SampleOrder(10, 1), RowLengths(np.arange(1, 11), (16,))
    got = [int(p.positions[0]) for p in islice(packs(order, row_lengths, 4, 3, packing=False), 9)]
    assert got == list(range(3, 12))


def test_a_sequence_longer_than_a_pack_is_refused() -> None:
    with pytest.raises(ConfigError, match="record 1 has 9 tokens, but a pack holds 8"):
        next(packs(SampleOrder(2, 0), RowLengths(np.array([3, 9]), (8,)), 4))
