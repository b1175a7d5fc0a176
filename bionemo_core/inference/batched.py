"""Batched decoding of hidden states to tokens, by any method.

On a GPU rows are first decoded with a small cache, since a large one makes every step slower.

Shape letters: R rows, T encoder positions (or latents), H hidden, K hypotheses kept per row, L tokens.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bionemo_core.inference.beam import Beams, beam_search
from bionemo_core.inference.choosing import TokenSampling
from bionemo_core.inference.decoding import SpecialTokens, StepDecoder, check_max_length, greedy, sample
from bionemo_core.inference.philox import RowRng
from bionemo_core.nn.seq2seq import Memory

SHORT_LENGTH = 64
"""Cache length to try first on a GPU, which attends over the whole cache in every step; most molecules are shorter."""


@dataclass(frozen=True)
class BatchedDecoding:
    """One method of decoding with its options.

    Args:
        decoder: the network that decodes, or a `CudaGraphDecoder` of it.
        special: the begin, end and pad ids.
        method: a name in `methods.SAMPLING_METHODS`.
        settings: all options of the method.
        max_length: the most tokens, including the end token.
        batch_size: rows, or beams, that are decoded together.
        short_length: cache length to try first; rows that have not ended by then are decoded again with `max_length`.
            Default: `SHORT_LENGTH` on a GPU, `max_length` elsewhere.
    """

    decoder: StepDecoder
    special: SpecialTokens
    method: str
    settings: Mapping[str, Any]
    max_length: int
    batch_size: int
    short_length: int | None = None

    @torch.no_grad()
    def decode(self, hiddens_RTH: Tensor, mask_RT: Tensor, rng: RowRng) -> Beams:
        """Decode each row to its first end token, then pad; returns K hypotheses of each, best first.

        The scores are those of a beam search, and 0 for other methods.

        Raises:
            ConfigError: `max_length` is below 1.
        """
        check_max_length(self.max_length)
        left = torch.arange(len(hiddens_RTH), device=hiddens_RTH.device)
        shape = (len(left), self._num_kept, self.max_length)
        decoded = torch.full(shape, self.special.pad_id, dtype=torch.int64, device=left.device)
        scores = torch.zeros(shape[:2], dtype=torch.float64, device=left.device)
        for length in self._lengths_to_try(hiddens_RTH.is_cuda):
            ended = []
            for rows in left.split(max(1, self.batch_size // self._beams)):
                states = hiddens_RTH[rows].transpose(0, 1)
                mask = mask_RT[rows]
                memory = Memory(states, None if bool(mask.all()) else mask)
                found = self._decode_batch(memory, rng.select(rows), length)
                decoded[rows, :, :length] = found.tokens[:, : self._num_kept]
                scores[rows] = found.scores[:, : self._num_kept]
                ended.append((found.tokens == self.special.eos_id).any(dim=2).all(dim=1))
            left = left[~torch.cat(ended)] if ended else left
            if not len(left):
                break
        return Beams(decoded, scores)

    @property
    def _beams(self) -> int:
        beams: int = self.settings.get("beam_size", 1)
        return beams

    @property
    def _num_kept(self) -> int:
        return 1 if self.settings.get("keep_only_best_tokens", True) else self._beams

    def _lengths_to_try(self, on_gpu: bool) -> list[int]:
        short = self.short_length or (SHORT_LENGTH if on_gpu else self.max_length)
        return [short, self.max_length] if short < self.max_length else [self.max_length]

    def _decode_batch(self, memory: Memory, rng: RowRng, length: int) -> Beams:
        """Return all hypotheses of one batch."""
        if self.method.startswith("beam"):
            alpha = self.settings["beam_alpha"]
            return beam_search(
                self.decoder, memory, self.special, max_length=length, beam_size=self._beams, beam_alpha=alpha
            )
        if self.method.startswith("topkp"):
            sampling = TokenSampling(**self.settings)
            tokens = sample(self.decoder, memory, self.special, rng, max_length=length, sampling=sampling)
        else:
            tokens = greedy(self.decoder, memory, self.special, max_length=length)
        return Beams(tokens[:, None], torch.zeros(len(tokens), 1, dtype=torch.float64, device=tokens.device))
