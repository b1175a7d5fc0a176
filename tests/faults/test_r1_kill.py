"""R1: a run killed with -9 at random moments goes on to the same losses, bit for bit, with dropout on."""

import time
from pathlib import Path

import pytest
from matrix import row
from runs import Home, assert_same_metrics

pytestmark = pytest.mark.faults

KILLS = 5


def test_r1_killed_runs_end_like_the_undisturbed_one(home: Home, reference: Path) -> None:
    matrix = row("R1", quick=1, subset=3, full=20)
    for case in range(matrix.n):
        draw, workers = matrix.draw(case), (case + 1) % 3
        with matrix.case(f"run {case}, {workers} loader workers"):
            arguments = (f"name=killed-{case}", f"batch.num_workers={workers}")
            targets = sorted(draw.sample(range(1, 40), KILLS))
            resumed_from_a_checkpoint = 0
            for target in targets:
                run = home.start(*arguments, "resume=auto")
                run.wait_for(lambda run, target=target: run.last_step() >= target)
                time.sleep(draw.random() * 0.05)
                run.kill()
                resumed_from_a_checkpoint += bool(run.checkpoints)
            last = home.finish(*arguments, "resume=auto")
            assert resumed_from_a_checkpoint >= KILLS - 2, "the kills came too early to mean anything"
            assert_same_metrics(last.folder, reference)
    matrix.check()
