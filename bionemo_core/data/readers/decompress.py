"""The bytes of a file, whatever it is compressed with, in blocks or lines with one kind of line end."""

import bz2
import gzip
import io
import lzma
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from bionemo_core.errors import DataError

BLOCK_BYTES = 1 << 20
MAX_RECORD_BYTES = 1 << 26
COMPRESSED_EXTENSIONS = (".gz", ".bgz", ".bz2", ".xz", ".zst", ".lz4")
_UTF8_BOM = b"\xef\xbb\xbf"
_WIDE_BOMS = (b"\xff\xfe", b"\xfe\xff")
_GZIP, _BZIP2, _XZ, _ZIP = b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0", b"PK\x03\x04"
_ARROW_CODECS = {b"\x28\xb5\x2f\xfd": "zstd", b"\x04\x22\x4d\x18": "lz4"}
# SAM specification, 4.1: a gzip header with a subfield `BC`, and the empty block that ends every bgzip file.
_BGZIP_EXTRA = b"\x06\0BC\x02\0"
_BGZIP_END = bytes.fromhex("1f8b08040000000000ff0600424302001b0003000000000000000000")


def split_extension(name: str) -> tuple[str, str]:
    """Split a file name into its stem and its extension in lower case; the extension of a compression is dropped."""
    path = Path(name)
    if path.suffix.lower() in COMPRESSED_EXTENSIONS:
        path = path.with_suffix("")
    return path.stem, path.suffix.lower()


class ByteStream:
    """The decompressed bytes of an open file, and how far into the file they were read."""

    def __init__(self, raw: BinaryIO, stream: Any) -> None:
        self._raw = raw
        self._stream = stream

    def read(self, size: int = -1) -> bytes:
        """Up to `size` bytes; none at the end."""
        return self._stream.read(size)  # type: ignore[no-any-return]

    def __iter__(self) -> Iterator[bytes]:
        """The lines that are left, as they stand."""
        return iter(self._stream)

    @property
    def position(self) -> int:
        """Bytes of the file read so far, compressed as they are."""
        return self._raw.tell()

    def text(self) -> io.TextIOBase:
        """The rest as text, a byte a character.

        Raises:
            ValueError: it is UTF-16.
        """
        first = self._stream.read(3)
        if first[:2] in _WIDE_BOMS:
            raise ValueError("the text is UTF-16")
        self._stream = _Rejoined(first.removeprefix(_UTF8_BOM), self._stream)
        return io.TextIOWrapper(io.BufferedReader(self._stream), encoding="latin-1")


class _Rejoined(io.RawIOBase):
    """Some bytes, then those of a stream."""

    def __init__(self, first: bytes, stream: Any) -> None:
        self._first = first
        self._stream = stream

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        held = self._first or self._stream.read(len(buffer))
        held, self._first = held[: len(buffer)], held[len(buffer) :]
        buffer[: len(held)] = held
        return len(held)


class _ArrowStream(io.RawIOBase):
    """A codec of pyarrow's; its failures are those of the standard library's."""

    def __init__(self, raw: BinaryIO, codec: str) -> None:
        import pyarrow as pa

        self._invalid: type[Exception] = pa.ArrowInvalid
        self._stream = pa.CompressedInputStream(pa.PythonFile(raw, mode="r"), codec)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            held = self._stream.read(len(buffer))
        except self._invalid as error:
            raise OSError(str(error)) from error
        buffer[: len(held)] = held
        return len(held)


@contextmanager
def open_bytes(path: Path, kind: str) -> Iterator[ByteStream]:
    """The contents of a file, decompressed as its first bytes say, whatever its name is.

    Raises:
        DataError: the file cannot be read, or is damaged, or is an archive.
    """
    where = f"{kind}: {path}"
    try:
        with path.open("rb") as raw:
            head = raw.read(18)
            raw.seek(0)
            yield ByteStream(raw, _decompressed(raw, head, where))
    except EOFError as error:
        raise DataError(
            f"{where}: the compressed data ends in the middle of a block. Copy or download it again."
        ) from error
    except (zlib.error, lzma.LZMAError, gzip.BadGzipFile) as error:
        raise DataError(f"{where}: the compressed data is damaged ({error}). Copy or download it again.") from error
    except MemoryError as error:
        raise DataError(f"{where}: the compressed data asks for more memory than there is.") from error
    except OSError as error:
        if error.errno is None:  # bz2 and pyarrow
            raise DataError(f"{where}: the compressed data is damaged ({error}). Copy or download it again.") from error
        raise DataError(f"{where}: cannot be read ({error.strerror or error}). Check the path.") from error


def _decompressed(raw: BinaryIO, head: bytes, where: str) -> Any:
    if head.startswith(_GZIP):
        if head[10:16] == _BGZIP_EXTRA and head[3] & 4:
            _check_bgzip_end(raw, where)
        return io.BufferedReader(gzip.GzipFile(fileobj=raw), BLOCK_BYTES)  # type: ignore[arg-type]
    if head.startswith(_BZIP2):
        return bz2.BZ2File(raw)
    if head.startswith(_XZ):
        return lzma.LZMAFile(raw)
    for magic, codec in _ARROW_CODECS.items():
        if head.startswith(magic):
            return io.BufferedReader(_ArrowStream(raw, codec), BLOCK_BYTES)
    if head.startswith(_ZIP):
        raise DataError(f"{where}: is a zip archive. Unpack it, or compress the file itself with gzip.")
    return raw


def _check_bgzip_end(raw: BinaryIO, where: str) -> None:
    """Cut between two blocks, such a file would otherwise give fewer records and no error."""
    size = raw.seek(0, os.SEEK_END)
    raw.seek(max(0, size - len(_BGZIP_END)))
    end = raw.read()
    raw.seek(0)
    if end != _BGZIP_END:
        raise DataError(f"{where}: the bgzip data lacks its end; the file was cut off. Copy or download it again.")


def text_blocks(stream: ByteStream, where: str) -> Iterator[bytes]:
    """The stream in blocks, without a byte-order mark, every line ended by a bare line feed.

    Raises:
        DataError: the text is UTF-16.
    """
    first, held = True, b""
    while block := stream.read(BLOCK_BYTES):
        block = held + block
        if first:
            if block.startswith(_WIDE_BOMS):
                raise DataError(f"{where}: the text is UTF-16. Save it as plain ASCII or UTF-8.")
            block = block.removeprefix(_UTF8_BOM)
            first = False
        held = b""
        if b"\r" in block:
            if block.endswith(b"\r"):
                block, held = block[:-1], b"\r"
            block = block.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        yield block
    if held:
        yield b"\n"


def line_blocks(stream: ByteStream, where: str) -> Iterator[list[bytes]]:
    """The lines of the stream without their ends, some thousands at a time.

    Raises:
        DataError: a line is longer than any record, or the text is UTF-16.
    """
    rest = b""
    for block in text_blocks(stream, where):
        *lines, rest = (rest + block).split(b"\n")
        if len(rest) > MAX_RECORD_BYTES:
            raise DataError(f"{where}: a line has more than {MAX_RECORD_BYTES >> 20} MB. Is this the right format?")
        yield lines
    if rest:
        yield [rest]


def text_lines(stream: ByteStream, where: str) -> Iterator[bytes]:
    """The lines of the stream without their ends.

    Raises:
        DataError: a line is longer than any record, or the text is UTF-16.
    """
    for lines in line_blocks(stream, where):
        yield from lines
