"""v1's layout of molecules on disk: `{train,val,test}/x000.csv`, where each number is a separate part of the data."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from bionemo_core.data.batches.rng import RecordRng
from bionemo_core.errors import ConfigError

SPLITS = ("train", "val", "test")
HEADER = b"zinc_id,smiles\n"
_PURPOSE = "zinc15 split"
_SPOOL = "part.csv"


@dataclass(frozen=True)
class ShardSizes:
    """Molecules of one number in each split; v1's keys and figures."""

    train_samples_per_file: int = 10_050_000
    val_samples_per_file: int = 100
    test_samples_per_file: int = 50_000

    def __post_init__(self) -> None:
        """Check the sizes.

        Raises:
            ConfigError: one is not positive.
        """
        for key, size in vars(self).items():
            if size < 1:
                raise ConfigError(f"data.{key}: {size}, expected at least 1.")

    @property
    def total(self) -> int:
        """Molecules of one number."""
        return self.train_samples_per_file + self.val_samples_per_file + self.test_samples_per_file

    def of(self, num_molecules: int) -> tuple[int, int]:
        """Return how many of a part go to val and to test: its share, and at least one if the part has three."""
        least = 1 if num_molecules >= len(SPLITS) else 0
        sizes = (self.val_samples_per_file, self.test_samples_per_file)
        val, test = (max(least, size * num_molecules // self.total) for size in sizes)
        return val, test


def sides_of(num_molecules: int, sizes: ShardSizes, seed: int, number: int) -> NDArray[np.int8]:
    """Return the split of each molecule of a part, as an index into `SPLITS`; seed and number alone decide it."""
    val, test = sizes.of(num_molecules)
    order = np.argsort(RecordRng(seed, 0, number, _PURPOSE).words(num_molecules), kind="stable")
    sides = np.zeros(num_molecules, dtype=np.int8)
    sides[order[:val]] = 1
    sides[order[val : val + test]] = 2
    return sides


class ShardWriter:
    """Writes molecules in the order they come; holds none of them in memory.

    A part is spooled to a file of its own until it is complete, because the last one's size decides its split.
    """

    def __init__(self, folder: Path, sizes: ShardSizes, seed: int) -> None:
        """Make the folders."""
        self._folder = folder
        self._sizes = sizes
        self._seed = seed
        self._spool: BinaryIO | None = None
        self._held = 0
        self.num_shards = 0
        self.counts = dict.fromkeys(SPLITS, 0)
        for split in SPLITS:
            (folder / split).mkdir()

    def add(self, molecules: Iterable[tuple[bytes, bytes]]) -> None:
        """Append pairs of id and SMILES.

        Raises:
            OSError: the disk refuses them.
        """
        for name, smiles in molecules:
            if self._spool is None:
                self._spool = (self._folder / _SPOOL).open("wb")
            self._spool.write(b"%b,%b\n" % (_field(name), _field(smiles)))
            self._held += 1
            if self._held == self._sizes.total:
                self._deal()

    def __enter__(self) -> "ShardWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Write the last part, unless something has gone wrong."""
        if kind is None and self._held:
            self._deal()
        elif self._spool is not None:
            self._spool.close()

    def _deal(self) -> None:
        assert self._spool is not None
        self._spool.close()
        spool = self._folder / _SPOOL
        sides = sides_of(self._held, self._sizes, self._seed, self.num_shards)
        with _opened(self._folder, f"x{self.num_shards:03d}.csv") as shards, spool.open("rb") as lines:
            for line, side in zip(lines, sides.tolist(), strict=True):
                shards[side].write(line)
        for split, count in zip(SPLITS, np.bincount(sides, minlength=len(SPLITS)).tolist(), strict=True):
            self.counts[split] += count
        spool.unlink()
        self._spool, self._held = None, 0
        self.num_shards += 1


@contextmanager
def _opened(folder: Path, name: str) -> Iterator[Sequence[BinaryIO]]:
    with ExitStack() as stack:
        streams = [stack.enter_context((folder / split / name).open("wb")) for split in SPLITS]
        for stream in streams:
            stream.write(HEADER)
        yield streams


def _field(text: bytes) -> bytes:
    """Format a value for a CSV file."""
    return b'"' + text.replace(b'"', b'""') + b'"' if b"," in text or b'"' in text else text
