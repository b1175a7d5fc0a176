"""File formats that plugins offer: found by name or extension when the core's own formats do not know a file."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from bionemo_core.data.readers.decompress import open_bytes
from bionemo_core.data.readers.key_names import DATA_KEYS, KeyNames
from bionemo_core.data.readers.records import Record, path_list
from bionemo_core.errors import ConfigError, DataError
from bionemo_core.plugins import Registry
from bionemo_core.protocols import Reader


class PluginSource:
    """Files in a plugin's format, as a `Source`."""

    def __init__(
        self,
        paths: Path | Sequence[Path],
        id_column: str | None = None,
        columns: Sequence[str] = (),
        *,
        kind: str,
        reader: Reader,
        keys: KeyNames = DATA_KEYS,
    ) -> None:
        """Take the files and how to read them.

        Args:
            paths: the files.
            id_column: the named value of a record that is its id; None: the id that the reader gives it.
            columns: named values of each record to keep.
            kind: the name of the format.
            reader: its reader.
            keys: the names of the options in messages.

        Raises:
            ConfigError: the records of this format have no named values.
        """
        self.paths = path_list(paths)
        self.kind, self.keys, self.columns = kind, keys, tuple(columns)
        self._reader, self._id_column = reader, id_column
        for name in self._wanted:
            if not has_columns(reader):
                raise ConfigError(f"{self._key(name)}={name}: records of {kind} files have no named values.")

    @property
    def options(self) -> dict[str, object]:
        """Return the version of the reader, and the value that is the id: with the files they decide on the records."""
        options: dict[str, object] = {"version": self._reader.version}
        return options | ({"id_column": self._id_column} if self._id_column else {})

    def records(self, path: Path) -> Iterator[Record]:
        """Yield the records of one file.

        Raises:
            DataError: the file cannot be read, no record of it has a wanted value, or the reader refuses it.
        """
        where = f"{self.kind}: {path}"
        if not self._wanted:
            with open_bytes(path, self.kind) as stream:
                yield from self._reader.records(stream, where)
            return
        reader: Any = self._reader
        found = [False] * len(self._wanted)
        with open_bytes(path, self.kind) as stream:
            for record in reader.records(stream, where, columns=self._wanted):
                found = [before or bool(value) for before, value in zip(found, record.columns, strict=True)]
                yield self._with_id(record)
        missing = [name for name, seen in zip(self._wanted, found, strict=True) if not seen]
        if missing:  # a value may also be empty in every record
            with open_bytes(path, self.kind) as stream:
                names = sorted(reader.column_names(stream, where))
            for name in missing:
                if name not in names:
                    raise DataError(
                        f"{where}: no record has a value {name!r}; this file "
                        f"{self.keys.advise(name, self._key(name), names)}"
                    )

    @property
    def _wanted(self) -> tuple[str, ...]:
        return (*self.columns, *([self._id_column] if self._id_column else []))

    def _key(self, name: str) -> str:
        return self.keys.further.get(name, self.keys.id_column)

    def _with_id(self, record: Record) -> Record:
        if not self._id_column:
            return record
        *columns, name = record.columns
        problem = record.problem or ("" if name else "no id")
        return record._replace(id=name or record.id, columns=tuple(columns), problem=problem)


def has_columns(reader: Reader) -> bool:
    """Return whether the records of a format have named values."""
    return hasattr(reader, "column_names")


def plugin_readers() -> dict[str, Reader]:
    """Return the readers of the installed plugins by the name of their format.

    Raises:
        ConfigError: two plugins offer a format of the same name.
    """
    registry = Registry.load()
    readers: dict[str, Reader] = {}
    for registered in registry.components("reader"):
        if registered.name in readers:
            registry.get("reader", registered.name)  # explains the conflict
        readers[registered.name] = registered.factory()
    return readers


def formats_by_extension(readers: dict[str, Reader]) -> dict[str, str]:
    """Return the name of the format of each extension.

    Raises:
        ConfigError: two readers claim an extension.
    """
    found: dict[str, str] = {}
    for name, reader in readers.items():
        for extension in reader.extensions:
            if extension in found:
                raise ConfigError(
                    f"data: the formats {found[extension]} and {name} both claim the extension {extension!r}. "
                    "Name one as data.format, or uninstall the plugin of the other."
                )
            found[extension] = name
    return found
