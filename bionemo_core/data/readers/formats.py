"""The choice of a reader, by the extension of a file or by the name of a format."""

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
from bionemo_core.data.readers.key_names import DATA_KEYS, KeyNames
from bionemo_core.data.readers.parquet import ParquetSource
from bionemo_core.data.readers.plugin_formats import PluginSource, formats_by_extension, plugin_readers
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


_SHEET = "Save the sheet as CSV, and give that file."
_ADVICE = {
    ".sdf": "Install the plugin bionemo-molbart, which reads them, or convert the molecules to SMILES in a .smi file.",
    ".mol2": "Convert the molecules to SMILES in a .smi file, or with bionemo-molbart to .sdf.",
    **dict.fromkeys((".xlsx", ".xls", ".ods"), _SHEET),
}
"""What to do with files of formats that no reader has, by their extension."""


def detect_format(paths: Iterable[Path], keys: KeyNames = DATA_KEYS) -> str:
    """Return the format that the extensions of the files name.

    Raises:
        ConfigError: an extension is unknown, or the files have different formats.
    """
    found: dict[str, Path] = {}
    for path in paths:
        _, extension = split_extension(path.name)
        name = EXTENSIONS.get(extension) or _plugin_format(path, extension, keys)
        found.setdefault(name, path)
    if len(found) != 1:
        got = ", ".join(f"{path.name} is {name}" for name, path in found.items())
        raise ConfigError(f"data: expected files of one format, got {got or 'no file'}. Name files of one format.")
    return next(iter(found))


def _plugin_format(path: Path, extension: str, keys: KeyNames) -> str:
    readers = plugin_readers()
    known = formats_by_extension(readers)
    if extension in _ADVICE and extension not in known:
        raise ConfigError(f"data: {path}: {extension} files cannot be read. {_ADVICE[extension]}")
    if extension not in known:
        raise ConfigError(
            f"data: {path}: the extension {extension!r} is unknown, expected one of {', '.join([*EXTENSIONS, *known])}."
            + (f" Set {keys.format} to one of: {', '.join([*FORMATS, *readers])}." if keys.format else "")
        )
    return known[extension]


def _reader_of(name: str, keys: KeyNames) -> Callable[..., Source]:
    if name in FORMATS:
        return FORMATS[name]
    readers = plugin_readers()
    if name not in readers:
        raise ConfigError(f"{keys.format}: {name!r} is unknown, expected one of {', '.join([*FORMATS, *readers])}.")
    return partial(PluginSource, kind=name, reader=readers[name])


def source_for(
    paths: str | PathLike[str] | Sequence[str | PathLike[str]],
    format: str | None = None,
    keys: KeyNames = DATA_KEYS,
    **options: Any,
) -> Source:
    """Make the reader of some files, all of one format.

    Args:
        paths: one file or several, plain or compressed.
        format: a name of `FORMATS` or of a plugin's format; None: by the extensions.
        keys: the names of the options in messages.
        **options: options of that reader, such as `column` and `id_column` of a table.

    Raises:
        ConfigError: the format is unknown, or its reader lacks an option.
        DataError: an option's value cannot be used.
    """
    files = [Path(path) for path in ([paths] if isinstance(paths, str | PathLike) else paths)]
    name = format or detect_format(files, keys)
    reader = _reader_of(name, keys)
    known = [key for key in signature(reader).parameters if key not in ("paths", "kind", "keys", "reader")]
    for key in options:
        if key not in known:
            raise ConfigError(f"data.{key}: format {name} has no such option. It has {', '.join(known) or 'none'}.")
    named = {"keys": keys} if "keys" in signature(reader).parameters else {}
    return reader(files, **options, **named)
