"""The loss counts only positions of the loss mask, on a GPU as on a CPU."""

import numpy as np
import torch
import torch.nn.functional as F

from bionemo_core.data.batches.batch import TokenBatch
from bionemo_core.data.batches.rows import RowShape, collate
from bionemo_core.nn.heads import sum_token_losses
from bionemo_core.parallel.groups import start_groups
from bionemo_core.protocols import Example

VOCABULARY, HIDDEN = 11, 6


class OnGpu(torch.Tensor):
    """A tensor of the CPU that takes the way of a GPU."""

    is_cuda = True


def test_both_ways_count_the_same_positions():
    draw = np.random.default_rng(0)
    examples = []
    for length in (4, 9):
        labels = draw.integers(0, VOCABULARY, length, dtype=np.int32)
        examples.append(Example(labels, labels, draw.random(length) < 0.4))
    batch = TokenBatch.of(collate(examples, 2, RowShape(10, 2, pad_id=0, packing=False)))
    rows, length = batch.tokens.shape
    torch.manual_seed(0)
    hidden, weight = torch.randn(length, rows, HIDDEN), torch.randn(VOCABULARY + 5, HIDDEN)
    expected, counted = 0.0, 0
    for row, position in batch.loss_mask.nonzero().tolist():
        logits = (weight @ hidden[position, row])[:VOCABULARY]
        expected += float(F.cross_entropy(logits[None], batch.labels[row, position][None]))
        counted += 1
    assert 0 < counted < rows * length
    seen = []

    def head(states: torch.Tensor) -> torch.Tensor:
        seen.append(states.shape[:-1].numel())
        return states @ weight.T

    for states in (hidden, hidden.as_subclass(OnGpu)):
        loss = sum_token_losses(states, batch, head, VOCABULARY, start_groups())
        assert abs(float(loss) - expected) < 1e-4
    assert seen == [counted, rows * length], "a CPU skips what has no label, a GPU keeps its shapes"
