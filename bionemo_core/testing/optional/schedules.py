"""Checks of a learning-rate schedule: a pure function of the step, with a rate for every step of any run."""

import math
from typing import Any

from bionemo_core.errors import ConfigError
from bionemo_core.plugins import RegisteredComponent
from bionemo_core.plurals import format_count
from bionemo_core.protocols import Schedule
from bionemo_core.testing.subject import Subject, fail, failure_of

BASE_LR = 1e-2
RUN_LENGTHS = (1, 2, 100, 5000)


def check_schedule(subject: Subject, registered: RegisteredComponent) -> None:
    """Check that a schedule has a rate for each step, whatever was asked before.

    Raises:
        ConformanceError: it does not; the message names the step.
    """
    where = f"scheduler {registered.name!r}"
    schedule = subject.build(registered)
    if not isinstance(schedule, Schedule):
        fail(
            f"{where}: its factory returns {type(schedule).__name__}, expected a function "
            "schedule(step, *, base_lr, max_steps) that returns the rate, as bionemo_core.protocols.Schedule says."
        )
    for max_steps in RUN_LENGTHS:
        rates = _rates(where, schedule, max_steps)
        for step, rate in rates.items():
            if not (isinstance(rate, float) and math.isfinite(rate) and rate >= 0):
                fail(f"{where}: step {step} of {max_steps} has the rate {rate!r}, expected a float of 0 or more.")
        if not any(rates.values()):
            fail(f"{where}: each step of a run of {max_steps} has the rate 0, so nothing would be learned.")
        backwards = _rates(where, subject.build(registered), max_steps, backwards=True)
        for step, rate in rates.items():
            if backwards[step] != rate:
                fail(
                    f"{where}: step {step} of {max_steps} has the rate {rate} or {backwards[step]}, depending on which "
                    "steps were asked before, so a resumed run would be another one. Compute the rate from `step`, and "
                    "keep nothing between calls."
                )


def _rates(where: str, schedule: Any, max_steps: int, *, backwards: bool = False) -> dict[int, float]:
    """Return the rate of each step; the step after the last one is asked as well, as a run that goes on does."""
    steps = range(max_steps + 1)
    run = f"a run of {format_count(max_steps, 'step')} with optim.lr={BASE_LR}"
    try:
        return {
            step: schedule(step, base_lr=BASE_LR, max_steps=max_steps) for step in (steps[::-1] if backwards else steps)
        }
    except ConfigError as error:
        key = f"scheduler/{where.split(chr(39))[1]}"
        fail(
            f"{where}: it refuses {run}: {error} Give values that fit as "
            f"`parameters = {{{key!r}: {{...}}}}` in the test class."
        )
    except Exception as error:
        raise failure_of(f"{where}: {run}", error) from error
