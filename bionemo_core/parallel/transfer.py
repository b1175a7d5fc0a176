"""Transfer of a stored model's weights into a network on any layout: every tensor is matched, resized or reported."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from bionemo_core.checkpoint.load import CheckpointReader
from bionemo_core.config.schema import Restore
from bionemo_core.config.value_checks import check_restore
from bionemo_core.errors import ArtefactError, BioNeMoError, CheckpointError
from bionemo_core.interop.load_report import RESTART, LoadReport, Resized, preview_names
from bionemo_core.interop.resize import fill_with_mean, interpolate_rows, pad_rows, tile_rows
from bionemo_core.interop.stored import StoredModel, Tensors
from bionemo_core.parallel.groups import ProcessGroups
from bionemo_core.parallel.layout import ParameterLayout, local_blocks, read_layouts

VOCABULARY_TABLES = ("word_embeddings.weight", "head.output.weight", "head.output.bias")
"""Endings of the names of tensors that have one row for each token of the vocabulary."""

_POSITION_TABLE = "position_embeddings"
_RELATIVE_TABLE = "positions.relative"
PADDING = "padding"


@dataclass(frozen=True)
class Vocabularies:
    """Sizes of two vocabularies, without padding rows; None where a size is not known."""

    wanted: int | None = None
    """The network's."""
    stored: int | None = None
    """The stored model's."""


@torch.no_grad()
def transfer_weights(
    network: nn.Module,
    groups: ProcessGroups,
    stored: StoredModel,
    rules: Restore,
    vocabularies: Vocabularies,
    *,
    absent_allowed: bool = False,
) -> LoadReport:
    """Fill this rank's part of every parameter and persistent buffer; call before sharding.

    With `absent_allowed`, parts that the source lacks by its kind are no reason to refuse it; the caller must see to it
    that they are not used.

    Raises:
        ArtefactError: no tensor of the source fits; a tensor has another shape and no rule allows resizing it; or,
            with `rules.strict`, a tensor is missing or unexpected. A CheckpointError if the source is a run's
            checkpoint.
    """
    check_restore(rules)
    layouts = read_layouts(network, groups)
    plan = _Plan.of(network, layouts, stored, rules, vocabularies)
    plan.check_fits(absent_allowed)
    for name, parameter in network.named_parameters():
        if name in plan.matched:
            fill_local_part(stored.tensors, name, layouts[name], parameter, parameter, groups)
        elif name in plan.resized and plan.resized[name].method != RESTART:
            table = plan.resize(name, stored.tensors.read(name))
            for block in local_blocks(layouts[name], parameter, groups):
                part = parameter[block.local]
                rows = tuple(slice(o, o + s) for o, s in zip(block.offset, part.shape, strict=True))
                part.copy_(table[rows])
    for name, buffer in persistent_buffers(network):
        if name in plan.matched:
            buffer.copy_(stored.tensors.read(name))
    return plan.report()


def persistent_buffers(network: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Return the names and tensors of the buffers that are saved with the parameters."""
    kept = network.state_dict(keep_vars=True)
    return ((name, buffer) for name, buffer in network.named_buffers() if name in kept)


def fill_local_part(
    tensors: Tensors | CheckpointReader,
    name: str,
    layout: ParameterLayout,
    parameter: Tensor,
    target: Tensor,
    groups: ProcessGroups,
) -> None:
    """Read this rank's part of the stored tensor `name` into `target`, which has the layout of `parameter`."""
    local = target.to_local() if isinstance(target, DTensor) else target
    for block in local_blocks(layout, parameter, groups):
        part = local[block.local]
        part.copy_(tensors.read(name, block.offset, tuple(part.shape)))


def mismatch_message(source: object, missing: list[str], unexpected: list[str], reshaped: list[str]) -> str:
    """Return the message for a source whose tensors do not fit the network."""
    return (
        f"{source}: it does not fit this model. Missing: {preview_names(missing)}; unexpected: "
        f"{preview_names(unexpected)}; other shapes: {preview_names(reshaped)}. "
        "Build the model with the parameters it was saved with."
    )


@dataclass
class _Plan:
    """What will happen to every tensor, decided before anything is written."""

    stored: StoredModel
    rules: Restore
    vocabularies: Vocabularies
    position_offset: int
    matched: set[str] = field(default_factory=set)
    resized: dict[str, Resized] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    reshaped: list[str] = field(default_factory=list)

    @classmethod
    def of(
        cls,
        network: nn.Module,
        layouts: dict[str, ParameterLayout],
        stored: StoredModel,
        rules: Restore,
        vocabularies: Vocabularies,
    ) -> _Plan:
        options = getattr(getattr(network, "embedding", None), "options", None)
        plan = cls(stored, rules, vocabularies, getattr(options, "position_offset", 0))
        wanted = {name: layout.global_shape for name, layout in layouts.items()}
        wanted |= {name: tuple(buffer.shape) for name, buffer in persistent_buffers(network)}
        names = [name for name in stored.tensors.names if not stored.absent.cover(name)]
        for name, shape in wanted.items():
            plan._classify(name, shape, stored.tensors.shape(name) if name in names else None)
        for name in sorted(set(names) - wanted.keys()):
            if _is_positional(name) and rules.positions == RESTART:
                plan.resized[name] = Resized(name, stored.tensors.shape(name), (), RESTART)
            else:
                plan.unexpected.append(name)
        plan.unexpected += stored.unexpected
        return plan

    def _classify(self, name: str, wanted: tuple[int, ...], stored: tuple[int, ...] | None) -> None:
        if stored is None:
            if _is_positional(name) and self.rules.positions == RESTART:
                self.resized[name] = Resized(name, (), wanted, RESTART)
            else:
                self.missing.append(name)
            return
        method = self._resize_method(name, wanted, stored)
        if method is not None:
            self.resized[name] = Resized(name, stored, wanted, method)
        elif wanted == stored and not self._vocabulary_differs(name):
            self.matched.add(name)
        else:
            self.reshaped.append(f"{name} {list(stored)} instead of {list(wanted)}{self._advice(name, wanted, stored)}")

    def _vocabulary_differs(self, name: str) -> bool:
        wanted, stored = self.vocabularies.wanted, self.vocabularies.stored
        return name.endswith(VOCABULARY_TABLES) and wanted is not None and stored is not None and wanted != stored

    def _resize_method(self, name: str, wanted: tuple[int, ...], stored: tuple[int, ...]) -> str | None:
        """Return the method that resizes a table; None if it needs none, or if the rules allow none."""
        if wanted[1:] != stored[1:] or not wanted or not stored:
            return None
        if name.endswith(VOCABULARY_TABLES):
            if self._vocabulary_differs(name):
                return self.rules.vocabulary
            real = self.vocabularies.wanted
            if wanted != stored and real is not None and min(wanted[0], stored[0]) >= real:
                return PADDING
            return self.rules.vocabulary if wanted != stored else None
        if not _is_positional(name) or wanted == stored:
            return None
        lengthens = wanted[0] > stored[0]
        return None if self.rules.positions == "cut" and lengthens else self.rules.positions

    def resize(self, name: str, table: Tensor) -> Tensor:
        """Return the stored table in the wanted shape."""
        rows = self.resized[name].wanted[0]
        match self.resized[name].method:
            case "tile":
                return tile_rows(table, rows)
            case "mean":
                real = min(self.vocabularies.stored or table.shape[0], table.shape[0])
                return pad_rows(fill_with_mean(table, real, min(self.vocabularies.wanted or rows, rows)), rows)
            case "interpolate":
                return interpolate_rows(table, rows, self.position_offset)
            case _:  # cut, padding
                return pad_rows(table, rows)

    def _advice(self, name: str, wanted: tuple[int, ...], stored: tuple[int, ...]) -> str:
        if wanted[1:] != stored[1:]:
            return ""
        if name.endswith(VOCABULARY_TABLES):
            size = self.vocabularies.stored or stored[0]
            return f" for a vocabulary of {size} (restore.vocabulary=tile or mean resizes it)"
        return " (restore.positions=interpolate, tile or cut resizes it)" if _is_positional(name) else ""

    def check_fits(self, absent_allowed: bool) -> None:
        """Refuse a source that does not fit under the rules."""
        absent = self.stored.absent
        missing = [name for name in self.missing if not (absent_allowed and absent.cover(name))]
        partial = self.rules.strict and (missing or self.unexpected)
        nothing = not self.matched and all(table.method == RESTART for table in self.resized.values())
        useless = nothing and bool(self.missing or self.unexpected)
        if not partial and not self.reshaped and not useless:
            return
        error: type[BioNeMoError] = CheckpointError if self.stored.format == "run" else ArtefactError
        message = mismatch_message(self.stored.source, missing, self.unexpected, self.reshaped)
        if useless:
            message += " None of its tensors fits, so there is nothing to load, whatever restore.strict is."
        elif partial and not self.reshaped:
            message += " Or set restore.strict=false to load the tensors that fit and list the others."
        if absent.note:
            message += f" Note: {absent.note}."
        raise error(message)

    def report(self) -> LoadReport:
        """Return the report of the transfer."""
        return LoadReport(
            self.stored.source,
            tuple(sorted(self.matched)),
            tuple(self.resized.values()),
            tuple(self.missing),
            tuple(self.unexpected),
            self.stored.notes,
            self.stored.absent.note,
        )


def _is_positional(name: str) -> bool:
    return _POSITION_TABLE in name or _RELATIVE_TABLE in name
