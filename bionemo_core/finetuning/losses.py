"""The losses of values and of several labels; a loss is summed over the labels that count.

Shape letters: N sequences or residues, O outputs.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def squared_error(answers: Tensor, labels: Tensor, counts: Tensor) -> Tensor:
    """Return the summed squared error of values, all [N, O]."""
    return torch.where(counts, (answers - labels).square(), 0.0).sum()


def yes_or_no(answers: Tensor, labels: Tensor, counts: Tensor) -> Tensor:
    """Return the summed cross entropy of labels that are 0 or 1, in nats; answers are logits, all [N, O]."""
    losses = F.binary_cross_entropy_with_logits(answers, labels, reduction="none")
    return torch.where(counts, losses, 0.0).sum()
