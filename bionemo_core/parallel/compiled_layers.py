"""Compiled layers: which are compiled, and how their norms read rows on a GPU."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from bionemo_core.parallel.recompute import is_recomputed

if TYPE_CHECKING:
    from torch._inductor.choices import InductorChoices

_MAX_RECOMPILES = 64

WIDEST_ROW = 8192
"""Numbers of the widest row that a compiled norm reads once; it must fit into the registers of a block of threads."""


def compile_layers(network: nn.Module) -> None:
    """Compile each of the network's `layers` for the shapes that occur.

    All layers run the same code of megatron-core, so they share its recompile limit. It is compiled for each kind of
    layer, for training and for evaluation, and (shapes are static) for each number of tokens and segments.
    """
    from torch._inductor import config

    if config.inductor_choices_class is None:  # else somebody has chosen for this process
        config.inductor_choices_class = make_choices
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, _MAX_RECOMPILES)  # type: ignore[attr-defined]
    for layer in getattr(network, "layers", ()):
        if not is_recomputed(layer):  # it compiles its own inside
            layer.compile(dynamic=False)


def make_choices() -> InductorChoices:
    """Return Inductor's choices, but with norms that read each row once; it imports Inductor, which takes seconds.

    By itself Inductor reads a row of more than 1,024 numbers twice, for its mean and variance and then to normalise it,
    which takes twice as long.
    """
    from torch._inductor import config
    from torch._inductor.choices import InductorChoices
    from torch._inductor.runtime.hints import ReductionHint
    from torch._inductor.virtualized import V

    class Choices(InductorChoices):
        def uuid(self) -> str:
            """Return the part of a cache's key that says how these choices differ from Inductor's."""
            return f"rows of up to {WIDEST_ROW} are read once"

        @staticmethod
        def should_use_persistent_reduction(features: Any, cooperative_reduction: bool) -> bool:
            """Return whether a reduction keeps what it reads in registers."""
            if features.get_reduction_hint() == ReductionHint.INNER and not cooperative_reduction:
                fits = V.graph.sizevars.statically_known_leq(features.reduction_numel, WIDEST_ROW)
                return fits and config.triton.persistent_reductions
            return InductorChoices.should_use_persistent_reduction(features, cooperative_reduction)

    return Choices()
