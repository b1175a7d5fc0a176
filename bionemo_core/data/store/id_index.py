"""From ids to rows of a store, in 16 bytes a record."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from bionemo_core.data.store.record_store import PreparedStore


class IdIndex:
    """Finds the row of an id; holds hashes only, and asks the store whether a row with the same hash is the one."""

    def __init__(self, store: PreparedStore) -> None:
        """Hash all ids of a store."""
        self._store = store
        hashes = np.fromiter((hash(store.id(row)) for row in range(len(store))), dtype=np.int64, count=len(store))
        self._order = np.argsort(hashes, kind="stable")
        self._hashes = hashes[self._order]

    def rows(self, names: Sequence[bytes]) -> NDArray[np.int64]:
        """The first row that has each id, -1 where none has, shape [names]."""
        texts = [_text(name) for name in names]
        hashes = np.fromiter(map(hash, texts), dtype=np.int64, count=len(texts))
        places = np.searchsorted(self._hashes, hashes).tolist()
        found = (self._row(*one) for one in zip(texts, hashes.tolist(), places, strict=True))
        return np.fromiter(found, dtype=np.int64, count=len(texts))

    def _row(self, text: str, hashed: int, place: int) -> int:
        while place < len(self._hashes) and self._hashes[place] == hashed:
            row = int(self._order[place])
            if self._store.id(row) == text:
                return row
            place += 1
        return -1


def _text(name: bytes) -> str:
    """As the store gives ids."""
    try:
        return name.decode()
    except UnicodeDecodeError:
        return name.decode("latin-1")
