"""A transparent latent space: eight numbers are eight letters. A module of its own, so that workers can import it."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

DIMENSIONS = 8


class Letters:
    """A latent space in which a number from -12 to 12 is a letter from A to Y, and any other is the invalid `?`."""

    def __init__(self) -> None:
        self.decoded: list[int] = []

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        return np.array([[ord(letter) - ord("M") for letter in text] for text in texts], dtype=np.float64)

    def decode(self, latents: np.ndarray) -> list[str]:
        self.decoded.append(len(latents))
        numbers = np.rint(latents).astype(int)
        return ["".join(chr(ord("M") + n) if abs(n) <= 12 else "?" for n in row) for row in numbers]


class LetterJudge:
    noun = "word"

    @property
    def oracles(self):
        return {"late": late, "alike": alike}

    def canonical(self, text: str) -> str | None:
        return text if len(text) == DIMENSIONS and text.isalpha() else None

    def similarity(self, texts: Sequence[str], references: Sequence[str]) -> np.ndarray:
        return np.array([_share(*pair) for pair in zip(texts, references, strict=True)])

    def draw_grid(self, texts: Sequence[str], captions: Sequence[str], path: str) -> None:
        Path(path).write_text("\n".join(captions))


def late(texts: Sequence[str], starts: Sequence[str]) -> list[float]:
    """Score texts by the positions of their letters in the alphabet."""
    return [letters_after(text) for text in texts]


def letters_after(text: str) -> float:
    return sum(ord(letter) - ord("M") for letter in text) / DIMENSIONS


def alike(texts: Sequence[str], starts: Sequence[str]) -> np.ndarray:
    return LetterJudge().similarity(texts, starts)


def failing(texts: Sequence[str], starts: Sequence[str]) -> list[float]:
    raise ValueError("no such word")


def unpaired(texts: Sequence[str], starts: Sequence[str]) -> list[float]:
    return [1.0]


def _share(one: str, other: str) -> float:
    return sum(a == b for a, b in zip(one, other, strict=True)) / DIMENSIONS
