"""Tokenizers with the vocabulary of a folder, which is part of their configuration: no file is read."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer as FastTokenizer

from bionemo_core.errors import ConfigError
from bionemo_core.protocols import InputForm
from bionemo_huggingface.sizes import VocabularyForm


class FolderTokenizer:
    """What both kinds have in common: pieces, special ids, and the form of a text."""

    def __init__(self, pieces: Sequence[str], special: VocabularyForm) -> None:
        """Take the pieces in the order of their ids.

        Raises:
            ConfigError: a special id has no piece, or the letter that replaces others is missing.
        """
        self.pieces: tuple[str, ...] = tuple(pieces)
        self.pad_id, self.unk_id, self.mask_id = special.pad_id, special.unk_id, special.mask_id
        self.bos_id, self.eos_id = special.bos_id, special.eos_id
        named = (self.pad_id, self.unk_id, self.mask_id, self.bos_id, self.eos_id)
        self.special_ids: Collection[int] = frozenset((*named, *special.other_special_ids))
        if wrong := [i for i in self.special_ids if not 0 <= i < len(self.pieces)]:
            raise ConfigError(f"tokenizer: special id {wrong[0]} has no piece, expected 0 to {len(self.pieces) - 1}.")
        if bool(special.replaced) != (len(special.replacement) == 1):
            raise ConfigError(
                f"tokenizer.replaced={special.replaced!r} with tokenizer.replacement={special.replacement!r}: expected "
                "letters and the one letter that they are read as, or neither."
            )
        self.input_form = InputForm(special.has_bos, special.has_eos, special.replaced, special.replacement)

    @property
    def vocab_size(self) -> int:
        """Return the number of pieces, special ones included."""
        return len(self.pieces)

    def _ordinary(self, ids: Sequence[int]) -> list[int]:
        """Return the ids without special ones.

        Raises:
            ConfigError: an id has no piece.
        """
        for i in ids:
            if not 0 <= i < len(self.pieces):
                raise ConfigError(f"tokenizer: id {i} has no piece, expected 0 to {len(self.pieces) - 1}.")
        return [int(i) for i in ids if i not in self.special_ids]


class LetterTokenizer(FolderTokenizer):
    """One token for each letter: the alphabets of proteins and nucleotides."""

    def __init__(self, pieces: Sequence[str], letters: str, letter_ids: Sequence[int], special: VocabularyForm) -> None:
        """Take the letters that a text may have, and the id of each.

        Raises:
            ConfigError: they do not belong together.
        """
        super().__init__(pieces, special)
        if len(letters) != len(letter_ids) or not letters.isascii():
            raise ConfigError(
                f"tokenizer.letters: {len(letters)} letters, and {len(letter_ids)} tokenizer.letter_ids. Expected one "
                "id for each ASCII letter."
            )
        self.letters = dict(zip(letters, letter_ids, strict=True))
        self._table = np.full(256, self.unk_id, dtype=np.int32)
        self._letter_of: dict[int, str] = {}
        for letter, i in self.letters.items():
            if not 0 <= i < len(self.pieces):
                raise ConfigError(f"tokenizer.letter_ids: {i} has no piece, expected 0 to {len(self.pieces) - 1}.")
            self._table[ord(letter)] = i
            if self._letter_of.get(i) != self.pieces[i]:  # of several spellings, the piece's own
                self._letter_of[i] = letter

    def encode(self, text: str | bytes) -> NDArray[np.int32]:
        """Return the ids of `text`, shape [letters]."""
        if isinstance(text, str):
            text = text.encode("latin-1", errors="replace")
        return self._table[np.frombuffer(text, dtype=np.uint8)]

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of `ids` without special tokens.

        Raises:
            ConfigError: an id has no piece.
        """
        return "".join(self._letter_of.get(i, "") for i in self._ordinary(ids))


class PieceTokenizer(FolderTokenizer):
    """Tokens of several letters, such as those of SMILES, by the library `tokenizers`."""

    def __init__(self, definition: str, special: VocabularyForm) -> None:
        """Take the content of a `tokenizer.json`.

        Raises:
            ConfigError: it cannot be read.
        """
        try:
            self._fast = FastTokenizer.from_str(definition)
            self.definition = definition
        except Exception as error:  # the library raises plain Exception
            raise ConfigError(f"tokenizer.definition: not the content of a tokenizer.json: {error}.") from error
        self._fast.no_padding()
        self._fast.no_truncation()
        super().__init__(pieces_of(self._fast.get_vocab()), special)

    def encode(self, text: str | bytes) -> NDArray[np.int32]:
        """Return the ids of `text`, shape [tokens]."""
        return np.array(self._fast.encode(_text(text), add_special_tokens=False).ids, dtype=np.int32)

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of `ids` without special tokens.

        Raises:
            ConfigError: an id has no piece.
        """
        decoded: str = self._fast.decode(self._ordinary(ids), skip_special_tokens=False)
        return decoded

    def unknown(self, text: bytes) -> list[bytes]:
        """Return the parts of `text` that the vocabulary lacks, in order."""
        whole = _text(text)
        found = self._fast.encode(whole, add_special_tokens=False)
        places = (place for i, place in zip(found.ids, found.offsets, strict=True) if i == self.unk_id)
        return [whole[start:stop].encode("latin-1", errors="replace") for start, stop in places]


def pieces_of(vocabulary: dict[str, int]) -> list[str]:
    """Return the pieces in the order of their ids; an id without a piece gets a name of its own."""
    pieces = [f"<no_piece_{i}>" for i in range(max(vocabulary.values(), default=-1) + 1)]
    for piece, i in vocabulary.items():
        pieces[i] = piece
    return pieces


def _text(text: str | bytes) -> str:
    return text if isinstance(text, str) else text.decode("latin-1")
