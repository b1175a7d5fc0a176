"""Learning rates at hand-computed steps; the formulae are NeMo's of the same names."""

import math

import pytest

from bionemo_core.errors import ConfigError
from bionemo_core.training.schedules import (
    Constant,
    Cosine,
    InverseSquareRoot,
    Noam,
    WarmupAnnealHold,
    WarmupAnnealing,
)


@pytest.mark.parametrize(
    ("schedule", "step", "base_lr", "max_steps", "rate"),
    [
        (Cosine(9, 10, 0.1), 0, 1.0, 120, 0.1),  # 1 / 10
        (Cosine(9, 10, 0.1), 9, 1.0, 120, 1.0),
        (Cosine(10, 10, 0.2), 60, 1.0, 120, 0.6),  # half of 100 decay steps: 0.2 + 0.8 / 2
        (Cosine(10, 10, 0.2), 110, 1.0, 120, 0.2),
        (Cosine(10, 10, 0.2), 119, 1.0, 120, 0.2),
        (Cosine(10, 0, 0.0), 85, 1.0, 110, 0.5 * (1 + math.cos(0.75 * math.pi))),
        (Cosine(500, 50000, 2e-5), 100, 2e-4, 1000, 2e-4 * 101 / 501),  # a short run ends in its warm-up
        (Cosine(500, 50000, 2e-5), 501, 2e-4, 1000, 2e-5),
        (InverseSquareRoot(3), 1, 1.0, 100, 0.5),
        (InverseSquareRoot(3), 15, 1.0, 100, 0.5),  # sqrt(4 / 16)
        (InverseSquareRoot(3, 0.6), 15, 1.0, 100, 0.6),
        (InverseSquareRoot(0, 0.0, 0.03), 15, 1.0, 100, 0.5),
        (Noam(16, 4, 0.0), 0, 1.0, 100, 0.25 / 8),  # counted from 1: 16^-0.5 * 1 * 4^-1.5
        (Noam(16, 4, 0.0), 4, 1.0, 100, 0.25 / 2),
        (Noam(16, 4, 0.0), 25, 1.0, 100, 0.25 / 5),
        (Noam(16, 4, 0.1), 25, 1.0, 100, 0.1),
        (WarmupAnnealing(10, 0.0), 55, 1.0, 100, 0.5),
        (WarmupAnnealing(10, 0.5), 100, 1.0, 100, 0.5),
        (WarmupAnnealHold(10, 0.2, 0, 0.1), 0, 1.0, 110, 0.2),
        (WarmupAnnealHold(10, 0.2, 0, 0.1), 5, 1.0, 110, 0.6),
        (WarmupAnnealHold(10, 0.2, 0, 0.1), 60, 1.0, 110, 0.5),
        (WarmupAnnealHold(10, 0.2, 0, 0.1), 105, 1.0, 110, 0.1),  # a tenth of the top from 90 % of the fall on
        (WarmupAnnealHold(10, 0.2, 20, 0.1), 30, 1.0, 110, 1.0),
        (WarmupAnnealHold(10, 0.2, 20, 0.1), 70, 1.0, 110, 0.5),
        (WarmupAnnealHold(10, 0.2, 0, 0.1), 11, 1.0, 10, 0.1),  # a run that ends in its warm-up
        (Constant(), 0, 0.3, 100, 0.3),
        (Constant(3), 1, 1.0, 100, 0.5),
    ],
)
def test_rate_at_step(schedule, step, base_lr, max_steps, rate):
    assert schedule(step, base_lr=base_lr, max_steps=max_steps) == pytest.approx(rate, rel=1e-12)


def test_a_floor_above_the_rate_is_refused():
    with pytest.raises(ConfigError, match="min_lr"):
        Cosine(0, 0, 1.0)(0, base_lr=0.1, max_steps=10)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Noam(0),
        lambda: Noam(8, 0),
        lambda: Cosine(-1),
        lambda: Cosine(min_lr=math.nan),
        lambda: WarmupAnnealHold(anneal_percentage=1.0),
    ],
)
def test_impossible_settings_are_refused(make):
    with pytest.raises(ConfigError):
        make()
