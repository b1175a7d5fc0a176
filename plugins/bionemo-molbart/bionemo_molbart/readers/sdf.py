"""A reader of SD files and mol files: each molecule becomes its SMILES, with the properties that are wanted."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from bionemo_core.data.readers import ByteStream, Record, text_lines
from bionemo_core.errors import DataError

_PROPERTY = re.compile(rb">.*?<(.+)>")
_END_OF_RECORD, _END_OF_MOLECULE = b"$$$$", b"M  END"
_MOLECULE = """


  2  1  0  0  0  0            999 V2000
    0.0000    0.0000    0.0000 C   0  0
    1.5000    0.0000    0.0000 %s   0  0
  1  2  1  0
M  END
"""


class SdfReader:
    """SD files, V2000 or V3000; a record's id is the first line of its molecule, or `file:line` if that is empty."""

    extensions = (".sdf", ".sd", ".mol")
    example = "".join(
        f"{name}{_MOLECULE % atom}> <pIC50>\n6.5\n\n$$$$\n" for name, atom in (("methanol", "O"), ("methylamine", "N"))
    ).encode()

    @property
    def version(self) -> str:
        """Return the version of RDKit, which decides which SMILES a molecule has."""
        from bionemo_molbart.molecules import RDKIT_VERSION

        return f"1, RDKit {RDKIT_VERSION}"

    def records(self, stream: ByteStream, where: str, columns: Sequence[str] = ()) -> Iterator[Record]:
        """Yield the molecules of one file, each with the values of the properties in `columns`.

        Raises:
            DataError: a molecule has no end, so this is another format, or the file was cut off.
        """
        file = Path(where.partition(": ")[2]).name
        for start, lines in _split(stream, where):
            if _END_OF_MOLECULE not in lines:
                raise DataError(
                    f"{where}:{start}: the molecule has no line {_END_OF_MOLECULE.decode()!r}. This is no SD file, or "
                    "it was cut off."
                )
            name = lines[0].strip() or f"{file}:{start}".encode()
            end = lines.index(_END_OF_MOLECULE) + 1
            smiles, problem = _smiles(lines[:end])
            values = _properties(lines[end:]) if columns else {}
            yield Record(name, smiles, start, problem, tuple(values.get(column, b"") for column in columns))

    def column_names(self, stream: ByteStream, where: str) -> set[str]:
        """Return the names of the properties of all molecules of a file.

        Raises:
            DataError: the file cannot be read.
        """
        names: set[str] = set()
        for _, lines in _split(stream, where):
            names.update(_properties(lines))
        return names


def _split(stream: ByteStream, where: str) -> Iterator[tuple[int, list[bytes]]]:
    """Yield the lines of each record, with the number of its first line; mol files have no line after it."""
    start, lines = 1, list[bytes]()
    for number, line in enumerate(text_lines(stream, where), start=1):
        if line.startswith(_END_OF_RECORD):
            yield start, lines
            start, lines = number + 1, []
        else:
            lines.append(line.rstrip() if line.startswith(_END_OF_MOLECULE) else line)
    if any(line.strip() for line in lines):
        yield start, lines


def _properties(lines: list[bytes]) -> dict[str, bytes]:
    """Return the properties of a molecule: a line `> <NAME>`, then the lines of its value, up to an empty one."""
    properties: dict[str, bytes] = {}
    name = ""
    for line in lines:
        if found := _PROPERTY.match(line):  # a value may begin with > as well, but has no name in brackets
            name = _text(found[1])
            properties[name] = b""
        elif not line.strip():
            name = ""
        elif name:
            properties[name] = b"\n".join(filter(None, [properties[name], line.strip()]))
    return properties


def _text(name: bytes) -> str:
    try:
        return name.decode()
    except UnicodeDecodeError:
        return name.decode("latin-1")


def _smiles(lines: list[bytes]) -> tuple[bytes, str]:
    """Return the SMILES of a molecule, and why there is none."""
    from rdkit import Chem, rdBase

    from bionemo_molbart.molecules import canonical

    block = b"\n".join(lines).decode("latin-1")
    with rdBase.BlockLogs():
        molecule = Chem.MolFromMolBlock(block)
        if molecule is not None:
            return (canonical(molecule).encode(), "") if molecule.GetNumAtoms() else (b"", "no atoms")
        found = Chem.MolFromMolBlock(block, sanitize=False)
    return b"", "not a valid molecule" if found is None else "a molecule that chemistry forbids, such as by a valence"
