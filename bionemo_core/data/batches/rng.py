"""Random numbers as a function: the same (seed, data_pass, index, purpose) always gives the same ones."""

import threading
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bionemo_core.io.hashing import derive_seed

_WORD = 1 << 64
_WORDS_PER_BLOCK = 4
_TO_UNIT = 2.0**-53


class _Generator(threading.local):
    """One Philox generator per thread, set to a stream before each use; making one takes six times as long."""

    def __init__(self) -> None:
        self.philox = np.random.Philox(key=0)
        self.state: Any = dict(self.philox.state)
        self.state["buffer_pos"] = _WORDS_PER_BLOCK  # empty buffer: the next word comes from a new block


_generator = _Generator()


@lru_cache(maxsize=64)
def _purpose_key(purpose: str) -> int:
    return int.from_bytes(derive_seed(purpose.encode()), "little")


class RecordRng:
    """A stream of random numbers that belongs to one record in one pass over the data, for one purpose.

    Philox4x64 has the key (seed, purpose) and the counter (block, 0, index, data_pass), so that no two streams overlap.
    Only its raw words are used, because numpy keeps them stable across versions, but not its distributions. Every call
    starts at a new block of four words.
    """

    __slots__ = ("_block", "_data_pass", "_index", "_key")

    def __init__(self, seed: int, data_pass: int, index: int, purpose: str) -> None:
        self._key = (seed % _WORD, _purpose_key(purpose))
        self._index = index % _WORD
        self._data_pass = data_pass % _WORD
        self._block = 0

    def words(self, n: int) -> NDArray[np.uint64]:
        """Return `n` raw 64-bit words, shape [n]."""
        state = _generator.state
        state["state"]["counter"][:] = (self._block, 0, self._index, self._data_pass)
        state["state"]["key"][:] = self._key
        _generator.philox.state = state
        self._block += -(-n // _WORDS_PER_BLOCK)
        return np.asarray(_generator.philox.random_raw(n), dtype=np.uint64)

    def uniform(self, n: int) -> NDArray[np.float64]:
        """Return `n` numbers in [0, 1), shape [n]."""
        return np.asarray((self.words(n) >> np.uint64(11)) * _TO_UNIT, dtype=np.float64)

    def integers(self, n: int, high: int) -> NDArray[np.int64]:
        """Return `n` integers in [0, high), shape [n]; their bias is below high / 2**53.

        Raises:
            ValueError: `high` is not in 1 .. 2**31.
        """
        if not 1 <= high <= 1 << 31:
            raise ValueError(f"RecordRng.integers: high is {high}, expected 1 to 2**31")
        return (self.uniform(n) * high).astype(np.int64)
