"""Small checkpoints, and threads that act as ranks."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch

from bionemo_core.checkpoint.blocks import TensorPart, whole_part
from bionemo_core.checkpoint.rank_agreement import Disagreement
from bionemo_core.checkpoint.save import save


class ThreadPeers:
    """One of several ranks that are threads of this process."""

    def __init__(self, rank: int, size: int, barrier: threading.Barrier, votes: list[str | None]) -> None:
        self.rank, self.size, self._barrier, self._votes = rank, size, barrier, votes

    def agree(self, ok: bool, message: str = "") -> None:
        self._votes[self.rank] = None if ok else message
        self._barrier.wait(timeout=30)
        failed = [vote for vote in self._votes if vote is not None]
        self._barrier.wait(timeout=30)
        if failed:
            raise Disagreement(failed[0])


def _on_ranks(size: int, action: Callable[[ThreadPeers], Any]) -> list[Any]:
    barrier, votes = threading.Barrier(size), [None] * size
    with ThreadPoolExecutor(size) as pool:
        futures = [pool.submit(action, ThreadPeers(rank, size, barrier, votes)) for rank in range(size)]
        return [future.exception() or future.result() for future in futures]


@pytest.fixture
def on_ranks() -> Callable[[int, Callable[[ThreadPeers], Any]], list[Any]]:
    """A function that runs an action on each of `size` ranks at once and returns their results or exceptions."""
    return _on_ranks


@pytest.fixture
def tensors() -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(1)
    return {
        "layer.weight": torch.randn(6, 4, generator=draw),
        "layer.bias": torch.randn(6, generator=draw).bfloat16(),
        "count": torch.tensor(7),
    }


@pytest.fixture
def root(tmp_path: Path, tensors: dict[str, torch.Tensor]) -> Path:
    """A folder with checkpoints of steps 10 and 20."""
    root = tmp_path / "checkpoints"
    for step in (10, 20):
        parts: list[TensorPart] = [whole_part(name, tensor + step) for name, tensor in tensors.items()]
        save(root, step, parts, {"lr": 0.1 * step, "moments": torch.full((3,), step)}, consumed_samples=8 * step)
    return root


def contents(root: Path) -> dict[str, bytes]:
    """Every file under `root` with its bytes."""
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


@pytest.fixture
def snapshot() -> Callable[[Path], dict[str, bytes]]:
    return contents
