"""Greedy decoding and sampling: where they end, and that neither batch nor dropping changes a result."""

import pytest
import torch
from small_decoder import SmallDecoder, SmallMemory, Special, memories, rows_of

from bionemo_core.errors import ConfigError, NonFiniteError
from bionemo_core.inference.beam import beam_search
from bionemo_core.inference.choosing import TokenSampling
from bionemo_core.inference.decoding import RowDropping, greedy, sample
from bionemo_core.inference.philox import RowRng

LENGTH = 24
NEVER = RowDropping(every=10_000)


def test_greedy_decodes_the_most_probable_token_after_each_prefix():
    network, memory = SmallDecoder(end_bias=1.0), memories(8)
    decoded = greedy(network, memory, Special, max_length=LENGTH)
    for row in range(8):
        state, token, expected = network.start(rows_of(memory, slice(row, row + 1)), LENGTH), Special.bos_id, []
        while len(expected) < LENGTH and token != Special.eos_id:
            token = int(network.step(torch.tensor([token]), state)[0].argmax())
            expected.append(token)
        assert decoded[row].tolist() == expected + [Special.pad_id] * (LENGTH - len(expected))
    ends = (decoded == Special.eos_id).sum(dim=1)
    assert ends.max() == 1 and ends.sum() > 0, "some sequences must end, and none may end twice"


def decode(kind: str, network: SmallDecoder, memory: SmallMemory, first: int = 0, **options) -> torch.Tensor:
    if kind == "greedy":
        return greedy(network, memory, Special, max_length=LENGTH, **options)
    rng = RowRng.of(3, memory.states.shape[1], first_sequence=first)
    return sample(network, memory, Special, rng, max_length=LENGTH, sampling=TokenSampling(top_p=0.9), **options)


@pytest.mark.parametrize("kind", ["greedy", "sample"])
def test_a_batch_of_64_decodes_as_64_batches_of_one(kind):
    network, memory = SmallDecoder(end_bias=1.0), memories(64)
    together = decode(kind, network, memory)
    alone = [decode(kind, network, rows_of(memory, slice(i, i + 1)), first=i) for i in range(64)]
    assert torch.equal(together, torch.cat(alone))


@pytest.mark.parametrize("kind", ["greedy", "sample"])
@pytest.mark.parametrize(
    "dropping", [RowDropping(1, halving=False), RowDropping(3, halving=False), RowDropping(2)], ids=str
)
def test_dropping_rows_that_ended_changes_no_result_and_saves_steps(kind, dropping):
    network, memory = SmallDecoder(end_bias=1.5), memories(64)
    expected = decode(kind, network, memory, dropping=NEVER)
    network.row_steps, full = 0, network.row_steps
    assert torch.equal(decode(kind, network, memory, dropping=dropping), expected)
    assert network.row_steps < 0.7 * full


def test_decoding_ends_when_every_row_has_ended():
    network = SmallDecoder(end_bias=100.0)
    decoded = greedy(network, memories(5), Special, max_length=1000, dropping=RowDropping(4))
    assert network.steps == 4
    assert decoded.tolist() == [[Special.eos_id] + [Special.pad_id] * 999] * 5


def test_the_seed_decides():
    network, memory = SmallDecoder(), memories(16)
    drawn = [
        sample(network, memory, Special, RowRng.of(seed, 16), max_length=LENGTH, sampling=TokenSampling(top_p=0.0))
        for seed in (0, 0, 1)
    ]
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


def test_top_k_of_one_is_greedy():
    network, memory = SmallDecoder(), memories(16)
    drawn = sample(network, memory, Special, RowRng.of(0, 16), max_length=LENGTH, sampling=TokenSampling(top_k=1))
    assert torch.equal(drawn, greedy(network, memory, Special, max_length=LENGTH))


def test_an_empty_batch_decodes_to_nothing():
    assert greedy(SmallDecoder(), memories(0), Special, max_length=LENGTH).shape == (0, LENGTH)


def test_a_length_of_zero_is_refused():
    with pytest.raises(ConfigError, match="max_length: got 0"):
        greedy(SmallDecoder(), memories(1), Special, max_length=0)


@pytest.mark.parametrize(("rows", "left", "size"), [(64, 33, 64), (64, 32, 32), (64, 9, 16), (64, 1, 1), (6, 1, 3)])
def test_rows_are_dropped_by_halves(rows, left, size):
    assert RowDropping(halving=True).size(rows, left) == size


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("kind", ["greedy", "sample", "top-k", "beam"])
def test_logits_that_are_not_finite_are_an_error(kind, value, monkeypatch):
    network, memory = SmallDecoder(end_bias=-100.0), memories(4)
    step = network.step

    def broken_step(tokens, state):
        logits = step(tokens, state).clone()
        if network.steps > 3:
            logits[1] = value
        return logits

    monkeypatch.setattr(network, "step", broken_step)
    with pytest.raises(NonFiniteError, match=r"the logits of the next token are NaN or infinite.*restore_from_path"):
        if kind == "beam":
            beam_search(network, memory, Special, max_length=LENGTH, beam_size=3)
        elif kind == "top-k":
            rng, options = RowRng.of(3, 4), TokenSampling(top_k=2, top_p=0.5)
            sample(network, memory, Special, rng, max_length=LENGTH, sampling=options)
        else:
            decode(kind, network, memory)


def test_a_token_that_is_excluded_is_no_error(monkeypatch):
    network, memory = SmallDecoder(end_bias=1.0), memories(4)
    step = network.step
    excluded = torch.zeros(step(torch.zeros(4, dtype=torch.int64), network.start(memory, 2)).shape[-1])
    excluded[Special.pad_id] = -torch.inf
    monkeypatch.setattr(network, "step", lambda tokens, state: step(tokens, state) + excluded)
    assert decode("greedy", network, memory).shape == (4, LENGTH)
    assert beam_search(network, memory, Special, max_length=4, beam_size=2).tokens.shape == (4, 2, 4)
