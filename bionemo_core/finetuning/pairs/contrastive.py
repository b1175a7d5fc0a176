"""The contrastive loss of pairs that belong together. No torch at import: the configuration reads the class.

Shape letters: N pairs, D width of the space of both sequences.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from bionemo_core.ranges import Positive

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Contrastive:
    """Find the partner of each sequence among those of the other pairs (symmetric InfoNCE, as in CLIP)."""

    temperature: Positive = 0.07  # divides the cosines; a lower one weighs the most similar wrong partners more

    kinds = ("pair_matching",)
    unit = "nats per pair"
    compares = True

    def __call__(self, outputs: "Tensor", labels: "Tensor", counts: "Tensor", /) -> "Tensor":
        """Return the mean of both directions' cross entropies, summed over the pairs that count.

        Args:
            outputs: both points of each pair side by side, [N, 2 D].
            labels: whether two pairs share a sequence, bool[N, N]; those are no wrong partners of each other.
            counts: whether each pair counts, bool[N].
        """
        import torch
        import torch.nn.functional as F

        first, second = (F.normalize(side.float(), dim=-1) for side in outputs.chunk(2, dim=-1))
        own = torch.eye(len(outputs), dtype=torch.bool, device=outputs.device)
        left_out = (labels | ~counts[None] | ~counts[:, None]) & ~own
        logits = (first @ second.T / self.temperature).masked_fill(left_out, float("-inf"))
        right = torch.arange(len(outputs), device=outputs.device)
        both = (
            F.cross_entropy(logits, right, reduction="none") + F.cross_entropy(logits.T, right, reduction="none")
        ) / 2
        return both.where(counts, 0.0).sum()
