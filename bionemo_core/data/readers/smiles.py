"""A reader of SMILES text: one molecule per line, with or without a name after it."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from bionemo_core.data.readers.decompress import open_bytes, text_lines
from bionemo_core.data.readers.records import Record, path_list

_HEADERS = (b"smiles", b"smi", b"canonical_smiles", b"isomeric_smiles")


_EXTENSION = "CXSMILES extension left out"
_VERSION = 2
"""Changes with the way to read names, because prepared molecules are kept under their ids."""


class SmilesSource:
    """SMI files; a record's id is its name, or `file:line`.

    The name is what follows the SMILES, spaces included, up to a tab or the end of the line. If a header names three
    or more columns that spaces separate, it is the second column. A CXSMILES extension, `|...|`, is no part of it.
    """

    kind = "smiles"
    columns: tuple[str, ...] = ()

    def __init__(self, paths: Path | Sequence[Path], header: bool | None = None, *, whole_names: bool = True) -> None:
        """Take the files.

        Args:
            paths: the files.
            header: whether the first line names the columns; None: it does if its first word is `smiles`, `smi`,
                `canonical_smiles` or `isomeric_smiles`.
            whole_names: False for files whose ids are known to be single words: only the first word is read.
        """
        self.paths = path_list(paths)
        self._header = header
        self._whole_names = whole_names

    @property
    def options(self) -> dict[str, object]:
        """Return the header option and the names of the files, because ids contain them."""
        version = {"version": _VERSION} if self._whole_names else {}
        return {"header": self._header, "names": [path.name for path in self.paths], **version}

    def records(self, path: Path) -> Iterator[Record]:
        """Yield the molecules of one file as text, without blank lines.

        Raises:
            DataError: the file cannot be read.
        """
        columns = 0
        with open_bytes(path, self.kind) as stream:
            for number, line in enumerate(text_lines(stream, f"smiles: {path}"), start=1):
                words = line.split(None, 1)
                if not words:
                    continue
                if number == 1 and self._is_header(words[0]):
                    columns = 0 if b"\t" in line else len(line.split())
                    continue
                rest = words[1] if len(words) > 1 else b""
                name, note = (
                    _parse_name(rest, columns) if self._whole_names else (b"".join(rest.split(None, 1)[:1]), "")
                )
                name = name or f"{path.name}:{number}".encode()
                if line.startswith(b"\t"):
                    yield Record(words[0], b"", number, "no SMILES before the name")
                else:
                    yield Record(name, words[0], number, note=note)

    def _is_header(self, word: bytes) -> bool:
        return word.strip(b'"').lower() in _HEADERS if self._header is None else self._header


def _parse_name(rest: bytes, columns: int) -> tuple[bytes, str]:
    """Return the name in what follows a SMILES, empty if there is none, and what was left out.

    Args:
        rest: the rest of the line.
        columns: how many columns a header separates by spaces; 0: unknown.
    """
    note = ""
    if rest.startswith(b"|") and (end := rest.find(b"|", 1)) > 0:
        rest, note = rest[end + 1 :].lstrip(), _EXTENSION
    words = rest.split()
    if columns > 2 and len(words) == columns - 1:
        return words[0], note
    return rest.partition(b"\t")[0].strip(), note
