"""Rows that only fill a fixed shape have no loss, and each window of packs has a shuffle of its own."""

import numpy as np
import pytest

from bionemo_core.data.batches.order import SampleOrder
from bionemo_core.data.batches.packing import RowLengths, packs
from bionemo_core.data.batches.rows import RowShape, collate
from bionemo_core.protocols import Example

EXAMPLES = [Example(np.full(n, 7, dtype=np.int32), np.full(n, 9, dtype=np.int32), np.ones(n, bool)) for n in (3, 5)]


@pytest.mark.parametrize("packing", [True, False])
def test_filler_has_no_loss(packing):
    shape = RowShape(8, 4, pad_id=0, packing=packing, static_shapes=True)
    rows = collate(EXAMPLES, 2, shape)
    assert rows.loss_mask.sum() == rows.num_loss_tokens == 8
    assert (rows.labels[rows.loss_mask] == 9).all()
    if not packing:
        assert rows.tokens.shape[0] == 4, "two rows only fill the shape"
        assert not rows.loss_mask[2:].any() and rows.padding_mask[2:].any()
    assert rows.num_sequences == 2


def test_every_window_has_its_own_shuffle():
    window, size = 16, 16
    lengths = RowLengths(np.full(64, size), (size,))  # one sequence a pack, so a pack's place is the shuffle
    order = SampleOrder(64, seed=3, shuffle=False)
    places = np.array([pack.positions[0] for pack in packs(order, lengths, window, stop=64, seed=3)])
    shuffles = [tuple(part - part.min()) for part in places.reshape(4, window)]
    assert all(sorted(one) == list(range(window)) for one in shuffles)
    assert len(set(shuffles)) == 4
