"""W1: a killed loader worker, memory, descriptors: classified with advice, and the run goes on to the same losses."""

import os
import re
import resource
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from matrix import row
from runs import Home, Run, assert_same_metrics

pytestmark = pytest.mark.faults


def loader_workers(run: Run) -> list[int]:
    """The children of a run, which runs on one rank."""
    return [int(pid) for pid in Path(f"/proc/{run.pid}/task/{run.pid}/children").read_text().split()]


def kill_worker(number: signal.Signals) -> Callable[[Run], str]:
    def kill(run: Run) -> str:
        worker = loader_workers(run)[-1]
        os.kill(worker, number)
        return str(worker)

    return kill


def take_descriptors(run: Run) -> str:
    resource.prlimit(run.pid, resource.RLIMIT_NOFILE, (3, 3))
    return "ulimit -n"


FAULTS = (kill_worker(signal.SIGKILL), take_descriptors, kill_worker(signal.SIGBUS), kill_worker(signal.SIGSEGV))
STATUS = 9
"""The status of each: the same at a read, at a write and in between."""


def test_w1_a_machine_that_runs_out(home: Home, reference: Path) -> None:
    matrix = row("W1", subset=2, full=10)
    for number in range(matrix.n):
        fault = FAULTS[number % len(FAULTS)]
        draw = matrix.draw(number)
        with matrix.case(f"{number}: {getattr(fault, '__name__', fault)}"):
            name = f"name=exhausted-{number}"
            run = home.start(name, "batch.num_workers=2")
            target = draw.randrange(6, 24)
            assert run.wait_for(lambda run, target=target: run.last_step() >= target)
            time.sleep(draw.random() * 0.02)
            named = fault(run)
            got = run.wait()
            assert got == STATUS, f"exit status {got}\n{run.output()}"
            assert named in run.output()
            assert "resume=last" in run.output()
            assert "error[bug]" not in run.output()
            # A worker of the validation may be the one that is killed: its step is saved, its loss is lost.
            failed = re.search(r"The validation after step (\d+) failed", run.output())
            lost = int(failed[1]) if failed else None
            assert_same_metrics(home.finish(name, "resume=last").folder, reference, failed_validation=lost)
    matrix.check()


def test_w1_before_the_first_checkpoint(home: Home, reference: Path) -> None:
    for attempt in range(3):
        options = (f"name=early-{attempt}", "batch.num_workers=2", "checkpoint.every_n_steps=1000")
        run = home.start(*options)
        assert run.wait_for(lambda run: run.last_step() >= 3)
        kill_worker(signal.SIGKILL)(run)
        assert run.wait() == STATUS, run.output()
        if run.checkpoints:
            break
        # The news of the death came in the middle of an update, whose half-changed weights are not saved.
        assert "nothing to resume from" in run.output()
    (saved,) = run.checkpoints
    assert f"the checkpoint of step {saved} is in" in run.output()
    failed = saved if "The validation after" in run.output() else None
    assert_same_metrics(home.finish(*options, "resume=last").folder, reference, failed_validation=failed)


def test_w1_a_model_that_does_not_fit_into_memory(home: Home) -> None:
    run = home.start("name=too-large", "model.hidden_size=8192", "model.num_attention_heads=16")
    status = Path(f"/proc/{run.pid}/status").read_text()
    has = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmSize")) * 1024
    resource.prlimit(run.pid, resource.RLIMIT_AS, (has + 2**30, has + 2**30))
    assert run.wait() == STATUS, run.output()
    assert "memory of this machine is used up" in run.output()
    assert "error[bug]" not in run.output()
