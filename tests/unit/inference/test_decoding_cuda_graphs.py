"""Recorded steps decode what the network decodes. A graph is stood in for, so that a CPU can show it; see
`benchmarks/bench_decoding.py` for real ones."""

import pytest
import torch
from test_cache import decoded, memory_of
from tiny_models import TEXTS, TOKENIZER, inference, network

from bionemo_core.inference.cuda_graphs import MOST_RECORDINGS, RecordedSteps

RESETS = "resets"


class StandIn:
    """Replays by calling the function again; as a graph would, it leaves the host's count alone."""

    recorded = 0

    def __init__(self, step, reset) -> None:
        StandIn.recorded += 1
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
def test_recorded_steps_change_no_token(kind, method):
    recorded = RecordedSteps(network(kind), record=StandIn, fewest_rows=4)
    StandIn.recorded = 0
    for rows in (slice(0, 24), slice(24, 48), slice(0, 24)):  # the second and third batch fill the first one's buffers
        memory = memory_of(kind, torch.float64, rows)
        got = decoded(method, recorded, memory, first=rows.start)
        assert torch.equal(got, decoded(method, network(kind), memory, first=rows.start))
    assert StandIn.recorded > 0


def test_shapes_are_recorded_once_and_forgotten_when_there_are_many():
    recorded = RecordedSteps(network(), record=StandIn, fewest_rows=1)
    memory = memory_of("transformer", torch.float64)
    tokens = torch.full((memory.states.shape[1],), TOKENIZER.bos_id)
    StandIn.recorded = 0
    recorded.start(memory, 8)
    assert StandIn.recorded == 0  # before a step nothing is known to be worth it
    for _ in range(2):
        recorded.step(tokens, recorded.start(memory, 8))
    assert StandIn.recorded == 1
    for length in range(1, MOST_RECORDINGS + 4):
        recorded.step(tokens, recorded.start(memory, length))
    assert len(recorded._recordings) == MOST_RECORDINGS


def test_batches_of_about_the_same_size_share_a_recording():
    StandIn.recorded = 0
    model = inference()
    recorded = RecordedSteps(network(), record=StandIn, fewest_rows=8)
    own = type(model)(model.network, TOKENIZER, model.seq_length, model.max_length, decoder=recorded)
    for number in (1, 5, 8, 13, 16):
        expected = model.hiddens_to_seq(*model.seq_to_hiddens(TEXTS[:number]))
        hiddens, mask = model.seq_to_hiddens(TEXTS)
        assert own.hiddens_to_seq(hiddens[:number], mask[:number]) == expected
    sizes = {dict((name, shape) for name, shape, _ in key)["self_cache"][2] for key in recorded._recordings}
    assert sizes == {16}
