"""Sequences that are in the training split and in another one too: an evaluation on them measures memory."""

import logging
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

log = logging.getLogger("bionemo")

MOST = 1_000_000
"""Sequences of a split that are compared, from its start; more would take minutes at every start."""


def warn_of_shared_sequences(splits: Mapping[str, Any], advice: str) -> None:
    """Warn for each split of how many of its sequences, as they are stored, are in the training split too.

    Args:
        splits: datasets by name, `train` among them; None for a split that does not exist.
        advice: how to avoid it, as a sentence.
    """
    others = {name: part for name, part in splits.items() if name != "train" and part is not None}
    held_out = {name: set(_sequences(part)) for name, part in others.items()}
    wanted = set().union(*held_out.values())
    if not wanted:
        return
    shared = {sequence for sequence in _sequences(splits["train"]) if sequence in wanted}
    least = "at least " if any(len(part) > MOST for part in (splits["train"], *others.values())) else ""
    for name, part in others.items():
        if count := sum(sequence in shared for sequence in _sequences(part)):
            log.warning(
                "data: %s%d of the %d %s %s are in the training split too. %s",
                least,
                count,
                len(part),
                name,
                "pairs" if getattr(part, "seconds", ()) else "sequences",
                advice,
            )


def _sequences(part: Any) -> Iterator[bytes]:
    stored = getattr(part, "texts", None)  # of labelled records
    texts = stored() if stored is not None else (part[row] for row in range(len(part)))
    return islice((bytes(text) for text in texts), MOST)
