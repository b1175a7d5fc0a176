"""A decoder with graphs decodes the same as its network.

The graphs are fakes that run on a CPU; `benchmarks/bench_decoding.py` uses real ones.
"""

import pytest
import torch
from test_cache import decode, memory_of
from tiny_models import TEXTS, TOKENIZER, inference, network

from bionemo_core.inference.cuda_graphs import MAX_GRAPHS, CudaGraphDecoder

RESETS = "resets"


class FakeGraph:
    """A graph whose replay calls the function again; like a real graph, it does not change the host's counter."""

    captured = 0

    def __init__(self, step, reset) -> None:
        FakeGraph.captured += 1
        self.step = step
        self.state = reset.__closure__[0].cell_contents
        for _ in range(2):
            reset()
            step()

    def replay(self) -> None:
        length = self.state.length
        self.step()
        self.state.length = length


@pytest.mark.parametrize("method", ["greedy", "sample", "beam"])
@pytest.mark.parametrize("kind", ["transformer", "perceiver"])
def test_graphs_change_no_token(kind, method):
    decoder = CudaGraphDecoder(network(kind), capture=FakeGraph, min_rows=4)
    FakeGraph.captured = 0
    for rows in (slice(0, 24), slice(24, 48), slice(0, 24)):  # later batches use the first one's buffers
        memory = memory_of(kind, torch.float64, rows)
        got = decode(method, decoder, memory, first=rows.start)
        assert torch.equal(got, decode(method, network(kind), memory, first=rows.start))
    assert FakeGraph.captured > 0


def test_each_shape_is_captured_once_and_old_graphs_are_deleted():
    decoder = CudaGraphDecoder(network(), capture=FakeGraph, min_rows=1)
    memory = memory_of("transformer", torch.float64)
    tokens = torch.full((memory.states.shape[1],), TOKENIZER.bos_id)
    FakeGraph.captured = 0
    decoder.start(memory, 8)
    assert FakeGraph.captured == 0  # a state is captured at its first step
    for _ in range(2):
        decoder.step(tokens, decoder.start(memory, 8))
    assert FakeGraph.captured == 1
    for length in range(1, MAX_GRAPHS + 4):
        decoder.step(tokens, decoder.start(memory, length))
    assert len(decoder._graphs) == MAX_GRAPHS


def test_batches_of_similar_size_share_a_graph():
    FakeGraph.captured = 0
    model = inference()
    decoder = CudaGraphDecoder(network(), capture=FakeGraph, min_rows=8)
    own = type(model)(model.network, TOKENIZER, model.seq_length, model.max_length, decoder=decoder)
    for number in (1, 5, 8, 13, 16):
        expected = model.hiddens_to_seq(*model.seq_to_hiddens(TEXTS[:number]))
        hiddens, mask = model.seq_to_hiddens(TEXTS)
        assert own.hiddens_to_seq(hiddens[:number], mask[:number]) == expected
    sizes = {dict((name, shape) for name, shape, _ in key)["self_cache"][2] for key in decoder._graphs}
    assert sizes == {16}
