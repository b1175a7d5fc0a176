"""What a tokenizer offers, and what a plugin knows of the texts that its models read and write."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray


@runtime_checkable
class CanonicalForm(Protocol):
    """A function that canonicalises texts, such as SMILES; it can be sent to another process."""

    noun: str
    """The kind of thing that a text represents, in the singular: molecule."""
    version: str
    """The version of the canonicalisation; another version may give other texts."""

    def __call__(self, text: bytes) -> bytes | None:
        """Return the canonical text, or None if `text` is invalid."""
        ...

    def why_not(self, text: bytes) -> str:
        """Return what is wrong with an invalid text, as the end of a sentence: is not SMILES."""
        ...


@dataclass(frozen=True)
class InputForm:
    """The form in which a model's encoder wants a text: its terminal tokens, and letters to replace by another."""

    bos: bool = False
    """Whether a BOS comes before the text."""
    eos: bool = False
    """Whether an EOS comes after the text."""
    replaced: str = ""
    """Letters that the model reads as `replacement`: `UZOB` for ProtT5."""
    replacement: str = ""
    """One letter; empty if no letter is replaced."""

    @property
    def terminals(self) -> tuple[int, int]:
        """The number of terminal tokens before and after a text."""
        return int(self.bos), int(self.eos)

    def spell(self, text: str | bytes) -> str | bytes:
        """Return the text with the letters replaced; its length is unchanged."""
        if not self.replaced:
            return text
        others = self.replacement * len(self.replaced)
        if isinstance(text, str):
            return text.translate(str.maketrans(self.replaced, others))
        return text.translate(bytes.maketrans(self.replaced.encode(), others.encode()))


class Family(Protocol):
    """A function that groups related texts, which a split by `data.clusters` keeps together."""

    def __call__(self, text: bytes, /) -> bytes:
        """Return what exactly the texts of a family share, such as the scaffold of molecules."""
        ...


@runtime_checkable
class Tokenizer(Protocol):
    """A conversion of text to ids and back. Ids are contiguous from 0; `encode` adds no special token.

    Five more members are used if a tokenizer has them:

    - `canonical: CanonicalForm`. Tasks that embed, predict, sample or fine-tune then convert each text that they read
      to its canonical form; a text without one is invalid.
    - `families: Mapping[str, Family]`: ways to group related texts, by the name that `data.clusters` of labelled data
      takes.
    - `input_form: InputForm`: how the models of this tokenizer want a text. Tasks that embed, predict, fine-tune or
      sample follow it, as `bionemo_core.data.model_input` describes.
    - `sample_texts() -> Sequence[str]`: a hundred or more texts in this alphabet, always the same. `data=sample`
      then gives these; without it, proteins.
    - `unknown(text: bytes) -> list[bytes]`: the pieces of a text that the vocabulary lacks, in order, for messages.
    """

    pieces: Sequence[str]
    pad_id: int
    bos_id: int
    eos_id: int
    unk_id: int
    mask_id: int
    special_ids: Collection[int]

    @property
    def vocab_size(self) -> int:
        """The number of pieces, special ones included, without padding of the table."""
        ...

    def encode(self, text: str | bytes) -> NDArray[np.int32]:
        """Return the ids of `text`, shape [tokens]; characters outside the alphabet become `unk_id`."""
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of `ids` without special tokens."""
        ...


class Oracle(Protocol):
    """A function that scores texts; higher is better. One that a module defines can be sent to other processes.

    An oracle of a plugin may have `examples`, a sequence of texts that it scores: the conformance kit tries it on them.
    """

    def __call__(self, texts: Sequence[str], starts: Sequence[str], /) -> Sequence[float] | NDArray[np.float64]:
        """Return the score of each text, shape [texts]; `starts` holds the text from which each search began."""
        ...


@runtime_checkable
class TextJudge(Protocol):
    """A plugin's knowledge of the texts that its models write; a module may have one as `judge`.

    It has no state and can be sent to another process.
    """

    noun: str
    """The kind of thing that a text represents, in the singular: molecule."""

    @property
    def oracles(self) -> Mapping[str, Oracle]:
        """The scores that a configuration can choose by name; their inputs are canonical texts."""
        ...

    def canonical(self, text: str) -> str | None:
        """Return the canonical form of `text`, or None if it is invalid."""
        ...

    def similarity(self, texts: Sequence[str], references: Sequence[str]) -> NDArray[np.float64]:
        """Return the similarity of each text to its reference, from 0 to 1, shape [texts]; all texts are canonical."""
        ...

    def draw_grid(self, texts: Sequence[str], captions: Sequence[str], path: str) -> None:
        """Write a PNG picture of all texts, each above its caption.

        Raises:
            StorageError: the file cannot be written.
        """
        ...
