"""Ways in which the text of a data file comes to harm, and what must come of each."""

import gzip
import random
from collections.abc import Callable
from pathlib import Path

from bionemo_core.data.readers import Source
from bionemo_core.data.store.prepare import prepare
from bionemo_core.data.store.residue_filter import RecordFilter
from bionemo_core.errors import DataError
from bionemo_core.protocols import BuildContext

LETTERS = b"ACDEFGHIKLMNPQRSTVWY"
_INSERTED = [
    b"\0",
    b"\r",
    b"\r\n",
    b"\xef\xbb\xbf",
    b"\xff\xfe",
    b"\xe9",
    b"\t",
    b" ",
    b'"',
    b",",
    b">",
    b"\n>",
    b"\n\n",
]
_RESIDUES = [b"J", b"O", b"U", b"*", b"-", b"x", b"B", b"\xc3\xa9"]

Edit = Callable[[bytes, random.Random], bytes]


def sequence(draw: random.Random) -> bytes:
    """A protein of 1 to 80 residues."""
    return bytes(draw.choices(LETTERS, k=draw.randint(1, 80)))


def _spliced(text: bytes, draw: random.Random, pieces: list[bytes]) -> bytes:
    for _ in range(draw.randint(1, 4)):
        at = draw.randrange(len(text) + 1)
        text = text[:at] + draw.choice(pieces) + text[at:]
    return text


def _flipped(text: bytes, draw: random.Random) -> bytes:
    raw = bytearray(text)
    for _ in range(draw.randint(1, 8)):
        raw[draw.randrange(len(raw))] ^= 1 << draw.randrange(8)
    return bytes(raw)


def _repeated(text: bytes, draw: random.Random) -> bytes:
    lines = text.split(b"\n")
    first = draw.randrange(len(lines))
    return b"\n".join([*lines, *lines[first : first + draw.randint(1, 9)]])


def _zipped_and_cut(text: bytes, draw: random.Random) -> bytes:
    middle = draw.randrange(len(text) + 1)
    first, second = gzip.compress(text[:middle], mtime=0), gzip.compress(text[middle:], mtime=0)
    whole = first + second
    return draw.choice([first, whole, whole[: draw.randrange(len(whole))], _flipped(whole, draw)])


EDITS: list[Edit] = [
    lambda text, draw: _spliced(text, draw, _INSERTED),
    lambda text, draw: _spliced(text, draw, _RESIDUES),
    _flipped,
    lambda text, draw: text[: draw.randrange(len(text))],
    _repeated,
    lambda text, draw: text.replace(b"\n", draw.choice([b"\r\n", b"\r", b"\n\n", b" \n", b""])),
    lambda text, draw: text.decode("latin-1").encode(draw.choice(["utf-16", "utf-16-le", "utf-8-sig", "utf-8"])),
    _zipped_and_cut,
    lambda text, draw: b"",
    lambda text, draw: _spliced(text, draw, [bytes(draw.choices(LETTERS, k=100_000))]),
    lambda text, draw: draw.randbytes(draw.randrange(400)),
]


def check(source: Source, text: bytes, rules: RecordFilter, home: Path) -> dict[str, bytes] | None:
    """Prepares a file of that text: the records of the store by id, or None where the file is refused by name."""
    path = source.paths[0]
    path.write_bytes(text)
    try:
        store = prepare(source, rules, BuildContext(home=str(home)))
    except DataError as error:
        assert path.name in str(error)
        return None
    counts = store.manifest["records"]
    assert counts["read"] == counts["used"] + sum(counts["rejected"].values())
    assert counts["used"] == len(store) == len(set(store.ids()))
    return dict(zip(store.ids(), [store[i] for i in range(len(store))], strict=True))


def plain(text: bytes) -> bytes | None:
    """The text as an editor shows it, one kind of line end; None where it is compressed."""
    if text[:2] == b"\x1f\x8b":
        return None
    return text.removeprefix(b"\xef\xbb\xbf").replace(b"\r\n", b"\n").replace(b"\r", b"\n")
