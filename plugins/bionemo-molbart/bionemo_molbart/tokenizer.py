"""The SMILES tokenizer: a regular expression splits the text, and a table maps the pieces to ids."""

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bionemo_core.data.readers import SmilesSource, open_bytes
from bionemo_core.errors import ConfigError, DataError
from bionemo_core.protocols import CanonicalForm, Family
from bionemo_molbart.vocabulary import BOS, EOS, MASK, PAD, SPECIAL, UNK, molbart_pieces

EXPRESSION = r"\[[^\]]+]|Br?|Cl?|N|O|S|P|F|I|b|c|n|o|s|p|\(|\)|\.|=|#|-|\+|\\\\|\/|:|~|@|\?|>|\*|\$|\%[0-9]{2}|[0-9]"
"""v1's, letter by letter; what it does not name, one backslash for instance, is a token of one character."""

_TOKEN = re.compile(f"(?:{EXPRESSION}|.)".encode(), re.DOTALL)
_MAX_VOCABULARY = 100_000


def smiles_tokens(text: bytes) -> list[bytes]:
    """Return the pieces of a SMILES, whether a vocabulary has them or not; together they are the text."""
    return _TOKEN.findall(text)


class SmilesTokenizer:
    """Looks the pieces of a SMILES up in a vocabulary; satisfies `bionemo_core.protocols.Tokenizer`."""

    def __init__(self, pieces: Sequence[str]) -> None:
        """Take the pieces in the order of their ids.

        The special ones have v1's names: `<PAD>`, `?` (unknown), `^` (begin), `&` (end), `<MASK>`. A piece that no
        SMILES can be cut into, such as `<SEP>`, is special as well.

        Raises:
            ConfigError: a piece occurs twice, a special one is missing, or nothing is left for SMILES.
        """
        self.pieces: tuple[str, ...] = tuple(pieces)
        id_of = {piece: i for i, piece in enumerate(self.pieces)}
        if len(id_of) != len(self.pieces):
            twice = next(piece for piece, count in Counter(self.pieces).items() if count > 1)
            raise ConfigError(f"tokenizer: piece {twice!r} occurs twice; every id needs a piece of its own.")
        wanted = (PAD, UNK, BOS, EOS, MASK)
        missing = [name for name in wanted if name not in id_of]
        if missing:
            raise ConfigError(
                f"tokenizer: the vocabulary has no {', '.join(missing)}, expected {' '.join(wanted)} "
                "among its pieces. Add them, each on a line."
            )
        self.pad_id, self.unk_id, self.mask_id = id_of[PAD], id_of[UNK], id_of[MASK]
        self.bos_id, self.eos_id = id_of[BOS], id_of[EOS]
        self._id_of = {p.encode(): i for p, i in id_of.items() if p not in SPECIAL and _is_one_token(p)}
        if not self._id_of:
            raise ConfigError("tokenizer: the vocabulary has no token of SMILES, expected C, c, ( and so on.")
        ordinary = set(self._id_of.values())
        self.special_ids: Collection[int] = frozenset(i for i in range(len(self.pieces)) if i not in ordinary)

    @property
    def canonical(self) -> CanonicalForm:
        """RDKit's canonical SMILES."""
        from bionemo_molbart.molecules import CanonicalSmiles  # RDKit, which the command line need not import

        return CanonicalSmiles()

    @property
    def families(self) -> Mapping[str, Family]:
        """Molecules of one Bemis-Murcko scaffold are relatives."""
        from bionemo_molbart.molecules import SCAFFOLD, scaffold

        return {SCAFFOLD: scaffold}

    @property
    def vocab_size(self) -> int:
        """Number of pieces, special ones included, without padding."""
        return len(self.pieces)

    def encode(self, text: str | bytes) -> NDArray[np.int32]:
        """Return the ids of `text`, shape [tokens]; what the vocabulary lacks becomes `unk_id`."""
        if isinstance(text, str):
            text = text.encode("latin-1", errors="replace")
        look_up, unknown = self._id_of.get, self.unk_id
        return np.array([look_up(token, unknown) for token in _TOKEN.findall(text)], dtype=np.int32)

    def count(self, text: bytes) -> int:
        """Return the number of tokens of `text`."""
        return len(_TOKEN.findall(text))

    def unknown(self, text: bytes) -> list[bytes]:
        """Return the pieces of `text` that the vocabulary lacks, in their order."""
        return [token for token in _TOKEN.findall(text) if token not in self._id_of]

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of `ids`, special tokens left out.

        Raises:
            ConfigError: an id names no piece.
        """
        size, special = len(self.pieces), self.special_ids
        wrong = next((i for i in ids if not 0 <= i < size), None)
        if wrong is not None:
            raise ConfigError(f"tokenizer: id {wrong} names no piece, expected 0 to {size - 1}.")
        return "".join([self.pieces[i] for i in ids if i not in special])


def _is_one_token(piece: str) -> bool:
    return piece.isascii() and smiles_tokens(piece.encode()) == [piece.encode()]


def molbart_tokenizer() -> SmilesTokenizer:
    """Return the 523 tokens of MegaMolBART and MolMIM."""
    return SmilesTokenizer(molbart_pieces())


def tokenizer_from_file(path: Path) -> SmilesTokenizer:
    """Return the vocabulary in a file, one piece per line in the order of the ids, as v1's `megamolbart.vocab`.

    Raises:
        ConfigError: it lacks a special piece or has one twice.
        DataError: the file cannot be read, or is no such list.
    """
    with open_bytes(path, "tokenizer") as stream:
        text = stream.read(64 * _MAX_VOCABULARY)
    try:
        lines = text.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise DataError(f"tokenizer: {path}: is not text ({error.reason}). Give one piece per line.") from error
    pieces = [line for line in lines if line]
    if len(pieces) > _MAX_VOCABULARY:
        raise DataError(f"tokenizer: {path}: has more than {_MAX_VOCABULARY:,} pieces. Give a vocabulary, not data.")
    return SmilesTokenizer(pieces)


def learned_tokenizer(texts: Iterable[bytes], min_count: int = 1) -> SmilesTokenizer:
    """Return a vocabulary of the special pieces and all tokens that occur in `texts`, most frequent first.

    Raises:
        DataError: no token occurs `min_count` times.
    """
    counts: Counter[bytes] = Counter()
    for text in texts:
        counts.update(smiles_tokens(text))
    frequent = [token for token, count in counts.items() if count >= min_count and token.isascii()]
    frequent.sort(key=lambda token: (-counts[token], token))
    learned = [token.decode() for token in frequent if token.decode() not in SPECIAL and not token.isspace()]
    if not learned:
        raise DataError(f"tokenizer: no token occurs {min_count} times, so there is no vocabulary to learn.")
    return SmilesTokenizer((*SPECIAL, *learned))


def smiles_of_file(path: Path) -> Iterable[bytes]:
    """Return the SMILES of an SMI file, plain or compressed.

    Raises:
        DataError: the file cannot be read.
    """
    return (record.sequence for record in SmilesSource(path).records(path))
