"""The prefetching of batches."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


class Prefetcher:
    """An iterator over batches that can fetch the next one early and copy it to a device.

    A GPU waits for the host between two steps. Planning, the loader's queue and the copy to the device cost no such
    time if they happen while the GPU still computes. The batches and their order do not change.
    """

    def __init__(self, batches: Iterator[Any]) -> None:
        self._batches = batches
        self._fetched: list[Any] = []
        self._failure: Exception | None = None

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        """Return the next batch.

        Raises:
            Exception: the error of fetching this batch, which `fetch` kept until now.
        """
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure
        return self._fetched.pop() if self._fetched else next(self._batches)

    def fetch(self, device: torch.device) -> None:
        """Fetch one batch, unless one is already fetched, and start to copy it to the device."""
        if self._fetched or self._failure is not None:
            return
        try:
            self._fetched.append(next(self._batches).to(device))
        except Exception as error:  # includes StopIteration; the current step must not fail for it
            self._failure = error
