"""Weights that a source did not have: noted on the network when it is loaded, and refused by a use that needs them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from torch import nn

from bionemo_core.errors import ArtefactError
from bionemo_core.interop.load_report import preview_names
from bionemo_core.interop.stored import AbsentParts

_ATTRIBUTE = "missing_weights"
_PARTS = ("encoder_network", "second_network")
"""The names of the pre-trained networks inside a fine-tuned one."""


@dataclass(frozen=True)
class _Missing:
    """The tensors of a network that still have their initial, random values."""

    names: tuple[str, ...]
    source: str
    """Where the other tensors are from."""
    note: str = ""
    """Why they are missing, if the source is of a kind that lacks them."""


def note_missing(network: nn.Module, names: Iterable[str], source: str, note: str = "") -> None:
    """Note on the network, and on the pre-trained networks inside it, which of its tensors were not loaded."""
    own = tuple(names)
    for part, inner in _inner_networks(network):
        of_inner = tuple(name for name in own if name.startswith(f"{part}."))
        own = tuple(name for name in own if name not in of_inner)
        setattr(inner, _ATTRIBUTE, _Missing(tuple(name.removeprefix(f"{part}.") for name in of_inner), source, note))
    setattr(network, _ATTRIBUTE, _Missing(own, source, note))


def pass_on_missing(source: nn.Module, target: nn.Module) -> None:
    """Note on `target`, to which the weights of `source` are copied, what is missing in `source`."""
    missing = getattr(source, _ATTRIBUTE, None)
    if missing is not None:
        setattr(target, _ATTRIBUTE, missing)


def missing_parts(network: nn.Module) -> AbsentParts:
    """Return the names of all missing tensors, those of the pre-trained networks inside included."""
    own = _missing_of(network)
    parts = AbsentParts(own.names, own.note)
    for part, inner in _inner_networks(network):
        inside = _missing_of(inner)
        names = tuple(f"{part}.{name}" for name in inside.names)
        parts = AbsentParts((*parts.prefixes, *names), parts.note or inside.note)
    return parts


def require_weights(network: nn.Module, use: str, unread: Sequence[str] = ()) -> None:
    """Check that a network has all weights that a use reads; one that was never loaded has them all.

    Args:
        network: the network itself; the pre-trained ones inside it are checked by calls of their own.
        use: what is to be done, for the message.
        unread: names of the network's parts that the use does not read.

    Raises:
        ArtefactError: a tensor is missing; the message names it.
    """
    missing = _missing_of(network)
    needed = [name for name in missing.names if name.partition(".")[0] not in unread]
    if needed:
        why = f" {missing.note}." if missing.note else ""
        raise ArtefactError(
            f"{missing.source}: {use} needs tensors that were not loaded: {preview_names(needed)}. They would have "
            f"random values, so this is refused, whatever restore.strict is.{why}"
        )


def _inner_networks(network: nn.Module) -> list[tuple[str, nn.Module]]:
    """Return the pre-trained networks inside a fine-tuned one, by name."""
    return [(part, inner) for part in _PARTS if isinstance(inner := getattr(network, part, None), nn.Module)]


def _missing_of(network: nn.Module) -> _Missing:
    found: _Missing = getattr(network, _ATTRIBUTE, None) or _Missing((), "")
    return found
