"""Residue indices computed from lengths alone agree with masks and segments."""

import numpy as np
import pytest
import torch

from bionemo_core.data.batches.batch import TokenBatch
from bionemo_core.data.batches.rows import RowShape, collate
from bionemo_core.nn.residue_states import residue_indices
from bionemo_core.protocols import Example


@pytest.mark.parametrize("terminals", [(0, 0), (1, 1), (0, 1), (1, 0)])
@pytest.mark.parametrize("packing", [False, True])
@pytest.mark.parametrize("static_shapes", [False, True])
def test_indices_agree_with_the_masks(terminals: tuple[int, int], packing: bool, static_shapes: bool) -> None:
    lengths = [9, 2, 5, 16, 3]
    ids = [np.arange(length, dtype=np.int32) + 10 * number for number, length in enumerate(lengths)]
    examples = [Example(tokens, tokens, np.ones(len(tokens), dtype=np.bool_)) for tokens in ids]
    shape = RowShape(16, 6, 1, packing=packing, static_shapes=static_shapes)
    batch = TokenBatch.of(collate(examples, 6, shape))
    indices, counts = residue_indices(batch, terminals)
    first, last = terminals
    expected = np.concatenate([tokens[first : len(tokens) - last] for tokens in ids])
    assert batch.tokens.flatten()[indices].tolist() == expected.tolist()
    assert counts.tolist() == [length - first - last for length in lengths]
    assert indices.dtype == torch.int64
