"""Tables of our tensors' names and theirs, and how the rows of one lie in the other."""

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
    """One module of ours and what holds its tensors in the foreign checkpoint."""

    ours: str
    theirs: str | tuple[str, ...]
    """Several where ours fuses them."""
    kinds: tuple[str, ...] = WEIGHT_AND_BIAS
    heads: int | None = None
    """Ours fuses several head by head, `[q_a | k_a | v_a]` for head a; None: one below the other."""
    vocabulary: bool = False
    """A row a piece; theirs has no padding rows, which are left out on the way back."""
    also: tuple[str, ...] = ()
    """Further foreign names for the same tensor, read where the first is absent."""
    write_also: bool = False
    """Write the tensor under those names too."""

    @property
    def sources(self) -> tuple[str, ...]:
        """The foreign modules."""
        return (self.theirs,) if isinstance(self.theirs, str) else self.theirs


def each_layer(count: int, *keys: Key) -> list[Key]:
    """The keys once a layer, `{i}` in their names being its number."""
    return [
        Key(
            key.ours.format(i=i),
            tuple(one.format(i=i) for one in key.sources) if len(key.sources) > 1 else key.sources[0].format(i=i),
            key.kinds,
            key.heads,
            key.vocabulary,
            tuple(one.format(i=i) for one in key.also),
            key.write_also,
        )
        for i in range(count)
        for key in keys
    ]


@dataclass(frozen=True)
class Translation:
    """A foreign state under our names, and what of it has none."""

    tensors: dict[str, Tensor]
    unexpected: tuple[str, ...]
    left_out: tuple[str, ...]
    """Foreign tensors that are known to be no weights of the model."""
    lacking: tuple[str, ...]
    """Foreign names that the table knows and the state has not."""

    def notes(self) -> tuple[str, ...]:
        """Remarks for a report on what was left out or is lacking."""
        found = [("no part of this model", self.left_out), ("absent in the source", self.lacking)]
        return tuple(f"{words}: {preview_names(names)}" for words, names in found if names)


class KeyTable:
    """The whole table of one kind of model.

    Args:
        keys: the rows.
        ignored: patterns of foreign names that have no counterpart with us and need none.
    """

    def __init__(self, keys: Iterable[Key], ignored: Sequence[str] = ()) -> None:
        self.keys, self.ignored = tuple(keys), tuple(ignored)

    def to_ours(self, state: Mapping[str, Tensor], where: str) -> Translation:
        """The state under our names; what the table wants and the state lacks is simply not there.

        Raises:
            ArtefactError: tensors that are to be fused do not fit together, or copies of one differ.
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
                        raise ArtefactError(f"{where}: tensors '{copy}' and '{names[0]}' should be one and differ.")
                tensors[_name(key.ours, kind)] = _fuse([state[name] for name in names], key, where, names)
        rest = [name for name in state if name not in used]
        left_out = [name for name in rest if any(fnmatchcase(name, pattern) for pattern in self.ignored)]
        unexpected = tuple(name for name in rest if name not in left_out)
        return Translation(tensors, unexpected, tuple(left_out), tuple(lacking))

    def to_theirs(self, state: Mapping[str, Tensor], vocab_size: int) -> dict[str, Tensor]:
        """The state under their names.

        Raises:
            ArtefactError: ours has a tensor that the table does not know, or lacks one.
        """
        written: dict[str, Tensor] = {}
        used: set[str] = set()
        for key in self.keys:
            for kind in key.kinds:
                name = _name(key.ours, kind)
                if name not in state:
                    raise ArtefactError(f"the model has no tensor '{name}', which the other format needs.")
                used.add(name)
                tensor = state[name][:vocab_size] if key.vocabulary else state[name]
                for module, part in zip(key.sources, _split(tensor, key), strict=True):
                    written[_name(module, kind)] = part
                if key.write_also:
                    written |= {_name(module, kind): tensor for module in key.also}
        if rest := sorted(state.keys() - used):
            raise ArtefactError(f"the other format has no place for tensor '{rest[0]}' and {len(rest) - 1} more.")
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
            f"{where}: {', '.join(names)} of shapes {[list(part.shape) for part in parts]} cannot be laid together "
            f"for {key.heads} heads."
        ) from error


def _split(tensor: Tensor, key: Key) -> list[Tensor]:
    count = len(key.sources)
    if count == 1:
        return [tensor]
    if key.heads is None:
        return list(tensor.chunk(count))
    per_head = tensor.view(key.heads, -1, *tensor.shape[1:])
    return [part.flatten(0, 1).contiguous() for part in per_head.chunk(count, dim=1)]
