"""Pairs that belong together: the head with a part for each sequence, and how well partners are found.

Shape letters: N pairs, H hidden width, D width of the space of both sequences.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from bionemo_core.finetuning.metrics import AnswerMetrics
from bionemo_core.finetuning.pairs.features import as_states
from bionemo_core.nn.residue_states import ResidueStates
from bionemo_core.parallel.groups import ProcessGroups

_ROWS = 1024
"""Pairs whose partners are looked for together."""
_SAME = 1 - 1e-6
"""The cosine above which two points are those of the same sequence."""


class TwoSides(nn.Module):
    """A head of its own for the first and for the second sequence of pairs.

    Args:
        first: maps the states of the first sequences to points.
        second: maps those of the second sequences.
        first_size: the width of the states of the first sequences.
    """

    def __init__(self, first: nn.Module, second: nn.Module, *, first_size: int) -> None:
        super().__init__()
        self.first, self.second = first, second
        self.first_size = first_size

    def forward(self, pairs: ResidueStates) -> Tensor:
        """Return both points of each pair side by side, [N, 2 D]; the only state of a pair is `[a, b]`."""
        first, second = pairs.states[:, : self.first_size], pairs.states[:, self.first_size :]
        return torch.cat([self.first(as_states(first)), self.second(as_states(second))], dim=-1)


def share_a_sequence(first: Tensor, second: Tensor) -> Tensor:
    """Return whether two pairs have the same first or the same second sequence, bool[N, N].

    Args:
        first: what is equal for equal first sequences, such as their states, [N, ...].
        second: the same for the second sequences.
    """
    groups = [torch.unique(side, dim=0, return_inverse=True)[1] for side in (first, second)]
    return torch.stack([group[:, None] == group[None] for group in groups]).any(0)


class MatchMetrics(AnswerMetrics):
    """How often the partner of a first sequence is the nearest of all second ones of the split, and its rank."""

    @property
    def logged_names(self) -> tuple[str, ...]:
        """The names of the metrics."""
        return "recall_at_1", "recall_at_10", "mrr"

    def compute(self, groups: ProcessGroups) -> dict[str, float]:
        """Compute the metrics over all ranks."""
        outputs = torch.cat([points for points, _ in self._seen]) if self._seen else torch.zeros(0, 2)
        if groups.data_size > 1:
            gathered: list[Any] = [None] * groups.data_size
            dist.all_gather_object(gathered, outputs.numpy(), group=groups.data)
            outputs = torch.cat([torch.from_numpy(one) for one in gathered if len(one)])
        return match_metrics(outputs)


def match_metrics(outputs: Tensor) -> dict[str, float]:
    """Compute the metrics of pairs of points, [N, 2 D].

    The partner competes with the second sequences of all other pairs but those that share a sequence with its own. A
    tie counts against it.
    """
    if not len(outputs):
        return {}
    first, second = (F.normalize(side.double(), dim=-1) for side in outputs.chunk(2, dim=-1))
    ranks = []
    for start in range(0, len(outputs), _ROWS):
        rows = slice(start, start + _ROWS)
        cosines = first[rows] @ second.T
        others = (first[rows] @ first.T < _SAME) & (second[rows] @ second.T < _SAME)
        own = (first[rows] * second[rows]).sum(-1)
        ranks.append(1 + (others & (cosines >= own[:, None])).sum(-1))
    rank = torch.cat(ranks).double()
    means = {"recall_at_1": rank <= 1, "recall_at_10": rank <= 10, "mrr": 1 / rank}
    return {name: float(values.double().mean()) for name, values in means.items()}
