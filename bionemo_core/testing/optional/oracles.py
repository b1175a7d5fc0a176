"""Checks of an oracle: one number for each text, the same in any company, and fit for other processes."""

from collections.abc import Sequence
from multiprocessing.reduction import ForkingPickler
from typing import Any

import numpy as np

from bionemo_core.plugins import RegisteredComponent
from bionemo_core.testing.subject import Subject, explain_failures, fail

EXAMPLES = ("CCO", "CCN", "CNCC", "CCCCCC", "C")
"""Texts that are proteins and molecules, for an oracle without examples of its own."""


def check_oracle(subject: Subject, registered: RegisteredComponent) -> None:
    """Check that an oracle scores its examples, or proteins that are molecules as well.

    Raises:
        ConformanceError: it does not; the message names the text.
    """
    where = f"oracle {registered.name!r}"
    oracle = subject.build(registered)
    if not callable(oracle):
        fail(f"{where}: its factory returns {type(oracle).__name__}, expected a function of (texts, starts).")
    texts = list(getattr(oracle, "examples", EXAMPLES))
    together = _scores(where, oracle, texts)
    if len(set(together)) < 2:
        fail(f"{where}: {texts} all score {together[0]}, and such a score can guide no search.")
    for again, how in ((oracle, "when it is asked again"), (subject.build(registered), "from a second build")):
        if _scores(where, again, texts) != together:
            fail(f"{where}: {how}, it gives other scores for {texts}. A search needs the same score for the same text.")
    for text, score in zip(texts, together, strict=True):
        (alone,) = _scores(where, oracle, [text])
        if not np.isclose(alone, score, rtol=1e-6, atol=0.0, equal_nan=True):
            fail(f"{where}: {text!r} scores {score} among others and {alone} alone. Score each text by itself.")
    if _scores(where, oracle, []):
        fail(f"{where}: it returns scores for no text.")
    with explain_failures(
        f"{where}: sending it to another process, as task.num_workers does (define its class or function in a module),"
    ):
        ForkingPickler.dumps(oracle)


def _scores(where: str, oracle: Any, texts: Sequence[str]) -> list[float]:
    """Return the score of each text; the start of each search is the text itself."""
    with explain_failures(f"{where}: scoring {list(texts)}"):
        scores = np.asarray(oracle(list(texts), list(texts)), dtype=np.float64)
    if scores.shape != (len(texts),):
        fail(f"{where}: got scores of shape {list(scores.shape)} for {len(texts)} texts, expected [{len(texts)}].")
    if not np.isfinite(scores).all():
        bad = texts[int(np.flatnonzero(~np.isfinite(scores))[0])]
        fail(f"{where}: {bad!r} has no finite score. Name texts that have one as `examples` of the oracle.")
    return [float(score) for score in scores]
