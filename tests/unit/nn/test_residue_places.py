"""Residues found by lengths alone are those that masks and segments tell."""

import numpy as np
import pytest
import torch

from bionemo_core.data.batches.batch import TokenBatch
from bionemo_core.data.batches.rows import RowShape, collate
from bionemo_core.nn.residue_states import residue_places
from bionemo_core.protocols import Example


@pytest.mark.parametrize("framed", [False, True])
@pytest.mark.parametrize("packing", [False, True])
@pytest.mark.parametrize("static_shapes", [False, True])
def test_places_are_those_of_the_masks(framed: bool, packing: bool, static_shapes: bool) -> None:
    lengths = [9, 2, 5, 16, 3]
    ids = [np.arange(length, dtype=np.int32) + 10 * number for number, length in enumerate(lengths)]
    examples = [Example(one, one, np.ones(len(one), dtype=np.bool_)) for one in ids]
    shape = RowShape(16, 6, 1, packing=packing, static_shapes=static_shapes)
    batch = TokenBatch.of(collate(examples, 6, shape))
    places, counts = residue_places(batch, framed=framed)
    ends = 1 if framed else 0
    expected = np.concatenate([one[ends : len(one) - ends] for one in ids])
    assert batch.tokens.flatten()[places].tolist() == expected.tolist()
    assert counts.tolist() == [length - 2 * ends for length in lengths]
    assert places.dtype == torch.int64
