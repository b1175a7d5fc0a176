"""Batches that are fetched before they are asked for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


class Prefetcher:
    """An iterator over batches whose next one may be fetched, and sent to a device, while something else waits.

    Between two steps a GPU waits for its host. Planning, the loader's queue and the copy to the device are off that
    path where they are done while the GPU still computes; what comes, and in which order, is not changed.
    """

    def __init__(self, batches: Iterator[Any]) -> None:
        self._batches = batches
        self._fetched: list[Any] = []
        self._failure: Exception | None = None

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        """The next batch.

        Raises:
            Exception: what fetching it raised, now that it is wanted.
        """
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure
        return self._fetched.pop() if self._fetched else next(self._batches)

    def fetch(self, device: torch.device) -> None:
        """Fetch one batch, unless one is there, and start to copy it to the device."""
        if self._fetched or self._failure is not None:
            return
        try:
            self._fetched.append(next(self._batches).to(device))
        except Exception as error:  # the end of the data too; the step under way shall not fail for it
            self._failure = error
