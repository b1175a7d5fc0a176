"""Weights of another model into a network on any layout: every tensor is matched, resized or named."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from bionemo_core.config.schema import Restore
from bionemo_core.config.value_checks import check_restore
from bionemo_core.errors import ArtefactError, BioNeMoError, CheckpointError
from bionemo_core.interop.load_report import LoadReport, Resized, preview_names
from bionemo_core.interop.resize import fill_with_mean, interpolate_rows, pad_rows, tile_rows
from bionemo_core.interop.stored import StoredModel, Tensors
from bionemo_core.parallel.groups import ProcessGroups
from bionemo_core.parallel.layout import ParameterLayout, local_blocks, read_layouts

VOCABULARY_TABLES = ("word_embeddings.weight", "head.output.weight", "head.output.bias")
"""Ends of the names of tensors with a row a piece of the vocabulary."""

_POSITION_TABLE = "position_embeddings"
_RELATIVE_TABLE = "positions.relative"
PADDING = "padding"
RESTART = "restart"


@dataclass(frozen=True)
class Vocabularies:
    """How many rows of a table over the vocabulary are in use; None where it is not known."""

    wanted: int | None = None
    stored: int | None = None


@torch.no_grad()
def fit_weights(
    network: nn.Module, groups: ProcessGroups, stored: StoredModel, rules: Restore, vocabularies: Vocabularies
) -> LoadReport:
    """Fill this rank's part of every parameter and persistent buffer; call before sharding.

    Raises:
        ArtefactError: a tensor has another shape and no rule says what to do, or, with `rules.strict`,
            a tensor is missing or unexpected. CheckpointError where the source is a run's checkpoint.
    """
    check_restore(rules)
    layouts = read_layouts(network, groups)
    plan = _Plan.of(network, layouts, stored, rules, vocabularies)
    for name, parameter in network.named_parameters():
        if name in plan.matched:
            _fill(stored.tensors, name, layouts[name], parameter, groups)
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
    """Return the buffers that are saved with the parameters."""
    kept = network.state_dict(keep_vars=True)
    return ((name, buffer) for name, buffer in network.named_buffers() if name in kept)


def _fill(tensors: Tensors, name: str, layout: ParameterLayout, parameter: Tensor, groups: ProcessGroups) -> None:
    local = parameter.to_local() if isinstance(parameter, DTensor) else parameter
    for block in local_blocks(layout, parameter, groups):
        part = local[block.local]
        part.copy_(tensors.read(name, block.offset, tuple(part.shape)))


@dataclass
class _Plan:
    """What is to become of every tensor, decided before anything is written."""

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
        have = stored.tensors.names
        for name, shape in wanted.items():
            plan._place(name, shape, stored.tensors.shape(name) if name in have else None)
        for name in sorted(set(have) - wanted.keys()):
            if _is_positional(name) and rules.positions == RESTART:
                plan.resized[name] = Resized(name, stored.tensors.shape(name), (), RESTART)
            else:
                plan.unexpected.append(name)
        plan.unexpected += stored.unexpected
        plan._refuse()
        return plan

    def _place(self, name: str, wanted: tuple[int, ...], stored: tuple[int, ...] | None) -> None:
        if stored is None:
            if _is_positional(name) and self.rules.positions == RESTART:
                self.resized[name] = Resized(name, (), wanted, RESTART)
            else:
                self.missing.append(name)
            return
        method = self._method(name, wanted, stored)
        if method is not None:
            self.resized[name] = Resized(name, stored, wanted, method)
        elif wanted == stored and not self._other_vocabulary(name):
            self.matched.add(name)
        else:
            self.reshaped.append(f"{name} {list(stored)} instead of {list(wanted)}{self._advice(name, wanted, stored)}")

    def _other_vocabulary(self, name: str) -> bool:
        one, other = self.vocabularies.wanted, self.vocabularies.stored
        return name.endswith(VOCABULARY_TABLES) and one is not None and other is not None and one != other

    def _method(self, name: str, wanted: tuple[int, ...], stored: tuple[int, ...]) -> str | None:
        """Return the method for resizing a table; None if it needs none, or none is allowed."""
        if wanted[1:] != stored[1:] or not wanted or not stored:
            return None
        if name.endswith(VOCABULARY_TABLES):
            if self._other_vocabulary(name):
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
            return f" for {self.vocabularies.stored or stored[0]} pieces (restore.vocabulary=tile or mean fits it)"
        return " (restore.positions=interpolate, tile or cut fits it)" if _is_positional(name) else ""

    def _refuse(self) -> None:
        partial = self.rules.strict and (self.missing or self.unexpected)
        if not partial and not self.reshaped:
            return
        error: type[BioNeMoError] = CheckpointError if self.stored.format == "run" else ArtefactError
        loose = " restore.strict=false takes what fits and lists the rest." if partial and not self.reshaped else ""
        raise error(
            f"{self.stored.source}: it does not fit this model. Missing: {preview_names(self.missing)}; unexpected: "
            f"{preview_names(self.unexpected)}; other shapes: {preview_names(self.reshaped)}. "
            f"Build the model with the parameters it was saved with.{loose}"
        )

    def report(self) -> LoadReport:
        """Return the report of the load."""
        return LoadReport(
            self.stored.source,
            tuple(sorted(self.matched)),
            tuple(self.resized.values()),
            tuple(self.missing),
            tuple(self.unexpected),
            self.stored.notes,
        )


def _is_positional(name: str) -> bool:
    return _POSITION_TABLE in name or _RELATIVE_TABLE in name
