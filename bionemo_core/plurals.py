"""Counts in words: "1 pack", "2 packs", "1,024 tokens"."""

from collections.abc import Sized


def format_count(number: int, one: str, many: str = "") -> str:
    """Return a number and what is counted: `one` if it is 1, otherwise `many`, which is `one` with an s if left out."""
    return f"{number:,} {one if number == 1 else many or f'{one}s'}"


def leave_out(keys: Sized) -> str:
    """Return the advice to leave a key out, or several of them."""
    return f"Leave {'it' if len(keys) == 1 else 'them'} out."
