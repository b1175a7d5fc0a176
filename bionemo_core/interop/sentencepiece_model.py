"""Reading and writing SentencePiece models in the wire format of protocol buffers, without a library.

The message and field numbers are those of sentencepiece_model.proto (https://github.com/google/sentencepiece).
"""

import struct
from collections.abc import Iterator, Sequence
from enum import IntEnum
from typing import NamedTuple

from bionemo_core.errors import ArtefactError

_PIECES, _TRAINER, _NORMALIZER = 1, 2, 3
_TEXT, _SCORE, _KIND = 1, 2, 3
_MODEL_TYPE, _VOCAB_SIZE, _PAD_ID = 3, 4, 43
_NAME, _DUMMY_PREFIX = 1, 3
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


class Kind(IntEnum):
    """The kind of a piece in SentencePiece."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4


class ModelType(IntEnum):
    """The way in which SentencePiece splits a text."""

    UNIGRAM = 1
    CHARACTER = 4


class VocabularyPiece(NamedTuple):
    """One piece; its index in the list is its id."""

    text: str
    score: float = 0.0
    kind: Kind = Kind.NORMAL


def read_pieces(model: bytes, where: str) -> list[VocabularyPiece]:
    """Read the pieces of a SentencePiece model in the order of their ids.

    Raises:
        ArtefactError: it is not such a model.
    """
    try:
        found = [_parse_piece(content) for number, content in _read_fields(model) if number == _PIECES]
    except (IndexError, struct.error, UnicodeDecodeError, ValueError, TypeError) as error:
        raise ArtefactError(f"{where}: not readable as a SentencePiece model ({error}).") from error
    if not found:
        raise ArtefactError(f"{where}: the SentencePiece model has no pieces.")
    return found


def write_model(pieces: Sequence[VocabularyPiece], pad_id: int, model_type: ModelType = ModelType.CHARACTER) -> bytes:
    """Return a SentencePiece model of these pieces.

    By default it splits a text into characters; a unigram model expects words and puts a space before the text.
    """
    written = [
        _encode_bytes(
            _PIECES, _encode_bytes(_TEXT, piece.text.encode()) + _encode_score(piece.score) + _encode_kind(piece.kind)
        )
        for piece in pieces
    ]
    trainer = (
        _encode_number(_MODEL_TYPE, model_type)
        + _encode_number(_VOCAB_SIZE, len(pieces))
        + _encode_number(_PAD_ID, pad_id)
    )
    normalizer = _encode_bytes(_NAME, b"identity") + _encode_number(_DUMMY_PREFIX, int(model_type is ModelType.UNIGRAM))
    return b"".join(written) + _encode_bytes(_TRAINER, trainer) + _encode_bytes(_NORMALIZER, normalizer)


def write_table(pieces: Sequence[VocabularyPiece]) -> bytes:
    """Return the `.vocab` file that goes with a model: one line for each piece, with its score."""
    return "".join(f"{piece.text}\t{piece.score:g}\n" for piece in pieces).encode()


def _parse_piece(message: bytes | int) -> VocabularyPiece:
    values = dict(_read_fields(_as_bytes(message)))
    score = struct.unpack("<f", _as_bytes(values.get(_SCORE, bytes(4))))[0]
    kind = values.get(_KIND, Kind.NORMAL)
    # Kinds that are not written here, such as byte pieces, count as normal pieces.
    known = Kind(kind) if kind in list(Kind) else Kind.NORMAL
    return VocabularyPiece(_as_bytes(values.get(_TEXT, b"")).decode(), score, known)


def _as_bytes(value: bytes | int) -> bytes:
    if not isinstance(value, bytes):
        raise ValueError("got a number, expected a message")
    return value


def _read_fields(message: bytes) -> Iterator[tuple[int, bytes | int]]:
    position = 0
    while position < len(message):
        tag, position = _read_varint(message, position)
        number, wire = tag >> 3, tag & 7
        if wire == _VARINT:
            value, position = _read_varint(message, position)
            yield number, value
            continue
        if wire == _BYTES:
            length, position = _read_varint(message, position)
        elif wire in (_FIXED32, _FIXED64):
            length = 4 if wire == _FIXED32 else 8
        else:
            raise ValueError(f"wire type {wire}")
        if position + length > len(message):
            raise ValueError("it is truncated")
        yield number, message[position : position + length]
        position += length


def _read_varint(message: bytes, position: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 64, 7):
        byte = message[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise ValueError("a number of more than 64 bits")


def _encode_varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*encoded, value])


def _encode_bytes(number: int, content: bytes) -> bytes:
    return _encode_varint(number << 3 | _BYTES) + _encode_varint(len(content)) + content


def _encode_number(number: int, value: int) -> bytes:
    return _encode_varint(number << 3 | _VARINT) + _encode_varint(value)


def _encode_score(value: float) -> bytes:
    return _encode_varint(_SCORE << 3 | _FIXED32) + struct.pack("<f", value)


def _encode_kind(value: Kind) -> bytes:
    return b"" if value is Kind.NORMAL else _encode_number(_KIND, int(value))
