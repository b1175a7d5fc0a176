"""A reader of SMILES text: one molecule per line, with or without a name after it."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from bionemo_core.data.readers.decompress import open_bytes, text_lines
from bionemo_core.data.readers.records import Record, path_list

_HEADERS = (b"smiles", b"smi", b"canonical_smiles", b"isomeric_smiles")


class SmilesSource:
    """SMI files; a record's id is the first word after the SMILES, or `file:line`."""

    kind = "smiles"
    columns: tuple[str, ...] = ()

    def __init__(self, paths: Path | Sequence[Path], header: bool | None = None) -> None:
        """Take the files.

        Args:
            paths: the files.
            header: whether the first line names the columns; None: it does if its first word is `smiles`, `smi`,
                `canonical_smiles` or `isomeric_smiles`.
        """
        self.paths = path_list(paths)
        self._header = header

    @property
    def options(self) -> dict[str, object]:
        """Return the header option and the names of the files, because ids contain them."""
        return {"header": self._header, "names": [path.name for path in self.paths]}

    def records(self, path: Path) -> Iterator[Record]:
        """Yield the molecules of one file as text, without blank lines.

        Raises:
            DataError: the file cannot be read.
        """
        with open_bytes(path, self.kind) as stream:
            for number, line in enumerate(text_lines(stream, f"smiles: {path}"), start=1):
                words = line.split(None, 2)
                if not words or (number == 1 and self._is_header(words[0])):
                    continue
                name = words[1] if len(words) > 1 else f"{path.name}:{number}".encode()
                if line.startswith(b"\t"):
                    yield Record(words[0], b"", number, "no SMILES before the name")
                else:
                    yield Record(name, words[0], number)

    def _is_header(self, word: bytes) -> bool:
        return word.strip(b'"').lower() in _HEADERS if self._header is None else self._header
