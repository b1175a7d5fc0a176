"""Suggestions for names that were not found."""

from collections.abc import Iterable
from difflib import get_close_matches


def close_names(name: str, known: Iterable[str], limit: int = 3) -> list[str]:
    """Return the known names nearest to `name`, best first."""
    by_lower = {candidate.lower(): candidate for candidate in known}
    return [by_lower[match] for match in get_close_matches(name.lower(), by_lower, n=limit, cutoff=0.6)]


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return ` Did you mean 'x'?` with a leading space, or an empty text if no name is close."""
    close = close_names(name, known)
    return f" Did you mean {' or '.join(repr(match) for match in close)}?" if close else ""
