"""Beam search against the enumeration of all sequences, and against greedy decoding."""

from itertools import product

import pytest
import torch
from small_decoder import SmallDecoder, Special, memories, rows_of

from bionemo_core.errors import ConfigError
from bionemo_core.inference.beam import beam_search, length_penalty
from bionemo_core.inference.decoding import RowDropping, greedy

VOCABULARY, LENGTH = 4, 4


def all_hypotheses(network: SmallDecoder, memory, alpha: float) -> list[tuple[float, list[int]]]:
    """Return every sequence that ends or has LENGTH tokens, with its score, best first."""
    hypotheses = {}
    for tokens in product(range(VOCABULARY), repeat=LENGTH):
        state, last, log_prob, written = network.start(memory, LENGTH), Special.bos_id, 0.0, []
        for token in tokens:
            log_prob += torch.log_softmax(network.step(torch.tensor([last]), state)[0], dim=-1)[token].item()
            written.append(token)
            last = token
            if token == Special.eos_id:
                break
        rank = log_prob / ((5 + len(written)) / 6) ** alpha
        hypotheses[tuple(written + [Special.pad_id] * (LENGTH - len(written)))] = max(
            rank, hypotheses.get((*written, *[Special.pad_id] * (LENGTH - len(written))), -torch.inf)
        )
    return sorted(((rank, list(tokens)) for tokens, rank in hypotheses.items()), reverse=True)


@pytest.mark.parametrize("alpha", [0.0, 0.7, 2.0])
def test_a_beam_as_wide_as_all_sequences_finds_the_best(alpha):
    network, memory = SmallDecoder(vocabulary=VOCABULARY), memories(3)
    beams = beam_search(network, memory, Special, max_length=LENGTH, beam_size=VOCABULARY**LENGTH, beam_alpha=alpha)
    for row in range(3):
        expected = all_hypotheses(network, rows_of(memory, slice(row, row + 1)), alpha)
        assert beams.tokens[row, :10].tolist() == [tokens for _, tokens in expected[:10]]
        assert beams.scores[row, :10].tolist() == pytest.approx([rank for rank, _ in expected[:10]])


def test_beams_beyond_the_hypotheses_are_empty():
    network = SmallDecoder(vocabulary=VOCABULARY)
    beams = beam_search(network, memories(1), Special, max_length=1, beam_size=6)
    assert beams.scores[0].isneginf().tolist() == [False] * VOCABULARY + [True] * 2
    assert sorted(beams.tokens[0, :VOCABULARY, 0].tolist()) == list(range(VOCABULARY))
    assert beams.tokens[0, VOCABULARY:].eq(Special.pad_id).all()


def test_one_beam_is_greedy():
    network, memory = SmallDecoder(end_bias=1.0), memories(32)
    beams = beam_search(network, memory, Special, max_length=20, beam_size=1)
    assert torch.equal(beams.tokens[:, 0], greedy(network, memory, Special, max_length=20))


def test_hypotheses_are_ordered_and_differ():
    beams = beam_search(SmallDecoder(end_bias=1.0), memories(16), Special, max_length=20, beam_size=5)
    assert (beams.scores.diff(dim=1) <= 0).all()
    for row in beams.tokens.tolist():
        assert len({tuple(tokens) for tokens in row}) == 5


@pytest.mark.parametrize("dropping", [RowDropping(1, halving=False), RowDropping(2), RowDropping(10_000)], ids=str)
def test_results_depend_on_neither_batch_nor_dropping(dropping):
    network, memory = SmallDecoder(end_bias=2.0), memories(64)
    options = {"max_length": 20, "beam_size": 4, "beam_alpha": 0.6}
    together = beam_search(network, memory, Special, dropping=dropping, **options)
    alone = [beam_search(network, rows_of(memory, slice(i, i + 1)), Special, **options) for i in range(64)]
    assert torch.equal(together.tokens, torch.cat([beams.tokens for beams in alone]))
    torch.testing.assert_close(together.scores, torch.cat([beams.scores for beams in alone]))


def test_dropping_saves_steps():
    network, memory = SmallDecoder(end_bias=3.0), memories(64)
    beam_search(network, memory, Special, max_length=30, beam_size=3, dropping=RowDropping(10_000))
    full, network.row_steps = network.row_steps, 0
    beam_search(network, memory, Special, max_length=30, beam_size=3, dropping=RowDropping(2))
    assert network.row_steps < 0.7 * full


def test_the_length_penalty_is_that_of_gnmt():
    assert length_penalty(torch.tensor([1, 7]), 0.5).tolist() == pytest.approx([1.0, 2**0.5])


def test_a_beam_of_zero_is_refused():
    with pytest.raises(ConfigError, match="beam_size: got 0"):
        beam_search(SmallDecoder(), memories(1), Special, max_length=3, beam_size=0)
