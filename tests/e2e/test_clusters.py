"""The job files of `examples/clusters`, executed on this machine: SLURM's commands are stubs, torchrun is torchrun."""

import contextlib
import csv
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from runs import TINY

CLUSTERS = Path(__file__).parents[2] / "examples/clusters"
SETTINGS = (*(one for one in TINY if not one.startswith("scheduler.")), "scheduler=constant")
SRUN = """\
#!{python}
# Starts the processes of a job step, passes SIGUSR1 on to them, and leaves with the highest of their statuses.
import os, signal, subprocess, sys
count = int(os.environ["SLURM_NTASKS"])
ranks = [
    subprocess.Popen(sys.argv[1:], env={{**os.environ, "SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank)}})
    for rank in range(count)
]
signal.signal(signal.SIGUSR1, lambda number, frame: [rank.send_signal(number) for rank in ranks])
sys.exit(max(rank.wait() for rank in ranks))
"""
SCONTROL = '#!/bin/sh\necho "$@" >> "$BIONEMO_HOME/scontrol.log"\n'
JOB = {
    **{"SLURM_JOB_ID": "41", "SLURM_STEP_ID": "0", "SLURM_JOB_NAME": "pretrain", "SLURM_NNODES": "1"},
    **{"SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "2", "SLURM_NODEID": "0", "SLURM_NODELIST": "127.0.0.1"},
}

Start = Callable[..., subprocess.Popen[str]]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def executable(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """A home, and SLURM's commands beside those of this Python."""
    stubs = tmp_path / "bin"
    stubs.mkdir()
    executable(stubs / "srun", SRUN.format(python=sys.executable))
    executable(stubs / "scontrol", SCONTROL)
    path = os.pathsep.join([str(stubs), str(Path(sys.executable).parent), os.environ["PATH"]])
    return {**os.environ, "PATH": path, "BIONEMO_HOME": str(tmp_path)}


def steps(home: Path) -> list[int]:
    """The steps that were logged, of the only run."""
    found = list(home.glob("runs/pretrain/*/metrics.csv"))
    assert len(found) <= 1, found
    if not found:
        return []
    with found[0].open() as file:
        return [int(line["step"]) for line in csv.DictReader(file) if line["reduced_train_loss"]]


def wait_for(condition: Callable[[], bool], *processes: subprocess.Popen[str]) -> None:
    end = time.monotonic() + 240
    while not condition():
        assert time.monotonic() < end, "nothing happened for four minutes"
        assert all(process.poll() is None for process in processes), [process.communicate() for process in processes]
        time.sleep(0.1)


def children(pid: int) -> list[int]:
    """The children of a process, and theirs."""
    found = subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True, check=False).stdout.split()
    return [one for child in map(int, found) for one in (child, *children(child))]


def kill(job: subprocess.Popen[str]) -> None:
    for pid in (job.pid, *children(job.pid)):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts a job file with settings; what is left of it at the end of the test is killed."""
    started: list[subprocess.Popen[str]] = []

    def begin(script: str, environment: dict[str, str], *settings: str) -> subprocess.Popen[str]:
        typed = {setting.partition("=")[0]: setting for setting in (*SETTINGS, *settings)}
        job = subprocess.Popen(
            ["bash", str(CLUSTERS / script), *typed.values()],
            env=environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        started.append(job)
        return job

    yield begin
    for job in started:
        kill(job)


def test_a_slurm_job_is_requeued_when_its_time_is_up_and_goes_on(
    start: Start, environment: dict[str, str], tmp_path: Path
) -> None:
    long = ("trainer.max_steps=100000", "trainer.val_check_interval=100000")
    first = start("train.sbatch", {**environment, **JOB}, *long)
    wait_for(lambda: len(steps(tmp_path)) > 2, first)
    os.kill(children(first.pid)[0], signal.SIGUSR1)
    printed, _ = first.communicate(timeout=280)
    assert first.returncode == 75, printed
    assert (tmp_path / "scontrol.log").read_text() == "requeue 41\n"
    done = steps(tmp_path)
    again = {**environment, **JOB, "SLURM_RESTART_COUNT": "1"}
    second = start("train.sbatch", again, f"trainer.max_steps={done[-1] + 4}", "trainer.val_check_interval=1000")
    printed, _ = second.communicate(timeout=280)
    assert second.returncode == 0, printed
    assert steps(tmp_path) == list(range(1, done[-1] + 5))
    assert (tmp_path / "scontrol.log").read_text() == "requeue 41\n", "a finished job was requeued"


def test_two_torchrun_nodes_one_is_killed_and_one_node_goes_on(
    start: Start, environment: dict[str, str], tmp_path: Path
) -> None:
    pair = {**environment, "NODES": "2", "GPUS": "1", "FIRST": "127.0.0.1:29617", "RUN": "pretrain"}
    saved = ("checkpoint.every_n_steps=2", "trainer.max_steps=100000", "trainer.val_check_interval=100000")
    nodes = [start("torchrun.sh", pair, *saved) for _ in range(2)]
    wait_for(lambda: len(steps(tmp_path)) > 4, *nodes)
    kill(nodes[1])
    nodes[0].communicate(timeout=280)
    assert nodes[0].returncode != 0
    done = steps(tmp_path)
    one = {**pair, "NODES": "1", "FIRST": "127.0.0.1:29618"}
    last = start("torchrun.sh", one, *saved[:1], f"trainer.max_steps={done[-1] + 4}", "trainer.val_check_interval=1000")
    printed, _ = last.communicate(timeout=280)
    assert last.returncode == 0, printed
    assert steps(tmp_path) == list(range(1, done[-1] + 5))
