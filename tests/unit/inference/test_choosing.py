"""The probabilities that top-k, top-p and temperature leave, against plain Python."""

import math

import pytest
import torch

from bionemo_core.errors import ConfigError
from bionemo_core.inference.choosing import TokenSampling, draw_tokens, filter_probabilities


def by_hand(logits: list[float], top_k: int, top_p: float, temperature: float) -> dict[int, float]:
    """Return the probabilities of the tokens that may be drawn, by id."""
    weights = {i: math.exp(x / temperature) for i, x in enumerate(logits)}
    total = sum(weights.values())
    ranked = sorted(weights, key=weights.__getitem__, reverse=True)
    if top_k:
        ranked = ranked[:top_k]
    remaining = {i: weights[i] / total for i in ranked}
    scale = sum(remaining.values())
    remaining = {i: p / scale for i, p in remaining.items()}
    if 0 < top_p < 1:
        kept, reached = {}, 0.0
        for i in ranked:
            if reached >= top_p:
                break
            kept[i] = remaining[i]
            reached += remaining[i]
        remaining = kept
    scale = sum(remaining.values())
    return {i: p / scale for i, p in remaining.items()}


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("top_p", [0.0, 0.05, 0.6, 0.9, 1.0])
@pytest.mark.parametrize("top_k", [0, 1, 4, 100])
def test_probabilities_against_plain_python(top_k, top_p, temperature):
    logits = torch.randn(20, 9, generator=torch.Generator().manual_seed(top_k), dtype=torch.float64) * 2
    kept = filter_probabilities(logits, TokenSampling(top_k, top_p, temperature))
    kept = kept / kept.sum(dim=-1, keepdim=True)
    for row, got in zip(logits.tolist(), kept.tolist(), strict=True):
        expected = by_hand(row, top_k, top_p, temperature)
        assert {i for i, p in enumerate(got) if p > 0} == set(expected)
        for i, p in expected.items():
            assert got[i] == pytest.approx(p, rel=1e-12)


def test_draws_have_the_right_frequencies():
    logits = torch.tensor([[2.0, 1.0, 0.5, -1.0, 0.0]]).repeat(40_000, 1)
    uniform = torch.rand(40_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    drawn = draw_tokens(logits, uniform, TokenSampling(top_k=3, top_p=1.0))
    expected = by_hand([2.0, 1.0, 0.5, -1.0, 0.0], 3, 1.0, 1.0)
    shares = torch.bincount(drawn, minlength=5) / 40_000
    for i, share in enumerate(shares.tolist()):
        assert share == pytest.approx(expected.get(i, 0.0), abs=0.012)


def test_the_ends_of_the_unit_interval_draw_allowed_tokens():
    logits = torch.tensor([[-9.0, 3.0, 2.0, -9.0], [-9.0, 3.0, 2.0, -9.0]])
    ends = torch.tensor([0.0, 1.0 - 2.0**-53], dtype=torch.float64)
    assert draw_tokens(logits, ends, TokenSampling(top_k=2, top_p=0.0)).tolist() == [1, 2]


def test_tokens_that_tie_with_the_last_one_kept_are_kept():
    kept = filter_probabilities(torch.tensor([[1.0, 0.0, 0.0, -5.0]]), TokenSampling(top_k=2, top_p=1.0))
    assert (kept > 0).tolist() == [[True, True, True, False]]


@pytest.mark.parametrize(
    "wrong", [{"top_k": -1}, {"top_p": 1.5}, {"temperature": 0.0}, {"temperature": math.inf}], ids=str
)
def test_values_out_of_range_are_refused_by_name(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        TokenSampling(**wrong)


@pytest.mark.parametrize("top_p", [0.0, 0.9])
def test_a_tiny_temperature_leaves_the_most_probable_token(top_p):
    logits = torch.tensor([[1.0, 3.0, -2.0], [0.5, 0.5, 0.25]])
    found = filter_probabilities(logits, TokenSampling(top_p=top_p, temperature=5e-324))
    assert found.tolist() == [[0.0, 1.0, 0.0], [0.5, 0.5, 0.0]]
