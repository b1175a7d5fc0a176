"""A tokenizer for residues: its pieces are single characters and a few special tokens."""

from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import NDArray

from bionemo_core.errors import ConfigError
from bionemo_core.protocols import Tokenizer


class CharacterTokenizer:
    """A `bionemo_core.protocols.Tokenizer` that looks up every byte of a text in a table of 256 ids.

    It changes no text. Data preparation decides about lower case and letters outside the alphabet, so that a sequence
    has the same ids wherever it is tokenised.
    """

    def __init__(
        self, pieces: Sequence[str], *, pad_id: int, bos_id: int, eos_id: int, unk_id: int, mask_id: int
    ) -> None:
        """Take the pieces in the order of their ids; longer pieces than one character must be special, such as `<pad>`.

        Raises:
            ConfigError: a piece occurs twice or cannot be used, or a special id has no piece.
        """
        self.pieces: tuple[str, ...] = tuple(pieces)
        self.pad_id, self.bos_id, self.eos_id, self.unk_id, self.mask_id = pad_id, bos_id, eos_id, unk_id, mask_id
        if len(set(self.pieces)) != len(self.pieces):
            repeated = next(piece for piece in self.pieces if self.pieces.count(piece) > 1)
            raise ConfigError(f"tokenizer: piece {repeated!r} occurs twice. Give every id its own piece.")
        named = {"pad_id": pad_id, "bos_id": bos_id, "eos_id": eos_id, "unk_id": unk_id, "mask_id": mask_id}
        for key, value in named.items():
            if not 0 <= value < len(self.pieces):
                raise ConfigError(f"tokenizer: {key} is {value}, expected 0 to {len(self.pieces) - 1}.")
        self.special_ids: Collection[int] = frozenset(
            i for i, piece in enumerate(self.pieces) if piece.startswith("<") or i in named.values()
        )
        self._table = np.full(256, unk_id, dtype=np.int32)
        for i, piece in enumerate(self.pieces):
            if i in self.special_ids:
                continue
            if len(piece) != 1 or not piece.isascii():
                raise ConfigError(
                    f"tokenizer: piece {piece!r} (id {i}) is not one ASCII character. "
                    "Write special tokens as <name>; for longer pieces, use another tokenizer."
                )
            self._table[ord(piece)] = i

    @property
    def vocab_size(self) -> int:
        """Return the number of pieces, special ones included, without padding."""
        return len(self.pieces)

    def encode(self, text: str | bytes) -> NDArray[np.int32]:
        """Return the ids of `text`, shape [characters]; a character outside the alphabet becomes `unk_id`."""
        if isinstance(text, str):
            text = text.encode("latin-1", errors="replace")
        return self._table[np.frombuffer(text, dtype=np.uint8)]

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of `ids` without special tokens.

        Raises:
            ConfigError: an id has no piece.
        """
        size = len(self.pieces)
        text = []
        for i in ids:
            if not 0 <= i < size:
                raise ConfigError(f"tokenizer: id {i} has no piece, expected 0 to {size - 1}.")
            if i not in self.special_ids:
                text.append(self.pieces[i])
        return "".join(text)


def add_tokens(pieces: Sequence[str], extra_tokens: Sequence[str] | None) -> tuple[str, ...]:
    """Return the pieces of an alphabet, and after them further letters of a user.

    Raises:
        ConfigError: one is not a single letter that a sequence can hold, or is a piece already.
    """
    extra_tokens = extra_tokens or ()
    for number, token in enumerate(extra_tokens):
        if len(token) != 1 or not "!" <= token <= "~" or "a" <= token <= "z":
            raise ConfigError(
                f"tokenizer.extra_tokens: {token!r} is not a single character such as J, 1 or #. Lower-case letters, "
                "which mean masked residues, and white space cannot be tokens."
            )
        if token in (*pieces, *extra_tokens[:number]):
            raise ConfigError(f"tokenizer.extra_tokens: {token!r} is a token already. Leave it out.")
    return (*pieces, *extra_tokens)


def reads_residues(tokenizer: Tokenizer) -> bool:
    """Return whether a tokenizer reads residues: its pieces are single characters, none in lower case."""
    ordinary = [piece for i, piece in enumerate(tokenizer.pieces) if i not in tokenizer.special_ids]
    return all(len(piece) == 1 for piece in ordinary) and not any("a" <= piece <= "z" for piece in ordinary)


def unit_of(tokenizer: Tokenizer) -> str:
    """Return the word for what a tokenizer cuts a text into, in the plural: residues, or tokens."""
    return "residues" if reads_residues(tokenizer) else "tokens"


def describe_unknown(tokenizer: Tokenizer, text: str | bytes, ids: NDArray[np.int32]) -> str:
    """Return the place and the letters of the first unknown token of a text whose ids are `ids`: `token 3 'J'`.

    The letters are left out if tokens have several and the tokenizer has no method `unknown`.
    """
    position = int(np.flatnonzero(ids == tokenizer.unk_id)[0])
    encoded = text.encode("latin-1", errors="replace") if isinstance(text, str) else text
    name_unknown = getattr(tokenizer, "unknown", None)
    letters = b""
    if name_unknown is not None:
        letters = next(iter(name_unknown(encoded)), b"")
    elif len(ids) == len(encoded):
        letters = encoded[position : position + 1]
    return f"token {position + 1}" + (f" {letters.decode('latin-1')!r}" if letters else "")
