"""A transparent latent space: eight numbers are eight letters. A module of its own, so that workers can import it."""

import os
import signal
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


class WordJudge:
    """A judge for which words with the same letters are equal, and an empty word is invalid."""

    noun = "word"

    @property
    def oracles(self):
        return {"share_of_a": lambda texts, starts: [text.count("A") / len(text) for text in texts]}

    def canonical(self, text):
        return "".join(sorted(text)) or None

    def similarity(self, texts, references):
        pairs = zip(map(set, texts), map(set, references), strict=True)
        return np.array([len(a & b) / len(a | b) for a, b in pairs])

    def draw_grid(self, texts, captions, path):
        Path(path).write_text("\n".join(f"{text}: {caption}" for text, caption in zip(texts, captions, strict=True)))


class Doomed(WordJudge):
    """A judge whose score kills its process in its fourth call: the starts and two iterations are scored."""

    def __init__(self, calls: str) -> None:
        self.calls = calls

    @property
    def oracles(self):
        return {"share_of_a": self.score}

    def score(self, texts, starts):
        with Path(self.calls).open("a") as file:
            file.write(".")
        if Path(self.calls).stat().st_size == 4:
            os.kill(os.getpid(), signal.SIGKILL)
        return [text.count("A") / len(text) for text in texts]
