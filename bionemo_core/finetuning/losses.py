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


def ranking(answers: Tensor, labels: Tensor, counts: Tensor) -> Tensor:
    """Return the loss of pairs of sequences under the model of Bradley and Terry, in nats, all [N, O].

    Of two sequences of the micro batch with different labels, the one with the higher label wins with the probability
    `sigmoid(difference of the answers)`. The mean over the pairs is multiplied by the number of labels, as other losses
    are sums over labels. Pairs of equal labels say nothing.
    """
    above = answers[:, None] - answers[None]
    pairs = counts[:, None] & counts[None] & (labels[:, None] > labels[None])
    losses = torch.where(pairs, F.softplus(-above), 0.0).sum((0, 1))
    return (losses / pairs.sum((0, 1)).clamp(min=1) * counts.sum(0)).sum()


RANKING = "ranking"
"""The value of `task.loss` for it."""
