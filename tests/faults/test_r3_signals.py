"""R3: SIGTERM, SIGINT and SIGUSR1 save and leave with status 75; the run goes on as if nothing had been."""

import signal
import time
from pathlib import Path

import pytest
from matrix import row
from runs import Home, assert_same_metrics

pytestmark = pytest.mark.faults

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)


def test_r3_told_to_stop(home: Home, reference: Path) -> None:
    matrix = row("R3", quick=3, subset=6, full=20)
    for case in range(matrix.n):
        draw, number = matrix.draw(case), SIGNALS[case % 3]
        with matrix.case(f"{number.name}, case {case}"):
            name = f"name=told-{case}"
            run = home.start(name, f"batch.num_workers={case % 2}")
            target = draw.randrange(1, 36)
            assert run.wait_for(lambda run, target=target: run.last_step() >= target)
            time.sleep(draw.random() * 0.03)
            seen = run.last_step()
            run.signal(number)
            if case % 2:  # a second signal does no harm
                time.sleep(0.002)
                run.signal(SIGNALS[(case + 1) % 3])
            assert run.wait() == 75, run.output()
            saved = run.checkpoints[-1]
            assert saved >= seen, f"step {seen} was done, and {saved} is the last that was saved"
            assert run.last_step() == saved, "nothing may be done after the save"
            assert_same_metrics(home.finish(name, "resume=last").folder, reference)
    matrix.check()


@pytest.mark.parametrize(("ignored", "status"), [((signal.SIGHUP,), 0), ((), 75)], ids=["nohup", "terminal"])
def test_r3_the_end_of_the_terminal_ends_no_run_of_nohup(home: Home, ignored: tuple[int, ...], status: int) -> None:
    run = home.start(f"name=hangup-{status}", "trainer.max_steps=20", ignored=ignored)
    assert run.wait_for(lambda run: run.last_step() >= 1)
    run.signal(signal.SIGHUP)
    assert run.wait() == status, run.output()
