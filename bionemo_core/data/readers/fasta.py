"""A FASTA reader that works on blocks of text: a record costs a few slices, a residue one pass of C code."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from bionemo_core.data.readers.decompress import MAX_RECORD_BYTES, open_bytes, text_blocks
from bionemo_core.data.readers.records import Column, Record, RecordBlock, path_list
from bionemo_core.errors import ConfigError, DataError

DESCRIPTION = "description"
_LINE_FEED, _SPACE, _START = ord("\n"), ord(" "), ord(">")
_SPACES = bytes(range(_SPACE + 1))
_WORD_END = re.compile(rb"[\x00-\x20]")
_USUAL_ID_BYTES = 40


class FastaSource:
    """FASTA files; an id is the first word of a header, the column `description` is the rest."""

    kind = "fasta"

    def __init__(self, paths: Path | Sequence[Path], columns: Sequence[str] = ()) -> None:
        """Take the files; `columns=["description"]` keeps the headers.

        Raises:
            ConfigError: `columns` names another column.
        """
        self.paths = path_list(paths)
        self.columns = tuple(columns)
        if self.columns not in ((), (DESCRIPTION,)):
            raise ConfigError(f"fasta: got columns {', '.join(self.columns)}, expected only {DESCRIPTION!r}.")

    @property
    def options(self) -> dict[str, object]:
        """Return no option: the files alone decide which records they give."""
        return {}

    def records(self, path: Path) -> Iterator[Record]:
        """Yield the records in the order of the file.

        Raises:
            DataError: the file is not FASTA, cannot be read, or a record is larger than any protein.
        """
        for block in self.blocks(path):
            yield from block.records()

    def blocks(self, path: Path) -> Iterator[RecordBlock]:
        """Yield the same records in blocks.

        Raises:
            DataError: the file is not FASTA, cannot be read, or a record is larger than any protein.
        """
        where = f"fasta: {path}"
        with open_bytes(path, self.kind) as stream:
            for block in fasta_blocks(text_blocks(stream, where), where, bool(self.columns)):
                yield replace(block, position=stream.position)


def fasta_blocks(blocks: Iterator[bytes], where: str, describe: bool = False) -> Iterator[RecordBlock]:
    """Parse blocks of FASTA text, which may end anywhere.

    Raises:
        DataError: there is text before the first `>`, no record at all, or one that is larger than any protein.
    """
    line, rest = 1, b""
    started = False
    for block in blocks:
        text = rest + block
        if not started:
            text, line = _skip_blank_lines(text, line)
            if not text:
                rest = b""
                continue
            if not text.startswith(b">"):
                raise DataError(
                    f"{where}:{line}: starts with {text[:20]!r}, expected '>' before the first record. "
                    "Give a FASTA file, plain or compressed."
                )
            started = True
        end = text.rfind(b"\n>") + 1
        if end:
            parsed, num_lines = _parse(text, end, line, describe)
            yield parsed
            line += num_lines
        rest = text[end:]
        if len(rest) > MAX_RECORD_BYTES:
            raise DataError(
                f"{where}:{line}: a record has more than {MAX_RECORD_BYTES >> 20} MB, more than any protein. "
                "Give protein sequences, not a genome."
            )
    if not started:
        raise DataError(f"{where}: has no record. Give a FASTA file with at least one record.")
    if not rest.endswith(b"\n"):
        rest += b"\n"
    yield _parse(rest, len(rest), line, describe)[0]


def _skip_blank_lines(text: bytes, line: int) -> tuple[bytes, int]:
    stripped = text.lstrip(b"\n \t")
    return stripped, line + text[: len(text) - len(stripped)].count(b"\n")


def _parse(text: bytes, end: int, first_line: int, describe: bool) -> tuple[RecordBlock, int]:
    """Parse `text`, which starts with `>`, up to `end`, just after a line feed; return the records and their lines."""
    array = np.frombuffer(text, dtype=np.uint8, count=end)
    line_ends = np.flatnonzero(array == _LINE_FEED)
    line_starts = np.concatenate([[0], line_ends[:-1] + 1])
    headers = np.flatnonzero(array[line_starts] == _START)
    # Headers and sequences alternate: the sequences are every second value.
    bounds = np.empty(2 * len(headers) + 1, dtype=np.int64)
    bounds[0:-1:2], bounds[1::2], bounds[-1] = line_starts[headers], line_ends[headers] + 1, end
    sequences = Column(text, bounds).take(np.arange(1, 2 * len(headers), 2))
    num_line_ends = np.diff(headers, append=len(line_ends)) - 1
    offsets = sequences.offsets.copy()
    offsets[1:] -= np.cumsum(num_line_ends)
    ids, descriptions, problems = _parse_headers(text, bounds[0:-1:2] + 1, bounds[1::2] - 1, describe)
    block = RecordBlock(
        ids,
        Column(sequences.data.replace(b"\n", b""), offsets),
        headers + first_line,
        (descriptions,) if descriptions else (),
        problems,
    )
    return block, len(line_ends)


def _parse_headers(
    text: bytes, starts: NDArray[np.int64], stops: NDArray[np.int64], describe: bool
) -> tuple[Column, Column | None, dict[int, str]]:
    """Return the first words of the headers, the rest of each, and a problem for every header without a word."""
    if not describe and (ids := _first_words(text, starts)):
        return ids, None, {}
    names, descriptions, problems = [], [], {}
    for row, (start, stop) in enumerate(zip(starts.tolist(), stops.tolist(), strict=True)):
        words = _WORD_END.split(text[start:stop].lstrip(_SPACES), 1)
        names.append(words[0])
        descriptions.append(words[1].strip(_SPACES) if len(words) > 1 else b"")
        if not words[0]:
            problems[row] = "no id"
    return Column.of(names), Column.of(descriptions) if describe else None, problems


def _first_words(text: bytes, starts: NDArray[np.int64]) -> Column | None:
    """Return the first words of all headers; None if one is long, missing, or not at the start of its header."""
    # One row per header, with its first bytes: an id ends at the first space or control byte.
    if starts[-1] + _USUAL_ID_BYTES > len(text):
        text += b"\n" * _USUAL_ID_BYTES
    padded = np.frombuffer(text, dtype=np.uint8)
    heads = sliding_window_view(padded, _USUAL_ID_BYTES)[starts]
    ends = heads <= _SPACE
    lengths = ends.argmax(axis=1)
    if not (ends.any(axis=1) & (lengths > 0)).all():
        return None
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    return Column(heads[np.arange(_USUAL_ID_BYTES) < lengths[:, None]].tobytes(), offsets)
