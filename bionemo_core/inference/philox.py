"""Random numbers as a function of (seed, purpose, sequence, sample, step), computed where they are used.

The generator is Philox4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3") in torch's integer
operations, so that a GPU draws the same uniform numbers as a CPU and nothing waits for the host. The counter is
(step, sample, sequence, sequence >> 32): no two streams overlap, and none depends on the row of the batch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from bionemo_core.io.hashing import derive_seed

_LOW = 0xFFFFFFFF
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_KEY_STEPS = (0x9E3779B9, 0xBB67AE85)
_ROUNDS = 10
_TO_UNIT = 2.0**-53
_MAX_PER_PART = 1 << 24
"""The normal numbers that are drawn at once: the generator needs ten times their memory."""


def philox(counter: tuple[Tensor, Tensor, Tensor, Tensor], key: tuple[int, int]) -> tuple[Tensor, ...]:
    """Return the four words of Philox4x32-10, each below 2**32, int64 of the counters' broadcast shape.

    `counter` are int64 tensors and `key` are integers, each below 2**32.
    """
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(_ROUNDS):
        # A product of two 32-bit words wraps in int64, but its 64 bits are those of the unsigned product.
        p0, p1 = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]
        c0, c1, c2, c3 = ((p1 >> 32) & _LOW) ^ c1 ^ k0, p1 & _LOW, ((p0 >> 32) & _LOW) ^ c3 ^ k1, p0 & _LOW
        k0, k1 = (k0 + _KEY_STEPS[0]) & _LOW, (k1 + _KEY_STEPS[1]) & _LOW
    return c0, c1, c2, c3


@lru_cache(maxsize=64)
def _key(seed: int, purpose: str) -> tuple[int, int]:
    digest = derive_seed(f"{seed} {purpose}".encode())
    return int.from_bytes(digest[:4], "little"), int.from_bytes(digest[4:], "little")


@dataclass(frozen=True)
class RowRng:
    """The random streams of the rows of a batch: each is given by the seed and a sequence and sample number."""

    seed: int
    sequence: Tensor
    """Number of each row's sequence, int64[rows]."""
    sample: Tensor
    """Number of each row's sample of that sequence, below 2**32, int64[rows]."""

    @classmethod
    def of(cls, seed: int, rows: int, *, first_sequence: int = 0, device: torch.device | str = "cpu") -> RowRng:
        """Return the streams of `rows` consecutive sequences, one sample each."""
        sequence = torch.arange(first_sequence, first_sequence + rows, device=device)
        return cls(seed, sequence, torch.zeros_like(sequence))

    @classmethod
    def of_records(cls, seed: int, keys: Tensor) -> RowRng:
        """Return the streams of the records that `TokenBatch.record_keys` names, int64[rows, 2]."""
        return cls(seed, keys[:, 1], keys[:, 0])

    def select(self, rows: Tensor) -> RowRng:
        """Return the streams of these rows, int64[n]."""
        return RowRng(self.seed, self.sequence[rows], self.sample[rows])

    def uniform(self, purpose: str, num_steps: int) -> Tensor:
        """Return numbers in [0, 1) for each row and step, float64[rows, num_steps].

        The first numbers of a row do not depend on `num_steps`.
        """
        step = torch.arange(num_steps, device=self.sequence.device)[None, :]
        sample, low, high = (word[:, None] for word in self._counter())
        words = philox((step, sample, low, high), _key(self.seed, purpose))
        return _unit(words[0], words[1])

    def normal(self, purpose: str, n: int) -> Tensor:
        """Return `n` standard normal numbers for each row, float64[rows, n], by Box and Muller.

        Devices agree only up to rounding, because their logarithms and cosines differ. The first numbers of a row do
        not depend on `n`.
        """
        block = torch.arange(-(-n // 2), device=self.sequence.device)
        sample, low, high = (word[:, None] for word in self._counter())
        words = philox((block[None, :], sample, low, high), _key(self.seed, purpose))
        radius = torch.sqrt(-2.0 * torch.log1p(-_unit(words[0], words[1])))
        angle = 2.0 * math.pi * _unit(words[2], words[3])
        return torch.stack((radius * angle.cos(), radius * angle.sin()), dim=-1).flatten(1)[:, :n]

    def normal_like(self, purpose: str, like: Tensor) -> Tensor:
        """Return a standard normal number for each element of `like` [rows, ...], in its shape and dtype.

        The number depends on the row's stream and on the place of the element in its row.
        """
        size = like[0].numel() if len(like) else 0
        rows = torch.arange(len(like), device=like.device)
        parts = rows.split(max(1, _MAX_PER_PART // max(size, 1)))
        return torch.cat([self.select(part).normal(purpose, size).to(like.dtype) for part in parts]).view(like.shape)

    def _counter(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.sample & _LOW, self.sequence & _LOW, (self.sequence >> 32) & _LOW


def _unit(high: Tensor, low: Tensor) -> Tensor:
    """Return 53 bits of two words as a number in [0, 1)."""
    return ((high << 21) | (low >> 11)).to(torch.float64) * _TO_UNIT
