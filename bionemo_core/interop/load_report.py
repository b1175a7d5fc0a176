"""The report of loading weights, tensor by tensor: it names all that was filled, cut or left out."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bionemo_core.io.atomic import write_json
from bionemo_core.plurals import format_count

RECORD = "restore.json"
"""The file with the whole report, in a folder of results; beside a file `NAME` it is `NAME.restore.json`."""

RESTART = "restart"
"""The method of a table that keeps the network's initial values."""


@dataclass(frozen=True)
class Resized:
    """A table whose shape was changed during the load."""

    name: str
    stored: tuple[int, ...]
    """Its shape in the source."""
    wanted: tuple[int, ...]
    """Its shape in the network."""
    method: str
    """tile, mean, cut, interpolate or restart; `padding` if only unused rows differ."""


@dataclass(frozen=True)
class LoadReport:
    """The names of tensors, grouped by what happened to them."""

    source: str
    matched: tuple[str, ...] = ()
    resized: tuple[Resized, ...] = ()
    missing: tuple[str, ...] = ()
    """Tensors of the network that the source lacks; they keep their initial values."""
    unexpected: tuple[str, ...] = ()
    """Tensors of the source that the network lacks."""
    notes: tuple[str, ...] = ()
    """Remarks on the source, such as another version of the plugin, or tensors that are not weights."""
    absent_note: str = ""
    """Which part the source lacks by its kind, and what the model can do without it."""

    @property
    def unfilled(self) -> tuple[str, ...]:
        """The tensors of the network that keep their initial values: missing ones, and restarted positions."""
        return (*self.missing, *(table.name for table in self.resized if table.method == RESTART and table.wanted))

    @property
    def complete(self) -> bool:
        """Whether every tensor of source and network has its counterpart."""
        return not (self.missing or self.unexpected)

    def lines(self) -> list[tuple[str, str]]:
        """Return the report as pairs of a label and a text, for the printed plan of a run."""
        counts = f"{format_count(len(self.matched), 'tensor')} matched, {len(self.resized)} resized, "
        counts += f"{len(self.missing)} missing, {len(self.unexpected)} unexpected; from {self.source}"
        lines = [("weights", counts)]
        lines += [("resized", _resized_line(table)) for table in self.resized]
        lines += [
            (label, preview_names(names))
            for label, names in (("missing", self.missing), ("unexpected", self.unexpected))
            if names
        ]
        notes = (self.absent_note, *self.notes) if self.absent_note else self.notes
        return lines + [("note", note) for note in notes]

    def text(self) -> str:
        """Return the lines as one aligned text."""
        return "\n".join(f"{label:>10}  {line}" for label, line in self.lines())

    def facts(self) -> dict[str, Any]:
        """Return the whole report as plain values, for a JSON file."""
        return {
            "source": self.source,
            "matched": list(self.matched),
            "resized": [
                {"name": table.name, "stored": list(table.stored), "wanted": list(table.wanted), "method": table.method}
                for table in self.resized
            ],
            "missing": list(self.missing),
            "unexpected": list(self.unexpected),
            "notes": list(self.notes),
            "absent": self.absent_note,
        }

    def write(self, output: Path, *, beside: bool = False) -> None:
        """Write the whole report into the folder `output`; with `beside`, or if it is a file, beside it.

        Raises:
            StorageError: it cannot be written.
        """
        path = output / RECORD if output.is_dir() and not beside else output.with_name(f"{output.name}.{RECORD}")
        write_json(path, self.facts(), indent=2)


def preview_names(names: Sequence[str], limit: int = 5) -> str:
    """Return the first `limit` names and the number of further ones; `none` if there are none."""
    shown = ", ".join(names[:limit]) or "none"
    return shown + (f" and {len(names) - limit} more" if len(names) > limit else "")


def _resized_line(table: Resized) -> str:
    return f"{table.name} {list(table.stored)} -> {list(table.wanted)} ({table.method})"
