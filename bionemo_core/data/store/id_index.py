"""A lookup from ids to rows of a store, in 16 bytes per record."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from bionemo_core.data.readers import decode_text
from bionemo_core.data.store.record_store import PreparedStore


class IdIndex:
    """An index of the hashes of ids; the store decides whether a row with the same hash has the same id."""

    def __init__(self, store: PreparedStore) -> None:
        """Hash all ids of a store."""
        self._store = store
        hashes = np.fromiter((hash(store.id(row)) for row in range(len(store))), dtype=np.int64, count=len(store))
        self._order = np.argsort(hashes, kind="stable")
        self._hashes = hashes[self._order]

    def rows(self, names: Sequence[bytes]) -> NDArray[np.int64]:
        """Return the first row with each id, -1 for an unknown id, shape [names]."""
        texts = [decode_text(name) for name in names]
        hashes = np.fromiter(map(hash, texts), dtype=np.int64, count=len(texts))
        places = np.searchsorted(self._hashes, hashes).tolist()
        found = map(self._find_row, texts, hashes.tolist(), places)
        return np.fromiter(found, dtype=np.int64, count=len(texts))

    def _find_row(self, text: str, text_hash: int, place: int) -> int:
        while place < len(self._hashes) and self._hashes[place] == text_hash:
            row = int(self._order[place])
            if self._store.id(row) == text:
                return row
            place += 1
        return -1
