"""The attention maps and contacts of a batch, from the inputs of its attention layers."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from bionemo_core.inference.embedding.contact_head import ContactHead
from bionemo_core.inference.embedding.embedding_results import ATTENTIONS, CONTACTS
from bionemo_core.nn.captures import AttentionInput

if TYPE_CHECKING:
    from bionemo_core.data.batches.batch import TokenBatch


@dataclass(frozen=True)
class AttentionMaps:
    """The attention maps and contacts of a batch, collected layer by layer."""

    head: ContactHead | None
    keep: bool
    """Whether to keep the maps themselves, for the output `attentions`."""
    terminals: tuple[int, int]
    """Terminal tokens before and after each sequence, to leave out."""
    batch: TokenBatch | None = None
    scores: dict[int, Tensor] = field(default_factory=dict)
    """By sequence, the sum of the head's scores so far, [L, L]."""
    maps: list[list[Tensor]] = field(default_factory=list)
    """By layer, [heads, L, L] of each sequence."""

    def of(self, batch: TokenBatch) -> AttentionMaps:
        """Return an empty collection for a batch."""
        return replace(self, batch=batch, scores={}, maps=[])

    def add(self, layer: int, attention: AttentionInput) -> None:
        """Add a layer's maps."""
        first, last = self.terminals
        assert self.batch is not None
        kept = []
        for index, whole in enumerate(attention.probabilities(self.batch)):
            maps = whole[:, first : whole.shape[1] - last, first : whole.shape[2] - last]
            if self.head is not None:
                self.scores[index] = self.scores.get(index, 0.0) + self.head.score(layer, maps)
            if self.keep:
                kept.append(maps)
        self.maps.append(kept)

    def arrays(self) -> dict[str, Tensor]:
        """Return the outputs, with the pairs of all sequences concatenated."""
        arrays = {}
        if self.head is not None:
            arrays[CONTACTS] = torch.cat([self.head.probabilities(score).flatten() for score in self.scores.values()])
        if self.keep:
            stacked = (torch.stack(layers) for layers in zip(*self.maps, strict=True))
            arrays[ATTENTIONS] = torch.cat([maps.permute(2, 3, 0, 1).flatten(0, 1) for maps in stacked])
        return arrays
