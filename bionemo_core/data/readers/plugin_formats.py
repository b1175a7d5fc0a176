"""File formats that plugins offer: found by name or extension when the core's own formats do not know a file."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from bionemo_core.data.readers.decompress import open_bytes
from bionemo_core.data.readers.records import Record, path_list
from bionemo_core.errors import ConfigError
from bionemo_core.plugins import Registry
from bionemo_core.protocols import Reader


class PluginSource:
    """Files in a plugin's format, as a `Source`."""

    columns: tuple[str, ...] = ()

    def __init__(self, paths: Path | Sequence[Path], *, kind: str, reader: Reader) -> None:
        """Take the files, the name of the format and its reader."""
        self.paths = path_list(paths)
        self.kind, self._reader = kind, reader

    @property
    def options(self) -> dict[str, object]:
        """Return the version of the reader, which decides with the files which records they give."""
        return {"version": self._reader.version}

    def records(self, path: Path) -> Iterator[Record]:
        """Yield the records of one file.

        Raises:
            DataError: the file cannot be read, or the reader refuses it.
        """
        with open_bytes(path, self.kind) as stream:
            yield from self._reader.records(stream, f"{self.kind}: {path}")


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
