"""R4: when one of two ranks is killed, the other leaves within a minute, and the run can go on."""

import os
import signal
import time
from pathlib import Path

import pytest
from runs import Home, Run, read_metrics

pytestmark = pytest.mark.faults


def children(pid: int) -> list[int]:
    """The process ids of the direct children."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == pid:
            found.append(int(stat.parent.name))
    return found


def second_rank(run: Run) -> int:
    ranks = [pid for pid in children(run.pid) if b"bionemo-run" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    assert len(ranks) == 1, ranks
    return ranks[0]


def test_r4_a_killed_rank(home: Home) -> None:
    arguments = ("name=lost-rank", "trainer.devices=2", "trainer.val_check_interval=200", "scheduler=constant")
    run = home.start(*arguments, "trainer.max_steps=200")
    assert run.wait_for(lambda run: run.last_step() >= 12, timeout_s=120)
    os.kill(second_rank(run), signal.SIGKILL)
    killed = time.monotonic()
    status = run.wait(timeout_s=60)
    assert status not in (None, 0), f"still there after a minute, or a success: {status}\n{run.output()}"
    assert time.monotonic() - killed < 60
    before = read_metrics(run.folder)
    resumed = home.finish(*arguments, "resume=last", "trainer.max_steps=20")
    after = read_metrics(resumed.folder)
    different = {step: (before[step], after[step]) for step in before if after.get(step, before[step]) != before[step]}
    assert not different
    assert max(after) == 20
