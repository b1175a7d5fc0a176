"""Decompressed bytes of a file, in blocks or in lines with uniform line ends."""

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
    """Split a file name into stem and lower-case extension; an extension such as `.gz` is dropped first."""
    path = Path(name)
    if path.suffix.lower() in COMPRESSED_EXTENSIONS:
        path = path.with_suffix("")
    return path.stem, path.suffix.lower()


class ByteStream:
    """The decompressed bytes of an open file, and the position in the compressed file."""

    def __init__(self, raw: BinaryIO, stream: Any) -> None:
        self._raw = raw
        self._stream = stream

    def read(self, size: int = -1) -> bytes:
        """Read up to `size` bytes; none at the end."""
        return self._stream.read(size)  # type: ignore[no-any-return]

    def __iter__(self) -> Iterator[bytes]:
        """Iterate over the remaining lines, unchanged."""
        return iter(self._stream)

    @property
    def position(self) -> int:
        """Return the number of compressed bytes read so far."""
        return self._raw.tell()

    def text(self) -> io.TextIOBase:
        """Return the rest as text, one character per byte.

        Raises:
            ValueError: the text is UTF-16.
        """
        first = self._stream.read(3)
        if first[:2] in _WIDE_BOMS:
            raise ValueError("the text is UTF-16")
        self._stream = _PrefixedStream(first.removeprefix(_UTF8_BOM), self._stream)
        return io.TextIOWrapper(io.BufferedReader(self._stream), encoding="latin-1")


class _PrefixedStream(io.RawIOBase):
    """A stream that starts with some bytes that were already read from it."""

    def __init__(self, first: bytes, stream: Any) -> None:
        self._first = first
        self._stream = stream

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        chunk = self._first or self._stream.read(len(buffer))
        chunk, self._first = chunk[: len(buffer)], chunk[len(buffer) :]
        buffer[: len(chunk)] = chunk
        return len(chunk)


class _ArrowStream(io.RawIOBase):
    """A pyarrow codec that raises the exceptions of the standard library's codecs."""

    def __init__(self, raw: BinaryIO, codec: str) -> None:
        import pyarrow as pa

        self._invalid: type[Exception] = pa.ArrowInvalid
        self._stream = pa.CompressedInputStream(pa.PythonFile(raw, mode="r"), codec)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            chunk = self._stream.read(len(buffer))
        except self._invalid as error:
            raise OSError(str(error)) from error
        buffer[: len(chunk)] = chunk
        return len(chunk)


@contextmanager
def open_bytes(path: Path, kind: str) -> Iterator[ByteStream]:
    """Open a file and decompress it; its first bytes decide how, not its name.

    Raises:
        DataError: the file cannot be read, is damaged, or is a zip archive.
    """
    where = f"{kind}: {path}"
    try:
        with path.open("rb") as raw:
            head = raw.read(18)
            raw.seek(0)
            yield ByteStream(raw, _decompress(raw, head, where))
    except EOFError as error:
        raise DataError(
            f"{where}: the compressed data ends in the middle of a block. Copy or download it again."
        ) from error
    except (zlib.error, lzma.LZMAError, gzip.BadGzipFile) as error:
        raise DataError(f"{where}: the compressed data is damaged ({error}). Copy or download it again.") from error
    except MemoryError as error:
        raise DataError(
            f"{where}: not enough memory to decompress the data. Free memory, or decompress the file first."
        ) from error
    except OSError as error:
        if error.errno is None:  # raised by bz2 and pyarrow for damaged data
            raise DataError(f"{where}: the compressed data is damaged ({error}). Copy or download it again.") from error
        raise DataError(f"{where}: cannot be read ({error.strerror or error}). Check the path.") from error


def _decompress(raw: BinaryIO, head: bytes, where: str) -> Any:
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
        raise DataError(f"{where}: is a zip archive. Unpack it, or compress the single file with gzip.")
    return raw


def _check_bgzip_end(raw: BinaryIO, where: str) -> None:
    """Check the end marker: a file that was cut between two blocks would otherwise lose records without an error."""
    size = raw.seek(0, os.SEEK_END)
    raw.seek(max(0, size - len(_BGZIP_END)))
    end = raw.read()
    raw.seek(0)
    if end != _BGZIP_END:
        raise DataError(
            f"{where}: the bgzip data lacks its end marker, so the file was cut off. Copy or download it again."
        )


def text_blocks(stream: ByteStream, where: str) -> Iterator[bytes]:
    """Yield the stream in blocks without a byte-order mark, with a line feed at every line end.

    Raises:
        DataError: the text is UTF-16.
    """
    first, carried = True, b""
    while block := stream.read(BLOCK_BYTES):
        block = carried + block
        if first:
            if block.startswith(_WIDE_BOMS):
                raise DataError(f"{where}: the text is UTF-16. Save it as plain ASCII or UTF-8.")
            block = block.removeprefix(_UTF8_BOM)
            first = False
        carried = b""
        if b"\r" in block:
            if block.endswith(b"\r"):
                block, carried = block[:-1], b"\r"
            block = block.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        yield block
    if carried:
        yield b"\n"


def line_blocks(stream: ByteStream, where: str) -> Iterator[list[bytes]]:
    """Yield lists of some thousand lines without their line ends.

    Raises:
        DataError: a line is longer than a record may be, or the text is UTF-16.
    """
    rest = b""
    for block in text_blocks(stream, where):
        *lines, rest = (rest + block).split(b"\n")
        if len(rest) > MAX_RECORD_BYTES:
            raise DataError(
                f"{where}: a line has more than {MAX_RECORD_BYTES >> 20} MB. Check that the file has this format."
            )
        yield lines
    if rest:
        yield [rest]


def text_lines(stream: ByteStream, where: str) -> Iterator[bytes]:
    """Yield the lines of the stream without their line ends.

    Raises:
        DataError: a line is longer than a record may be, or the text is UTF-16.
    """
    for lines in line_blocks(stream, where):
        yield from lines
