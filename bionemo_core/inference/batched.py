"""Hidden states to tokens by any method, in batches, first with room for few tokens where room costs time.

Shape letters: R rows, T encoder positions (or K latents), H hidden, K hypotheses kept of a row, L tokens.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bionemo_core.inference.beam import beam_search
from bionemo_core.inference.choosing import TokenSampling
from bionemo_core.inference.decoding import SpecialTokens, StepDecoder, check_max_length, greedy, sample
from bionemo_core.inference.philox import RowRng
from bionemo_core.nn.seq2seq import Memory

SHORT = 64
"""Most molecules end within so many tokens. A GPU attends over all places that there is room for, at every step."""


@dataclass(frozen=True)
class BatchedDecoding:
    """One method of decoding with its options.

    Args:
        decoder: what decodes.
        special: the begin, end and pad ids.
        method: a name of `methods.SAMPLING_METHODS`.
        settings: all of its options.
        max_length: the most tokens, the end token included.
        batch_size: rows, or beams, that are decoded together.
        short_length: room to try first; what has not ended within it is decoded again with all the room.
            Default: `SHORT` on a GPU.
    """

    decoder: StepDecoder
    special: SpecialTokens
    method: str
    settings: Mapping[str, Any]
    max_length: int
    batch_size: int
    short_length: int | None = None

    @torch.no_grad()
    def tokens(self, hiddens_RTH: Tensor, mask_RT: Tensor, streams: RowRng) -> Tensor:
        """Return the tokens of each row, up to its first end token, then pad: int64[R, K, L], best first.

        Raises:
            ConfigError: `max_length` is below 1.
        """
        check_max_length(self.max_length)
        left = torch.arange(len(hiddens_RTH), device=hiddens_RTH.device)
        shape = (len(left), self._kept, self.max_length)
        decoded = torch.full(shape, self.special.pad_id, dtype=torch.int64, device=left.device)
        for length in self._lengths(hiddens_RTH.is_cuda):
            ended = []
            for rows in left.split(max(1, self.batch_size // self._beams)):
                states = hiddens_RTH[rows].transpose(0, 1)
                mask = mask_RT[rows]
                memory = Memory(states, None if bool(mask.all()) else mask)
                found = self._hypotheses(memory, streams.select(rows), length)
                decoded[rows, :, :length] = found[:, : self._kept]
                ended.append((found == self.special.eos_id).any(dim=2).all(dim=1))
            left = left[~torch.cat(ended)] if ended else left
            if not len(left):
                break
        return decoded

    @property
    def _beams(self) -> int:
        beams: int = self.settings.get("beam_size", 1)
        return beams

    @property
    def _kept(self) -> int:
        return 1 if self.settings.get("keep_only_best_tokens", True) else self._beams

    def _lengths(self, on_gpu: bool) -> list[int]:
        short = self.short_length or (SHORT if on_gpu else self.max_length)
        return [short, self.max_length] if short < self.max_length else [self.max_length]

    def _hypotheses(self, memory: Memory, streams: RowRng, length: int) -> Tensor:
        """All hypotheses of one batch, int64[R, beams, length]."""
        if self.method.startswith("beam"):
            alpha = self.settings["beam_alpha"]
            return beam_search(
                self.decoder, memory, self.special, max_length=length, beam_size=self._beams, beam_alpha=alpha
            ).tokens
        if self.method.startswith("topkp"):
            sampling = TokenSampling(**self.settings)
            drawn = sample(self.decoder, memory, self.special, streams, max_length=length, sampling=sampling)
            return drawn[:, None]
        return greedy(self.decoder, memory, self.special, max_length=length)[:, None]
