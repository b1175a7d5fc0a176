"""Readers that use Biopython: chains of PDB and mmCIF files, and GenBank, EMBL and UniProt text."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bionemo_core.data.readers.decompress import open_bytes, split_extension
from bionemo_core.data.readers.records import Record, path_list
from bionemo_core.errors import BioNeMoError, ConfigError, DataError

DESCRIPTION = "description"
_FLAT = {"genbank": "genbank", "embl": "embl", "uniprot": "swiss"}


class StructureSource:
    """PDB or mmCIF files; a record is a chain, its id `<file>:<chain>`.

    The sequence comes from SEQRES (`_pdbx_poly_seq_scheme` in mmCIF). Without it, it comes from the residues with
    coordinates, and a gap in their numbering becomes X. A modified residue is read as its parent residue.
    """

    columns: tuple[str, ...] = ()

    def __init__(self, paths: Path | Sequence[Path], kind: str = "pdb") -> None:
        """Take the files, all of one kind: `pdb` or `mmcif`.

        Raises:
            ConfigError: Biopython is not installed.
        """
        self.kind = kind
        self.paths = path_list(paths)
        _check_installed(kind)

    @property
    def options(self) -> dict[str, object]:
        """Return the names of the files, because ids contain them."""
        return {"names": [path.name for path in self.paths]}

    def records(self, path: Path) -> Iterator[Record]:
        """Yield the chains of one file.

        Raises:
            DataError: the file cannot be read, or has no chain.
        """
        prefix = "pdb" if self.kind == "pdb" else "cif"
        chains = list(_parse(path, self.kind, f"{prefix}-seqres"))
        chains = chains or list(_parse(path, self.kind, f"{prefix}-atom"))
        if not chains:
            raise DataError(
                f"{self.kind}: {path}: has no chain, expected at least one. Give a {self.kind} file of a protein."
            )
        stem = split_extension(path.name)[0]
        for number, chain in enumerate(chains, start=1):
            name = f"{stem}:{chain.annotations.get('chain', chain.id)}".encode()
            sequence = bytes(chain.seq)
            problem = "no amino acid in the chain" if sequence and not sequence.strip(b"X") else ""
            yield Record(name, sequence, number, problem)


class FlatFileSource:
    """GenBank, EMBL or UniProt text; a nucleotide record gives the translations of its coding sequences."""

    def __init__(self, paths: Path | Sequence[Path], kind: str, columns: Sequence[str] = ()) -> None:
        """Take the files, all of one kind: `genbank`, `embl` or `uniprot`.

        Raises:
            ConfigError: Biopython is not installed, or `columns` names anything but `description`.
        """
        self.kind = kind
        self.paths = path_list(paths)
        self.columns = tuple(columns)
        _check_installed(kind)
        if self.columns not in ((), (DESCRIPTION,)):
            raise ConfigError(f"{kind}: got columns {', '.join(self.columns)}, expected only {DESCRIPTION!r}.")

    @property
    def options(self) -> dict[str, object]:
        """Return no option: the files alone decide which records they give."""
        return {}

    def records(self, path: Path) -> Iterator[Record]:
        """Yield the proteins of one file.

        Raises:
            DataError: the file cannot be read, or has no record.
        """
        number = 0
        for entry in _parse(path, self.kind, _FLAT[self.kind]):
            for record in _proteins(entry):
                number += 1
                yield record._replace(line=number, columns=record.columns[: len(self.columns)])
        if not number:
            raise DataError(f"{self.kind}: {path}: has no record. Give a {self.kind} file with at least one record.")


def _proteins(entry: Any) -> Iterator[Record]:
    name, description = entry.id.encode(), entry.description.encode()
    kind = str(entry.annotations.get("molecule_type", "protein")).upper()
    if "DNA" not in kind and "RNA" not in kind:
        sequence = _letters(entry.seq)
        problem = ("" if name else "no id") if sequence is not None else "no sequence"
        yield Record(name, sequence or b"", 0, problem, (description,))
        return
    coding = [feature for feature in entry.features if feature.type == "CDS"]
    for number, feature in enumerate(coding, start=1):
        values = {key: value[0] for key, value in feature.qualifiers.items() if value}
        name_of_protein = values.get("protein_id") or values.get("locus_tag") or f"{entry.id}:{number}"
        translation = values.get("translation", "").encode()
        problem = "" if translation else "coding sequence without a translation"
        yield Record(name_of_protein.encode(), translation, 0, problem, (values.get("product", "").encode(),))
    if not coding:
        yield Record(name, b"", 0, "nucleotides without a coding sequence", (description,))


def _letters(sequence: Any) -> bytes | None:
    from Bio.Seq import UndefinedSequenceError

    try:
        return bytes(sequence)
    except UndefinedSequenceError:
        return None


def _parse(path: Path, kind: str, biopython_format: str) -> Iterator[Any]:
    """Yield the entries that `SeqIO.parse` finds.

    Raises:
        DataError: the file cannot be read.
    """
    from Bio import SeqIO

    parse: Callable[..., Iterator[Any]] = SeqIO.parse
    with open_bytes(path, kind) as stream, _classify_errors(path, kind):
        with _ignore_warnings():
            entries = parse(stream.text(), biopython_format)
        while True:
            with _ignore_warnings():  # around each step, so that the generator never leaves the warning filters changed
                entry = next(entries, None)
            if entry is None:
                return
            yield entry


@contextmanager
def _ignore_warnings() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Biopython warns about lines that it tolerates
        yield


@contextmanager
def _classify_errors(path: Path, kind: str) -> Iterator[None]:
    try:
        yield
    except (BioNeMoError, OSError, EOFError):
        raise
    except Exception as error:  # its parsers may raise any exception for a malformed line
        if type(error).__module__ in ("zlib", "_lzma"):
            raise
        raise DataError(
            f"{kind}: {path}: cannot be read as {kind} ({type(error).__name__}: {str(error)[:200]}). "
            f"Give a {kind} file, or name the format of this one with data.format (in a task: task.format)."
        ) from error


def _check_installed(kind: str) -> None:
    try:
        import Bio  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            f"data: {kind} files need Biopython, which is not installed. Run: pip install biopython"
        ) from error
