"""Compiled norms read each row once. Inductor makes its choices for a GPU, so its answers are asked for here."""

from types import SimpleNamespace

import pytest
import torch
from sympy import Integer
from torch import nn
from torch._inductor import config
from torch._inductor.choices import InductorChoices
from torch._inductor.runtime.hints import ReductionHint
from torch._inductor.virtualized import V

from bionemo_core.parallel.compiled_layers import WIDEST_ROW, compile_layers, make_choices


class OneLayer(nn.Module):
    """A network with a layer to compile."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.LayerNorm(4)])


@pytest.fixture
def graph():
    """What Inductor's choices ask about the graph that is compiled."""
    sizes = SimpleNamespace(statically_known_leq=lambda a, b: bool(a <= b), optimization_hint=lambda number: number)
    with V.set_graph_handler(SimpleNamespace(sizevars=sizes)):
        yield


def reduction(width: int, hint: ReductionHint = ReductionHint.INNER) -> SimpleNamespace:
    return SimpleNamespace(reduction_numel=Integer(width), numel=Integer(16_384), get_reduction_hint=lambda: hint)


@pytest.mark.usefixtures("graph")
def test_a_row_is_kept_in_registers_if_it_fits() -> None:
    ours, theirs = make_choices(), InductorChoices()
    for width, kept in ((640, True), (1280, True), (WIDEST_ROW, True), (WIDEST_ROW + 1, False)):
        assert ours.should_use_persistent_reduction(reduction(width), False) is kept
    assert not theirs.should_use_persistent_reduction(reduction(1280), False)  # else ours are needed no more
    for width in (32, 1280):
        sums = reduction(width, ReductionHint.DEFAULT)
        assert ours.should_use_persistent_reduction(sums, False) is theirs.should_use_persistent_reduction(sums, False)
    with config.patch({"triton.persistent_reductions": False}):
        assert not ours.should_use_persistent_reduction(reduction(640), False)


def test_layers_are_compiled_with_our_choices_unless_there_are_others() -> None:
    with config.patch(inductor_choices_class=None):
        without = config.save_config_portable()
        compile_layers(OneLayer())
        assert config.inductor_choices_class is make_choices
        assert config.save_config_portable() != without  # a part of the key of compiled code
    with config.patch(inductor_choices_class=InductorChoices):
        compile_layers(OneLayer())
        assert config.inductor_choices_class is InductorChoices


def test_a_compiled_norm_computes_what_the_norm_does() -> None:
    made = OneLayer()
    given = torch.randn(3, 4)
    expected = made.layers[0](given)
    compile_layers(made)
    torch.testing.assert_close(made.layers[0](given), expected)
