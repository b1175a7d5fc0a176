"""Learning-rate schedules as plain functions of the step, under v1's names, without torch.

The formulae are those of NeMo's schedulers of the same names (Apache-2.0, `nemo/core/optim/lr_scheduler.py`); only the
facts are taken from there. `step` is the number of optimizer steps done before this one, so it starts at 0. The fields
of a class are the keys of its component; they are checked when it is built. Nothing here imports torch.

No `from __future__ import annotations` here: the configuration reads these annotations at run time.
"""

import math
from dataclasses import dataclass
from typing import Annotated, Optional

from bionemo_core.errors import ConfigError
from bionemo_core.plugins.configure import fits_run, unfitted
from bionemo_core.ranges import Count, Natural, NotNegative, Range, check_fields

Part = Annotated[float, Range(least=0, below=1)]


@dataclass(frozen=True)
class Constant:
    """A constant rate after an optional linear warm-up; v1's runs without `sched`."""

    warmup_steps: Natural = 0  # steps of the linear warm-up

    def __post_init__(self) -> None:
        check_fields(self, "scheduler.")

    def __call__(self, step: int, *, base_lr: float, max_steps: int) -> float:
        """Return the learning rate of `step`; see `protocols.Schedule`."""
        return _warmed_up(step, self.warmup_steps, base_lr) if step <= self.warmup_steps else base_lr


@dataclass(frozen=True)
class Cosine:
    """Linear warm-up, half a cosine down to `min_lr`, then `min_lr` for `constant_steps`; v1's `CosineAnnealing`.

    A run that is shorter than warm-up and constant steps together has no cosine part.
    """

    warmup_steps: Natural = fits_run(500)  # steps of the linear warm-up; the default is at most a tenth of the run
    constant_steps: Natural = fits_run(50000)  # last steps of the run, at min_lr; the default is at most a tenth of it
    min_lr: NotNegative = 2e-5  # the rate at the end of the cosine

    def __post_init__(self) -> None:
        check_fields(self, "scheduler.")

    def __call__(self, step: int, *, base_lr: float, max_steps: int) -> float:
        """Return the learning rate of `step`; see `protocols.Schedule`.

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
    """Linear warm-up, then `lr * sqrt((warmup + 1) / (step + 1))`; v1's `InverseSquareRootAnnealing`."""

    warmup_steps: Natural = fits_run(500)  # steps of the linear warm-up; the default is at most a tenth of the run
    min_lr: NotNegative = 0.0  # the rate never falls below this value
    warmup_ratio: Optional[Part] = None  # the warm-up as a share of max_steps; overrides warmup_steps

    def __post_init__(self) -> None:
        check_fields(self, "scheduler.")

    def __call__(self, step: int, *, base_lr: float, max_steps: int) -> float:
        """Return the learning rate of `step`; see `protocols.Schedule`."""
        warmup = _warmup_of(self.warmup_steps, self.warmup_ratio, max_steps)
        if warmup > 0 and step <= warmup:
            return _warmed_up(step, warmup, base_lr)
        if step > max_steps:
            return self.min_lr
        return max(base_lr * math.sqrt((warmup + 1) / (step + 1)), self.min_lr)


@dataclass(frozen=True)
class Noam:
    """`lr * d_model^-0.5 * min(step^-0.5, step * warmup^-1.5)` (Vaswani et al. 2017, section 5.3); `NoamAnnealing`.

    The optimizer's rate is a scale here (v1 used 1.0), not the highest rate. `min_lr` applies after the warm-up. The
    formula's highest rate follows from the warm-up, so a warm-up shortened to fit the run would raise it: `peak_steps`
    keeps the rate of the recipe's own warm-up.
    """

    d_model: Count  # the hidden size of the model
    warmup_steps: Count = fits_run(8000)  # steps of the warm-up; the default is at most a tenth of the run
    min_lr: NotNegative = 1e-5  # after the warm-up the rate never falls below this value
    peak_steps: Optional[Count] = unfitted("warmup_steps")  # warm-up that sets the top rate; null: warmup_steps

    def __post_init__(self) -> None:
        check_fields(self, "scheduler.")

    def __call__(self, step: int, *, base_lr: float, max_steps: int) -> float:
        """Return the learning rate of `step`; see `protocols.Schedule`."""
        counted = max(step, 1)
        if counted > max_steps:
            return self.min_lr
        rate: float = base_lr * self.d_model**-0.5 * min(counted**-0.5, counted * self.warmup_steps**-1.5)
        rate *= math.sqrt(self.warmup_steps / (self.peak_steps or self.warmup_steps))
        return max(rate, self.min_lr) if counted > self.warmup_steps else rate


@dataclass(frozen=True)
class WarmupAnnealing:
    """Linear warm-up, then linear decay to `min_lr` at the last step; v1's `WarmupAnnealing`."""

    warmup_steps: Natural = fits_run(500)  # steps of the linear warm-up; the default is at most a tenth of the run
    min_lr: NotNegative = 1e-5  # the rate at the last step
    warmup_ratio: Optional[Part] = None  # the warm-up as a share of max_steps; overrides warmup_steps

    def __post_init__(self) -> None:
        check_fields(self, "scheduler.")

    def __call__(self, step: int, *, base_lr: float, max_steps: int) -> float:
        """Return the learning rate of `step`; see `protocols.Schedule`.

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
    """Linear warm-up from `min_lr`, hold at the top, linear decay, hold at a share of the top.

    The decay aims at 0 at the end of the run and stops at `anneal_percentage` of the top rate. With `hold_steps=0` and
    `anneal_percentage=0.10` this is ESM-2's schedule: 2,000 steps up, then down to a tenth over 90 % of the rest (Lin
    et al. 2023, supplementary; formula as in the public successor of v1). v1 called it `WarmupAnnealDecayHold`, and
    `LinearWarmupHoldDecayPolicy` with `hold_steps`.
    """

    warmup_steps: Natural = fits_run(2000)  # steps of the linear warm-up; the default is at most a tenth of the run
    min_lr: NotNegative = 4e-5  # the rate at the first step
    hold_steps: Natural = fits_run(0)  # steps at the top rate
    anneal_percentage: Part = 0.10  # the share of the top rate at which the decay stops

    def __post_init__(self) -> None:
        check_fields(self, "scheduler.")

    def __call__(self, step: int, *, base_lr: float, max_steps: int) -> float:
        """Return the learning rate of `step`; see `protocols.Schedule`.

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
            f"{name}: scheduler.min_lr={min_lr} is above optim.lr={base_lr}. Lower scheduler.min_lr or raise optim.lr."
        )
