"""Weights that a source did not have: noted on the network when it is loaded, and refused by a use that needs them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from torch import nn

from bionemo_core.errors import ArtefactError
from bionemo_core.interop.load_report import preview_names
from bionemo_core.interop.stored import AbsentParts
from bionemo_core.nn.residue_states import encoder_network

_ATTRIBUTE = "missing_weights"
_PART = "encoder_network"


@dataclass(frozen=True)
class _Missing:
    """The tensors of a network that still have their initial, random values."""

    names: tuple[str, ...]
    source: str
    """Where the other tensors are from."""
    note: str = ""
    """Why they are missing, if the source is of a kind that lacks them."""


def note_missing(network: nn.Module, names: Iterable[str], source: str, note: str = "") -> None:
    """Note on the network, and on the pre-trained network inside it, which of its tensors were not loaded."""
    own, inner = tuple(names), encoder_network(network)
    if inner is not network:
        of_inner = tuple(name for name in own if name.startswith(f"{_PART}."))
        own = tuple(name for name in own if name not in of_inner)
        setattr(inner, _ATTRIBUTE, _Missing(tuple(name.removeprefix(f"{_PART}.") for name in of_inner), source, note))
    setattr(network, _ATTRIBUTE, _Missing(own, source, note))


def pass_on_missing(source: nn.Module, target: nn.Module) -> None:
    """Note on `target`, to which the weights of `source` are copied, what is missing in `source`."""
    missing = getattr(source, _ATTRIBUTE, None)
    if missing is not None:
        setattr(target, _ATTRIBUTE, missing)


def missing_parts(network: nn.Module) -> AbsentParts:
    """Return the names of all missing tensors, those of the pre-trained network inside included."""
    own, inner = _missing_of(network), encoder_network(network)
    parts = AbsentParts(own.names, own.note)
    if inner is not network:
        inside = _missing_of(inner)
        names = tuple(f"{_PART}.{name}" for name in inside.names)
        parts = AbsentParts((*parts.prefixes, *names), parts.note or inside.note)
    return parts


def require_weights(network: nn.Module, use: str, unread: Sequence[str] = ()) -> None:
    """Check that a network has all weights that a use reads; one that was never loaded has them all.

    Args:
        network: the network itself; its `encoder_network` is checked by a call of its own.
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


def _missing_of(network: nn.Module) -> _Missing:
    found: _Missing = getattr(network, _ATTRIBUTE, None) or _Missing((), "")
    return found
