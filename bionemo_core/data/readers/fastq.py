"""A FASTQ reader; it checks the length of the qualities and drops them."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from bionemo_core.data.readers.decompress import MAX_RECORD_BYTES, open_bytes, text_lines
from bionemo_core.data.readers.records import Record, path_list
from bionemo_core.errors import DataError


class FastqSource:
    """FASTQ files, with one or several lines for sequence and quality; an id is the first word of a header."""

    kind = "fastq"
    columns: tuple[str, ...] = ()

    def __init__(self, paths: Path | Sequence[Path]) -> None:
        self.paths = path_list(paths)

    @property
    def options(self) -> dict[str, object]:
        """Return no option: the files alone decide which records they give."""
        return {}

    def records(self, path: Path) -> Iterator[Record]:
        """Yield the records in the order of the file.

        Raises:
            DataError: the file is not FASTQ, is cut off, or cannot be read.
        """
        where = f"fastq: {path}"
        with open_bytes(path, self.kind) as stream:
            numbered = enumerate(text_lines(stream, where), start=1)
            empty = True
            for number, line in numbered:
                if not line.strip():
                    continue
                if not line.startswith(b"@"):
                    raise DataError(
                        f"{where}:{number}: starts with {line[:20]!r}, expected '@' and an id. "
                        "Give a FASTQ file, plain or compressed."
                    )
                empty = False
                yield _read_record(line, number, numbered, where)
            if empty:
                raise DataError(f"{where}: has no record. Give a FASTQ file with at least one record.")


def _read_record(header: bytes, first: int, numbered: Iterator[tuple[int, bytes]], where: str) -> Record:
    words = header[1:].split(None, 1)
    name = words[0] if words else b""
    parts: list[bytes] = []
    size = 0
    for _, line in numbered:
        if line.startswith(b"+"):
            if line[1:].split() not in ([], header[1:].split()):
                raise DataError(
                    f"{where}:{first}: record {_quote(name)}: another id follows its '+'. Copy the file again."
                )
            break
        parts.append(line.strip())
        size += len(parts[-1])
        if size > MAX_RECORD_BYTES:
            raise DataError(
                f"{where}:{first}: record {_quote(name)} has more than {MAX_RECORD_BYTES >> 20} MB before its '+'."
            )
    else:
        raise _truncation_error(where, first, name)
    quality = 0
    while quality < size:
        number, line = next(numbered, (0, b""))
        if not number:
            raise _truncation_error(where, first, name)
        quality += len(line.rstrip())
    problem = "" if words else "no id"
    if quality > size:
        problem = "quality longer than the sequence"
    return Record(name, b"".join(parts), first, problem)


def _truncation_error(where: str, line: int, name: bytes) -> DataError:
    return DataError(
        f"{where}:{line}: record {_quote(name)} has an incomplete quality; the file was cut off or is damaged. "
        "Copy or download it again."
    )


def _quote(name: bytes) -> str:
    return repr(name[:80].decode("latin-1"))
