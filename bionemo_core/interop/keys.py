"""Tables that map this framework's tensor names to foreign ones, and how fused tensors are split and joined.

`ours` and `theirs` are this framework's names and those of the foreign format.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import torch
from torch import Tensor

from bionemo_core.errors import ArtefactError
from bionemo_core.interop.load_report import preview_names

WEIGHT_AND_BIAS = ("weight", "bias")


@dataclass(frozen=True)
class Key:
    """A module of this framework, and the foreign modules that hold its tensors."""

    ours: str
    theirs: str | tuple[str, ...]
    """One foreign module, or the several that ours fuses."""
    kinds: tuple[str, ...] = WEIGHT_AND_BIAS
    heads: int | None = None
    """The number of heads if ours interleaves the parts by head, `[q_a | k_a | v_a]` for head a; None: stacked."""
    vocabulary: bool = False
    """Whether each row is a vocabulary piece; theirs has no padding rows, so `to_theirs` leaves these out."""
    also: tuple[str, ...] = ()
    """Further foreign names of the same tensor, read if the first is absent."""
    write_also: bool = False
    """Whether the tensor is written under those names too."""

    @property
    def sources(self) -> tuple[str, ...]:
        """The foreign modules, as a tuple."""
        return (self.theirs,) if isinstance(self.theirs, str) else self.theirs


def each_layer(count: int, *keys: Key) -> list[Key]:
    """Repeat the keys for each of `count` layers; `{i}` in their names is replaced by the number of the layer."""
    return [
        Key(
            key.ours.format(i=i),
            tuple(name.format(i=i) for name in key.sources) if len(key.sources) > 1 else key.sources[0].format(i=i),
            key.kinds,
            key.heads,
            key.vocabulary,
            tuple(name.format(i=i) for name in key.also),
            key.write_also,
        )
        for i in range(count)
        for key in keys
    ]


@dataclass(frozen=True)
class Translation:
    """A foreign state under this framework's names, and the names that found no counterpart."""

    tensors: dict[str, Tensor]
    unexpected: tuple[str, ...]
    left_out: tuple[str, ...]
    """Foreign tensors that are known not to be weights of the model."""
    lacking: tuple[str, ...]
    """Foreign names that are in the table but not in the state."""

    def notes(self) -> tuple[str, ...]:
        """Return remarks on the tensors that were left out or are missing, for a load report."""
        found = [("not part of this model", self.left_out), ("missing in the source", self.lacking)]
        return tuple(f"{words}: {preview_names(names)}" for words, names in found if names)


class KeyTable:
    """The table of all tensors of one kind of model.

    Args:
        keys: the rows.
        ignored: patterns of foreign names that need no counterpart.
    """

    def __init__(self, keys: Iterable[Key], ignored: Sequence[str] = ()) -> None:
        self.keys, self.ignored = tuple(keys), tuple(ignored)

    def to_ours(self, state: Mapping[str, Tensor], where: str) -> Translation:
        """Translate a foreign state to this framework's names; tensors that the state lacks are left out.

        Raises:
            ArtefactError: tensors that are to be fused do not fit together, or copies of one tensor differ.
        """
        tensors: dict[str, Tensor] = {}
        used: set[str] = set()
        lacking: list[str] = []
        for key in self.keys:
            for kind in key.kinds:
                names = [_name(module, kind) for module in key.sources]
                copies = [_name(module, kind) for module in key.also]
                if len(names) == 1 and names[0] not in state:
                    names = [copy for copy in copies if copy in state][:1] or names
                present = [name for name in (*names, *copies) if name in state]
                used.update(present)
                if absent := [name for name in names if name not in state]:
                    lacking += absent
                    continue
                for copy in copies:
                    if copy in state and not torch.equal(state[copy], state[names[0]]):
                        raise ArtefactError(f"{where}: tensors '{copy}' and '{names[0]}' should be equal, but differ.")
                tensors[_name(key.ours, kind)] = _fuse([state[name] for name in names], key, where, names)
        rest = [name for name in state if name not in used]
        left_out = [name for name in rest if any(fnmatchcase(name, pattern) for pattern in self.ignored)]
        unexpected = tuple(name for name in rest if name not in left_out)
        return Translation(tensors, unexpected, tuple(left_out), tuple(lacking))

    def to_theirs(self, state: Mapping[str, Tensor], vocab_size: int) -> dict[str, Tensor]:
        """Translate a state to the foreign names.

        Raises:
            ArtefactError: the state has a tensor that is not in the table, or lacks one that is.
        """
        written: dict[str, Tensor] = {}
        used: set[str] = set()
        for key in self.keys:
            for kind in key.kinds:
                name = _name(key.ours, kind)
                if name not in state:
                    raise ArtefactError(f"the model has no tensor '{name}', which the foreign format needs.")
                used.add(name)
                tensor = state[name][:vocab_size] if key.vocabulary else state[name]
                for module, part in zip(key.sources, _split(tensor, key), strict=True):
                    written[_name(module, kind)] = part
                if key.write_also:
                    written |= {_name(module, kind): tensor for module in key.also}
        if rest := sorted(state.keys() - used):
            raise ArtefactError(f"the foreign format has no name for tensor '{rest[0]}' and {len(rest) - 1} more.")
        return written


def _name(module: str, kind: str) -> str:
    return f"{module}.{kind}" if kind else module


def _fuse(parts: list[Tensor], key: Key, where: str, names: list[str]) -> Tensor:
    if len(parts) == 1:
        return parts[0]
    try:
        if key.heads is None:
            return torch.cat(parts)
        per_head = [part.view(key.heads, -1, *part.shape[1:]) for part in parts]
        return torch.cat(per_head, dim=1).flatten(0, 1)
    except RuntimeError as error:
        raise ArtefactError(
            f"{where}: {', '.join(names)} of shapes {[list(part.shape) for part in parts]} cannot be fused "
            + (f"for {key.heads} heads." if key.heads else "along the first dim.")
        ) from error


def _split(tensor: Tensor, key: Key) -> list[Tensor]:
    count = len(key.sources)
    if count == 1:
        return [tensor]
    if key.heads is None:
        return list(tensor.chunk(count))
    per_head = tensor.view(key.heads, -1, *tensor.shape[1:])
    return [part.flatten(0, 1).contiguous() for part in per_head.chunk(count, dim=1)]
