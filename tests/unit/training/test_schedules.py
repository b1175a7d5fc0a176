"""Learning rates at hand-computed steps; the formulae are NeMo's of the same names."""

import math

import pytest

from bionemo_core.errors import ConfigError
from bionemo_core.training.schedules import (
    constant,
    cosine,
    inverse_square_root,
    noam,
    warmup_anneal_hold,
    warmup_annealing,
)


@pytest.mark.parametrize(
    ("schedule", "step", "base_lr", "max_steps", "rate"),
    [
        (cosine(9, 10, 0.1), 0, 1.0, 120, 0.1),  # 1 / 10
        (cosine(9, 10, 0.1), 9, 1.0, 120, 1.0),
        (cosine(10, 10, 0.2), 60, 1.0, 120, 0.6),  # half of 100 decay steps: 0.2 + 0.8 / 2
        (cosine(10, 10, 0.2), 110, 1.0, 120, 0.2),
        (cosine(10, 10, 0.2), 119, 1.0, 120, 0.2),
        (cosine(10, 0, 0.0), 85, 1.0, 110, 0.5 * (1 + math.cos(0.75 * math.pi))),
        (cosine(500, 50000, 2e-5), 100, 2e-4, 1000, 2e-4 * 101 / 501),  # a short run ends in its warm-up
        (cosine(500, 50000, 2e-5), 501, 2e-4, 1000, 2e-5),
        (inverse_square_root(3), 1, 1.0, 100, 0.5),
        (inverse_square_root(3), 15, 1.0, 100, 0.5),  # sqrt(4 / 16)
        (inverse_square_root(3, 0.6), 15, 1.0, 100, 0.6),
        (inverse_square_root(0, 0.0, 0.03), 15, 1.0, 100, 0.5),
        (noam(16, 4, 0.0), 0, 1.0, 100, 0.25 / 8),  # counted from 1: 16^-0.5 * 1 * 4^-1.5
        (noam(16, 4, 0.0), 4, 1.0, 100, 0.25 / 2),
        (noam(16, 4, 0.0), 25, 1.0, 100, 0.25 / 5),
        (noam(16, 4, 0.1), 25, 1.0, 100, 0.1),
        (warmup_annealing(10, 0.0), 55, 1.0, 100, 0.5),
        (warmup_annealing(10, 0.5), 100, 1.0, 100, 0.5),
        (warmup_anneal_hold(10, 0.2, 0, 0.1), 0, 1.0, 110, 0.2),
        (warmup_anneal_hold(10, 0.2, 0, 0.1), 5, 1.0, 110, 0.6),
        (warmup_anneal_hold(10, 0.2, 0, 0.1), 60, 1.0, 110, 0.5),
        (warmup_anneal_hold(10, 0.2, 0, 0.1), 105, 1.0, 110, 0.1),  # a tenth of the top from 90 % of the fall on
        (warmup_anneal_hold(10, 0.2, 20, 0.1), 30, 1.0, 110, 1.0),
        (warmup_anneal_hold(10, 0.2, 20, 0.1), 70, 1.0, 110, 0.5),
        (warmup_anneal_hold(10, 0.2, 0, 0.1), 11, 1.0, 10, 0.1),  # a run that ends in its warm-up
        (constant(), 0, 0.3, 100, 0.3),
        (constant(3), 1, 1.0, 100, 0.5),
    ],
)
def test_rate_at_step(schedule, step, base_lr, max_steps, rate):
    assert schedule(step, base_lr=base_lr, max_steps=max_steps) == pytest.approx(rate, rel=1e-12)


def test_a_floor_above_the_rate_is_refused():
    with pytest.raises(ConfigError, match="min_lr"):
        cosine(0, 0, 1.0)(0, base_lr=0.1, max_steps=10)


@pytest.mark.parametrize(
    "make",
    [
        lambda: noam(0),
        lambda: noam(8, 0),
        lambda: cosine(-1),
        lambda: cosine(min_lr=math.nan),
        lambda: warmup_anneal_hold(anneal_percentage=1.0),
    ],
)
def test_impossible_settings_are_refused(make):
    with pytest.raises(ConfigError):
        make()
