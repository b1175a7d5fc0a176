"""Lists of texts that a caller in Python gives."""

from collections.abc import Iterable
from typing import Any

from bionemo_core.errors import DataError

_MOST_SHOWN = 40


def check_texts(texts: Iterable[Any], what: str = "sequence", *, first: int = 1) -> list[Any]:
    """Return some texts as a list, after checking that each is one; a single text is not taken for its letters.

    Args:
        texts: the texts: a list, a column of a table, a generator.
        what: the word for a text, for messages.
        first: the number of the first text, for messages.

    Raises:
        DataError: `texts` is a single text, or one of them is something else, such as a missing value of a table.
    """
    if isinstance(texts, str | bytes):
        raise DataError(f"got one text, expected a list of {what}s. For a single one, pass [{what}].")
    found = list(texts)
    for number, text in enumerate(found, start=first):
        if not isinstance(text, str | bytes):
            shown = repr(text)[:_MOST_SHOWN]
            raise DataError(f"{what} {number}: got {shown}, expected a text. Leave missing values out.")
    return found
