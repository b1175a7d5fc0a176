"""The course of a run's learning rate, for people: where it starts, peaks and ends, and which phases do not fit."""

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass

from bionemo_core.plugins.configure import FITS_RUN

_GRID = 1000
"""Steps that are looked at first; the peak is then found exactly between its neighbours."""

LearningRate = Callable[[int], float]


@dataclass(frozen=True)
class RateCourse:
    """The learning rate at the first step, at its highest and at the last step; steps are counted from 1."""

    first: float
    peak: float
    peak_step: int
    last: float
    max_steps: int
    flat_from: int
    """The first step from which the rate stays as it is at the last step."""

    @classmethod
    def of(cls, learning_rate: LearningRate, max_steps: int) -> "RateCourse":
        """Return the course of the rate over a run of `max_steps`."""
        end = max_steps - 1
        stride = max(1, end // _GRID)
        coarse = max([*range(0, end, stride), end], key=learning_rate)  # the first of equals
        peak = max(range(max(0, coarse - stride), min(end, coarse + stride) + 1), key=learning_rate)
        last = learning_rate(end)
        return cls(learning_rate(0), learning_rate(peak), peak + 1, last, max_steps, _flat_from(learning_rate, end) + 1)

    @property
    def text(self) -> str:
        """The course as one phrase."""
        if self.peak == self.first == self.last and self.flat_from == 1:
            return f"{self.first:.2e} at every step"
        peak = f"highest {self.peak:.2e} at step {self.peak_step:,}, "
        start = f"{self.first:.2e} at step 1, "
        return f"{start}{peak if 1 < self.peak_step < self.max_steps else ''}{self.last:.2e} at the end"


def describe_misfit(schedule: object, course: RateCourse) -> str:
    """Describe the effect of phases that leave no room for the rest of the schedule; empty if all fit."""
    phases = _phases(schedule)
    if sum(phases.values()) <= course.max_steps or course.max_steps == 1:
        return ""
    too_long = [{name: steps} for name, steps in phases.items() if steps > course.max_steps]
    phases = too_long[0] if too_long else phases
    named = " and ".join(f"scheduler.{name}={steps}" for name, steps in phases.items())
    verb = "are" if len(phases) > 1 else "is"
    if course.peak_step == course.max_steps > 1 and course.last > course.first:
        effect = f"only rises, to {course.last:.1e} at the end"
    elif course.last < course.peak:
        effect = f"falls from {course.peak:.1e} at step {course.peak_step:,} to {course.last:.1e} from step "
        effect += f"{course.flat_from:,} on"
    else:
        effect = f"does not fall; it is {course.last:.1e} at the end"
    return f"{named} {verb} more than the {course.max_steps:,} steps of this run: the learning rate {effect}."


def describe_jump(before: LearningRate, now: LearningRate, step: int, max_steps_before: int, max_steps: int) -> str:
    """Describe how the rate jumps if a run continues after `step` with another schedule; empty if it does not.

    Args:
        before: the rates of the session that ended.
        now: the rates of the session that starts.
        step: the optimizer steps done; at least 1.
        max_steps_before: the length of the run in the session that ended.
        max_steps: the length of the run now.
    """
    last, following = before(step - 1), now(step)
    expected = before(step) if step < max_steps_before else last
    if step >= max_steps or math.isclose(following, expected, rel_tol=0.01):
        return ""
    said = f"{last:.2e} at step {step:,}, {following:.2e} at step {step + 1:,}"
    if max_steps != max_steps_before:
        said += f": the schedule ended at step {max_steps_before:,} and now ends at step {max_steps:,}"
    if following > expected:
        said += f". The rate rises; to continue at {last:.2e}, add scheduler=constant optim.lr={last:.3g}"
    return said + "."


def _phases(schedule: object) -> dict[str, int]:
    """Return the phases of a schedule that have a length of their own, in steps."""
    if not dataclasses.is_dataclass(schedule):
        return {}
    marked = [one.name for one in dataclasses.fields(schedule) if one.metadata.get(FITS_RUN)]
    if getattr(schedule, "warmup_ratio", None) is not None:  # it takes the place of warmup_steps
        marked = [name for name in marked if name != "warmup_steps"]
    return {name: steps for name in marked if (steps := getattr(schedule, name))}


def _flat_from(learning_rate: LearningRate, end: int) -> int:
    """Return the first step of the constant part at the end, by bisection: the part has no gaps."""
    low, high, last = 0, end, learning_rate(end)
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if learning_rate(middle) == last else (middle + 1, high)
    return low
