"""Which reader reads which file: by its extension, or by the name of a format."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from inspect import signature
from os import PathLike
from pathlib import Path
from typing import Any

from bionemo_core.data.readers.biopython import FlatFileSource, StructureSource
from bionemo_core.data.readers.decompress import split_extension
from bionemo_core.data.readers.fasta import FastaSource
from bionemo_core.data.readers.fastq import FastqSource
from bionemo_core.data.readers.parquet import ParquetSource
from bionemo_core.data.readers.records import Source
from bionemo_core.data.readers.smiles import SmilesSource
from bionemo_core.data.readers.tables import CsvSource
from bionemo_core.errors import ConfigError

FORMATS: Mapping[str, Callable[..., Source]] = {
    "fasta": FastaSource,
    "fastq": FastqSource,
    "pdb": partial(StructureSource, kind="pdb"),
    "mmcif": partial(StructureSource, kind="mmcif"),
    "genbank": partial(FlatFileSource, kind="genbank"),
    "embl": partial(FlatFileSource, kind="embl"),
    "uniprot": partial(FlatFileSource, kind="uniprot"),
    "csv": CsvSource,
    "tsv": partial(CsvSource, separator="\t", kind="tsv"),
    "smiles": SmilesSource,
    "parquet": ParquetSource,
}

EXTENSIONS: Mapping[str, str] = {
    ".fasta": "fasta",
    ".fa": "fasta",
    ".faa": "fasta",
    ".fas": "fasta",
    ".fastq": "fastq",
    ".fq": "fastq",
    ".pdb": "pdb",
    ".ent": "pdb",
    ".cif": "mmcif",
    ".mmcif": "mmcif",
    ".gb": "genbank",
    ".gbk": "genbank",
    ".gp": "genbank",
    ".embl": "embl",
    ".dat": "uniprot",
    ".csv": "csv",
    ".tsv": "tsv",
    ".smi": "smiles",
    ".smiles": "smiles",
    ".parquet": "parquet",
}


def detect_format(paths: Iterable[Path]) -> str:
    """The format that the files' extensions tell.

    Raises:
        ConfigError: an extension is not known, or two tell different formats.
    """
    found: dict[str, Path] = {}
    for path in paths:
        _, extension = split_extension(path.name)
        if extension not in EXTENSIONS:
            raise ConfigError(
                f"data: {path}: extension {extension!r} tells no format. Name it with data.format, or task.format: "
                f"{', '.join(FORMATS)}."
            )
        found.setdefault(EXTENSIONS[extension], path)
    if len(found) != 1:
        told = ", ".join(f"{path.name} is {name}" for name, path in found.items())
        raise ConfigError(f"data: expected files of one format, got {told or 'none'}. Name files of one format.")
    return next(iter(found))


def source_for(
    paths: str | PathLike[str] | Sequence[str | PathLike[str]], format: str | None = None, **options: Any
) -> Source:
    """The reader of some files, all of one format.

    Args:
        paths: one file or several, plain or compressed.
        format: a name of `FORMATS`; None: as the extensions tell.
        **options: what the reader of that format takes, such as `column` and `id_column` of a table.

    Raises:
        ConfigError: the format is unknown, or its reader takes no such option.
        DataError: an option's value cannot be used.
    """
    several = [paths] if isinstance(paths, str | PathLike) else paths
    files = [Path(path) for path in several]
    name = format or detect_format(files)
    if name not in FORMATS:
        raise ConfigError(f"data.format: {name!r} is not known. Known: {', '.join(FORMATS)}.")
    reader = FORMATS[name]
    known = [key for key in signature(reader).parameters if key not in ("paths", "kind")]
    for key in options:
        if key not in known:
            raise ConfigError(f"data.{key}: format {name} has no such option; it has {', '.join(known) or 'none'}.")
    return reader(files, **options)
