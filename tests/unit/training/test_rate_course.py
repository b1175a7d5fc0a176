"""What a run says about its learning rate."""

import pytest

from bionemo_core.training.rate_course import RateCourse, describe_jump, describe_misfit
from bionemo_core.training.schedules import Constant, Cosine, InverseSquareRoot, Noam, WarmupAnnealing


def course(schedule, base_lr: float, max_steps: int) -> RateCourse:
    return RateCourse.of(lambda step: schedule(step, base_lr=base_lr, max_steps=max_steps), max_steps)


@pytest.mark.parametrize(
    ("schedule", "max_steps", "text"),
    [
        (Constant(), 100, "1.00e-03 at every step"),
        (Constant(9), 100, "1.00e-04 at step 1, highest 1.00e-03 at step 10, 1.00e-03 at the end"),
        (Cosine(9, 10, 1e-5), 100, "1.00e-04 at step 1, highest 1.00e-03 at step 10, 1.00e-05 at the end"),
        (Cosine(4999, 0, 1e-5), 1_000_000, "2.00e-07 at step 1, highest 1.00e-03 at step 5,000, 1.00e-05 at the end"),
        (Cosine(0, 0, 0.0), 2, "1.00e-03 at step 1, 5.00e-04 at the end"),
        (InverseSquareRoot(199), 100, "5.00e-06 at step 1, 5.00e-04 at the end"),
    ],
)
def test_the_course_names_start_peak_and_end(schedule, max_steps: int, text: str):
    assert course(schedule, 1e-3, max_steps).text == text


@pytest.mark.parametrize(
    ("schedule", "max_steps", "said"),
    [
        (
            Cosine(500, 50000, 2e-5),
            10_000,
            "scheduler.constant_steps=50000 is more than the 10,000 steps of this run: the learning rate falls from "
            "1.0e-03 at step 501 to 2.0e-05 from step 502 on.",
        ),
        (
            Cosine(50, 60, 2e-5),
            100,
            "scheduler.warmup_steps=50 and scheduler.constant_steps=60 are more than the 100 steps of this run: the "
            "learning rate falls from 1.0e-03 at step 51 to 2.0e-05 from step 52 on.",
        ),
        (
            WarmupAnnealing(30),
            20,
            "scheduler.warmup_steps=30 is more than the 20 steps of this run: the learning rate only rises, to "
            "6.5e-04 at the end.",
        ),
        (WarmupAnnealing(20), 20, ""),
        (Cosine(1, 1, 2e-5), 1, ""),  # the shortest phases that a default is cut to
        (Cosine(10, 10), 100, ""),
        (InverseSquareRoot(500, 0.0, 0.01), 100, ""),  # the ratio takes the place of warmup_steps
        (Constant(), 100, ""),
        (lambda step, *, base_lr, max_steps: base_lr, 100, ""),  # a schedule of a plugin, without phases
    ],
)
def test_a_phase_that_leaves_no_room_is_named_with_its_effect(schedule, max_steps: int, said: str):
    assert describe_misfit(schedule, course(schedule, 1e-3, max_steps)) == said


def test_a_longer_run_that_heats_up_again_is_said():
    def rates(max_steps):
        return lambda step: Cosine(10, 10, 2e-5)(step, base_lr=2e-4, max_steps=max_steps)

    said = describe_jump(rates(100), rates(200), 100, 100, 200)
    assert said.startswith("2.00e-05 at step 100, 1.10e-04 at step 101: ")
    assert "the schedule ended at step 100 and now ends at step 200. The rate rises" in said
    assert said.endswith("to continue at 2.00e-05, add scheduler=constant optim.lr=2e-05.")
    assert describe_jump(rates(100), rates(100), 50, 100, 100) == ""  # nothing changed
    assert describe_jump(rates(100), lambda step: 2e-5, 100, 100, 200) == ""  # it goes on where it ended
    assert "rises" not in describe_jump(rates(200), rates(100), 95, 200, 100)


def test_a_shortened_warm_up_of_noam_keeps_the_highest_rate():
    long, short = course(Noam(256), 1.0, 80_000), course(Noam(256, 10, 1e-5, 8000), 1.0, 100)
    assert (long.peak_step, short.peak_step) == (8001, 11)
    assert short.peak == pytest.approx(long.peak, rel=1e-12)
