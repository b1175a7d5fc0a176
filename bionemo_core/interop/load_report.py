"""What a load of weights did, tensor by tensor: nothing is filled, cut or left out without being named."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Resized:
    """A table that was not copied as it stood."""

    name: str
    stored: tuple[int, ...]
    """Its shape in the source."""
    wanted: tuple[int, ...]
    """Its shape in the network."""
    method: str
    """tile, mean, cut, interpolate or restart; `padding` where only unused rows differ."""


@dataclass(frozen=True)
class LoadReport:
    """Names of tensors by what became of them."""

    source: str
    matched: tuple[str, ...] = ()
    resized: tuple[Resized, ...] = ()
    missing: tuple[str, ...] = ()
    """Tensors of the network that the source lacks; they keep their initial values."""
    unexpected: tuple[str, ...] = ()
    """Tensors of the source that have no place in the network."""
    notes: tuple[str, ...] = ()
    """Remarks on the source: another version of the plugin, parts that are no weights."""

    @property
    def complete(self) -> bool:
        """Whether every tensor of either side found its counterpart."""
        return not (self.missing or self.unexpected)

    def lines(self) -> list[tuple[str, str]]:
        """Pairs of a word and a text, as the plan of a run prints them."""
        counts = f"{len(self.matched)} tensors matched, {len(self.resized)} resized, "
        counts += f"{len(self.missing)} missing, {len(self.unexpected)} unexpected; from {self.source}"
        shown = [("weights", counts)]
        shown += [("resized", _resized_line(one)) for one in self.resized]
        shown += [
            (word, preview_names(names))
            for word, names in (("missing", self.missing), ("unexpected", self.unexpected))
            if names
        ]
        return shown + [("note", note) for note in self.notes]

    def text(self) -> str:
        """The lines, aligned."""
        return "\n".join(f"{word:>10}  {line}" for word, line in self.lines())

    def facts(self) -> dict[str, Any]:
        """The whole report as plain values, for a JSON file."""
        return {
            "source": self.source,
            "matched": list(self.matched),
            "resized": [
                {"name": one.name, "stored": list(one.stored), "wanted": list(one.wanted), "method": one.method}
                for one in self.resized
            ],
            "missing": list(self.missing),
            "unexpected": list(self.unexpected),
            "notes": list(self.notes),
        }


def preview_names(names: Sequence[str], limit: int = 5) -> str:
    """The first few names and how many more there are; `none` for none."""
    shown = ", ".join(names[:limit]) or "none"
    return shown + (f" and {len(names) - limit} more" if len(names) > limit else "")


def _resized_line(one: Resized) -> str:
    return f"{one.name} {list(one.stored)} -> {list(one.wanted)} ({one.method})"
