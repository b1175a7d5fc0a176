"""The conformance kit's check of decoding detects a cache or a batch that changes tokens."""

from types import SimpleNamespace

import pytest
import torch
from tiny_models import SEQ_LENGTH, TEXTS, TOKENIZER, network

from bionemo_core.testing.decoding import _check_each_method
from bionemo_core.testing.subject import ConformanceError


class BrokenNetwork:
    """A network with one wrong method."""

    def __init__(self, **own) -> None:
        self._own = own

    def __getattr__(self, name):
        return self.__dict__["_own"].get(name) or getattr(network(), name)


def check(tested) -> None:
    module = SimpleNamespace(network=tested, objective=None, seq_length=SEQ_LENGTH)
    _check_each_method(
        SimpleNamespace(module=module, tokenizer=TOKENIZER, splits=SimpleNamespace(train=TEXTS)), "model x"
    )


def test_a_correct_network_passes():
    check(network())


def test_a_step_that_forgets_is_found():
    def step(tokens, state):
        return network().step(torch.full_like(tokens, TOKENIZER.bos_id), state)

    with pytest.raises(ConformanceError, match="greedy decoding with the cache"):
        check(BrokenNetwork(step=step))


def test_rows_that_see_each_other_are_found():
    def mixed(memory):
        return type(memory)(memory.states + memory.states.mean(dim=1, keepdim=True), memory.padding_mask)

    def encode(source):
        return mixed(network().encode(source))

    with pytest.raises(ConformanceError, match=r"in a batch gives .* and alone"):
        check(BrokenNetwork(encode=encode))
