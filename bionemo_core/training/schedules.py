"""Learning-rate schedules as plain functions of the step, under v1's names, without torch.

The formulae are those of NeMo's schedulers of the same names (Apache-2.0, `nemo/core/optim/lr_scheduler.py`); no code
is taken from there. `step` counts the optimizer steps done before this one, from 0.
"""

import math
from dataclasses import dataclass
from typing import Optional, Protocol

from bionemo_core.errors import ConfigError


class Schedule(Protocol):
    """A function that gives the learning rate of every step."""

    def __call__(self, step: int, *, base_lr: float, max_steps: int) -> float:
        """Return the learning rate of optimizer step `step` in a run of `max_steps` whose optimizer has `base_lr`."""
        ...


@dataclass(frozen=True)
class Constant:
    """The optimizer's own rate in every step, after an optional linear warm-up."""

    warmup_steps: int = 0

    def __call__(self, step: int, *, base_lr: float, max_steps: int) -> float:
        """Return the learning rate of `step`; see `Schedule`."""
        return _warmed_up(step, self.warmup_steps, base_lr) if step <= self.warmup_steps else base_lr


@dataclass(frozen=True)
class Cosine:
    """Linear warm-up, half a cosine down to `min_lr`, then `min_lr` for the last `constant_steps`.

    A run that is shorter than warm-up and constant steps together has no cosine part.
    """

    warmup_steps: int
    constant_steps: int
    min_lr: float

    def __call__(self, step: int, *, base_lr: float, max_steps: int) -> float:
        """Return the learning rate of `step`; see `Schedule`.

        Raises:
            ConfigError: `min_lr` is above `base_lr`.
        """
        _check_floor(self.min_lr, base_lr, "CosineAnnealing")
        if self.warmup_steps > 0 and step <= self.warmup_steps:
            return _warmed_up(step, self.warmup_steps, base_lr)
        decay_steps = max_steps - self.constant_steps - self.warmup_steps
        done = step - self.warmup_steps
        if done >= decay_steps:
            return self.min_lr
        return self.min_lr + (base_lr - self.min_lr) * 0.5 * (1.0 + math.cos(math.pi * done / decay_steps))


@dataclass(frozen=True)
class InverseSquareRoot:
    """Linear warm-up, then `lr * sqrt((warmup + 1) / (step + 1))`."""

    warmup_steps: int
    min_lr: float
    warmup_ratio: Optional[float]

    def __call__(self, step: int, *, base_lr: float, max_steps: int) -> float:
        """Return the learning rate of `step`; see `Schedule`."""
        warmup = _warmup_of(self.warmup_steps, self.warmup_ratio, max_steps)
        if warmup > 0 and step <= warmup:
            return _warmed_up(step, warmup, base_lr)
        if step > max_steps:
            return self.min_lr
        return max(base_lr * math.sqrt((warmup + 1) / (step + 1)), self.min_lr)


@dataclass(frozen=True)
class Noam:
    """`lr * d_model^-0.5 * min(step^-0.5, step * warmup^-1.5)`, from Vaswani et al. 2017, section 5.3.

    The optimizer's rate is a scale here (v1 used 1.0), not the highest rate reached. After warm-up the rate is at least
    `min_lr`.
    """

    d_model: int
    warmup_steps: int
    min_lr: float

    def __call__(self, step: int, *, base_lr: float, max_steps: int) -> float:
        """Return the learning rate of `step`; see `Schedule`."""
        counted = max(step, 1)
        if counted > max_steps:
            return self.min_lr
        rate: float = base_lr * self.d_model**-0.5 * min(counted**-0.5, counted * self.warmup_steps**-1.5)
        return max(rate, self.min_lr) if counted > self.warmup_steps else rate


@dataclass(frozen=True)
class WarmupAnnealing:
    """Linear warm-up, then linear decay to `min_lr` at the last step."""

    warmup_steps: int
    min_lr: float
    warmup_ratio: Optional[float]

    def __call__(self, step: int, *, base_lr: float, max_steps: int) -> float:
        """Return the learning rate of `step`; see `Schedule`.

        Raises:
            ConfigError: `min_lr` is above `base_lr`.
        """
        _check_floor(self.min_lr, base_lr, "WarmupAnnealing")
        warmup = _warmup_of(self.warmup_steps, self.warmup_ratio, max_steps)
        if warmup > 0 and step <= warmup:
            return _warmed_up(step, warmup, base_lr)
        return _linear(step, warmup, max_steps, base_lr, self.min_lr)


@dataclass(frozen=True)
class WarmupAnnealHold:
    """Linear warm-up from `min_lr`, hold at the peak, linear decay, hold at a fraction of the peak.

    The decay is a line to 0 at the end of the run and stops at `anneal_percentage` of the peak. Without a hold at the
    peak and with 0.10 it is ESM-2's schedule: 2,000 steps up, then down to a tenth over 90 % of the rest (Lin et al.
    2023, supplementary; formula as in the public successor of v1). With a hold it is `LinearWarmupHoldDecayPolicy`.
    """

    warmup_steps: int
    min_lr: float
    hold_steps: int
    anneal_percentage: float

    def __call__(self, step: int, *, base_lr: float, max_steps: int) -> float:
        """Return the learning rate of `step`; see `Schedule`.

        Raises:
            ConfigError: `min_lr` is above `base_lr`.
        """
        _check_floor(self.min_lr, base_lr, "WarmupAnnealDecayHold")
        if step < self.warmup_steps:
            return self.min_lr + (base_lr - self.min_lr) * step / self.warmup_steps
        top_ends = self.warmup_steps + self.hold_steps
        if step <= top_ends:
            return base_lr
        return max(_linear(step, top_ends, max_steps, base_lr, 0.0), base_lr * self.anneal_percentage)


def constant(warmup_steps: int = 0):
    """Return a constant rate, as in v1's runs without `sched`."""
    return Constant(_count(warmup_steps, "warmup_steps"))


def cosine(warmup_steps: int = 500, constant_steps: int = 50000, min_lr: float = 2e-5):
    """Return v1's `CosineAnnealing`."""
    return Cosine(_count(warmup_steps, "warmup_steps"), _count(constant_steps, "constant_steps"), _rate(min_lr))


def inverse_square_root(warmup_steps: int = 500, min_lr: float = 0.0, warmup_ratio: Optional[float] = None):
    """Return v1's `InverseSquareRootAnnealing`; `warmup_ratio` gives the warm-up as a share of `max_steps` instead."""
    return InverseSquareRoot(_count(warmup_steps, "warmup_steps"), _rate(min_lr), _share(warmup_ratio, "warmup_ratio"))


def noam(d_model: int, warmup_steps: int = 8000, min_lr: float = 1e-5):
    """Return v1's `NoamAnnealing`; `d_model` is the hidden size of the model.

    Raises:
        ConfigError: `warmup_steps` or `d_model` is 0; the formula divides by both.
    """
    if _count(warmup_steps, "warmup_steps") == 0 or _count(d_model, "d_model") == 0:
        raise ConfigError(
            f"scheduler noam: got d_model={d_model}, warmup_steps={warmup_steps}, expected both above 0. "
            "Set a warm-up, or choose another schedule."
        )
    return Noam(d_model, warmup_steps, _rate(min_lr))


def warmup_annealing(warmup_steps: int = 500, min_lr: float = 1e-5, warmup_ratio: Optional[float] = None):
    """Return v1's `WarmupAnnealing`; `warmup_ratio` gives the warm-up as a share of `max_steps` instead."""
    return WarmupAnnealing(_count(warmup_steps, "warmup_steps"), _rate(min_lr), _share(warmup_ratio, "warmup_ratio"))


def warmup_anneal_hold(
    warmup_steps: int = 2000, min_lr: float = 4e-5, hold_steps: int = 0, anneal_percentage: float = 0.10
):
    """Return v1's `WarmupAnnealDecayHold` and, with `hold_steps`, its `LinearWarmupHoldDecayPolicy`."""
    share = _share(anneal_percentage, "anneal_percentage")
    assert share is not None
    return WarmupAnnealHold(
        _count(warmup_steps, "warmup_steps"), _rate(min_lr), _count(hold_steps, "hold_steps"), share
    )


def _warmed_up(step: int, warmup_steps: int, base_lr: float) -> float:
    return base_lr * (step + 1) / (warmup_steps + 1)


def _linear(step: int, first: int, last: int, high: float, low: float) -> float:
    if step >= last:
        return low
    return high - (high - low) * (step - first) / (last - first)


def _warmup_of(warmup_steps: int, warmup_ratio: Optional[float], max_steps: int) -> int:
    return warmup_steps if warmup_ratio is None else int(warmup_ratio * max_steps)


def _check_floor(min_lr: float, base_lr: float, name: str) -> None:
    if min_lr > base_lr:
        raise ConfigError(
            f"scheduler {name}: min_lr={min_lr} is above optim.lr={base_lr}. Lower scheduler.min_lr or raise optim.lr."
        )


def _count(value: int, name: str) -> int:
    if value < 0:
        raise ConfigError(f"scheduler.{name}: got {value}, expected 0 or more steps")
    return value


def _rate(value: float) -> float:
    if not (math.isfinite(value) and value >= 0):
        raise ConfigError(f"scheduler.min_lr: got {value}, expected a rate of 0 or more")
    return value


def _share(value: Optional[float], name: str) -> Optional[float]:
    if value is not None and not 0 <= value < 1:
        raise ConfigError(f"scheduler.{name}: got {value}, expected a number from 0 to below 1")
    return value
