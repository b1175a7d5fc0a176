"""The order of records as a function of the position, without stored state."""

import numpy as np
from numpy.typing import NDArray

_ROUNDS = 8
_GOLDEN_INT = 0x9E3779B97F4A7C15
_GOLDEN = np.uint64(_GOLDEN_INT)
_ROUND_KEYS = [np.uint64(_GOLDEN_INT * (turn + 1) % (1 << 64)) for turn in range(_ROUNDS)]
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)


def _mix(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Apply the splitmix64 finaliser: a bijection in which every output bit depends on every input bit."""
    x = (x ^ (x >> np.uint64(30))) * _MIX_1
    x = (x ^ (x >> np.uint64(27))) * _MIX_2
    return x ^ (x >> np.uint64(31))


class SampleOrder:
    """An order in which every pass over the data visits each record once, in a different order.

    Position p is in pass p // num_samples. Within a pass, a keyed Feistel network permutes the smallest power of two
    that is at least `num_samples`, and cycle walking (Black and Rogaway, 2002) keeps the result below `num_samples`.
    """

    def __init__(self, num_samples: int, seed: int, shuffle: bool = True) -> None:
        """Prepare the order of `num_samples` records.

        Raises:
            ValueError: `num_samples` is below 1.
        """
        if num_samples < 1:
            raise ValueError(f"SampleOrder: num_samples is {num_samples}, expected at least 1")
        self.num_samples = num_samples
        self.shuffle = shuffle
        self._seed = _mix(np.array([seed % (1 << 64)], dtype=np.uint64) + _GOLDEN)
        bits = max(2, (num_samples - 1).bit_length())
        self._half_bits = np.uint64(bits // 2), np.uint64(bits - bits // 2)

    def locate(self, positions: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the pass and the record of each position; all shapes are [k].

        Raises:
            ValueError: a position is negative.
        """
        positions = np.asarray(positions, dtype=np.int64)
        if positions.size and positions.min() < 0:
            raise ValueError(f"SampleOrder.locate: position {positions.min()} is negative")
        data_pass, offset = np.divmod(positions, self.num_samples)
        if not self.shuffle or self.num_samples == 1:
            return data_pass, offset
        pass_key = _mix(data_pass.astype(np.uint64) * _GOLDEN + self._seed)
        index = self._permute(offset.astype(np.uint64), pass_key)
        outside = np.flatnonzero(index >= self.num_samples)
        while outside.size:
            index[outside] = self._permute(index[outside], pass_key[outside])
            outside = outside[index[outside] >= self.num_samples]
        return data_pass, index.astype(np.int64)

    def _permute(self, x: NDArray[np.uint64], pass_key: NDArray[np.uint64]) -> NDArray[np.uint64]:
        """Apply the Feistel network once; the halves differ by one bit if the number of bits is odd."""
        left_bits, right_bits = self._half_bits
        left, right = x >> right_bits, x & ((np.uint64(1) << right_bits) - np.uint64(1))
        for round_key in _ROUND_KEYS:
            mixed = _mix(right + pass_key + round_key)
            left, right = right, left ^ (mixed >> (np.uint64(64) - left_bits))
            left_bits, right_bits = right_bits, left_bits
        return (left << right_bits) | right
