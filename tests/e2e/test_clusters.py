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
count, words = int(os.environ["SLURM_NTASKS"]), sys.argv[1:]
while words[0].startswith("-"):
    words = words[2 if words[0] in ("--output", "--error") else 1:]
ranks = [
    subprocess.Popen(words, env={{**os.environ, "SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank)}})
    for rank in range(count)
]
signal.signal(signal.SIGUSR1, lambda number, frame: [rank.send_signal(number) for rank in ranks])
sys.exit(max(rank.wait() for rank in ranks))
"""
SBATCH = """\
#!{python}
# Starts the jobs of an array, and again those that are put back into the queue; says their number, as SLURM does.
import os, re, subprocess, sys
def option(name): return re.search(f"^#SBATCH --{{name}}=(.+)", open(sys.argv[-1]).read(), re.MULTILINE)[1]
home, tasks = os.environ["BIONEMO_HOME"], option("ntasks-per-node")
os.environ |= {{**{job}, "SLURM_NTASKS": tasks, "SLURM_NTASKS_PER_NODE": tasks, "SLURM_ARRAY_JOB_ID": "50"}}
for task in range(int(option("array").partition("%")[0].partition("-")[2]) + 1):
    runner = os.fork()
    if runner:
        print(f"50_{{task}} {{runner}}", file=open(f"{{home}}/jobs", "a"))
        continue
    log = os.open(f"{{home}}/job{{task}}.log", os.O_WRONLY | os.O_CREAT)
    os.dup2(log, 1), os.dup2(log, 2)
    os.environ |= {{"SLURM_JOB_ID": f"5{{task}}", "SLURM_ARRAY_TASK_ID": str(task)}}
    queue, starts = f"{{home}}/scontrol.log", 0
    while starts == 0 or os.path.exists(queue) and open(queue).read().count(f"requeue 50_{{task}}") == starts:
        subprocess.run(["bash", sys.argv[-1]])
        starts += 1
    os._exit(0)
print("Submitted batch job 50")
"""
SACCT = """\
#!{python}
import os
from pathlib import Path
print("JobID|State|NodeList")
for line in Path(os.environ["BIONEMO_HOME"], "jobs").read_text().splitlines():
    job, pid = line.split()
    stat = Path(f"/proc/{{pid}}/stat")
    runs = stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z"
    print(f"{{job}}|{{'RUNNING' if runs else 'COMPLETED'}}|127.0.0.1")
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
    executable(stubs / "sbatch", SBATCH.format(python=sys.executable, job=JOB))
    executable(stubs / "sacct", SACCT.format(python=sys.executable))
    path = os.pathsep.join([str(stubs), str(Path(sys.executable).parent), os.environ["PATH"]])
    return {**os.environ, "PATH": path, "BIONEMO_HOME": str(tmp_path)}


def steps(home: Path, name: str = "pretrain") -> list[int]:
    """The steps that were logged, of the only run."""
    found = list(home.glob(f"runs/{name}/*/metrics.csv"))
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
        job.communicate()


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


def test_a_sweep_of_slurm_jobs_with_two_ranks_goes_on_when_the_time_of_one_is_up(
    environment: dict[str, str], tmp_path: Path
) -> None:
    pytest.importorskip("submitit", reason="the extra submitit is not installed")
    launcher = ("hydra/launcher=submitit_slurm", "hydra.launcher.tasks_per_node=2", "hydra.launcher.max_num_timeout=3")
    own = ("trainer.devices=2", "trainer.max_steps=400", "trainer.val_check_interval=200", "resume=auto")
    typed = {one.partition("=")[0]: one for one in (*SETTINGS, *own, "name=sweep-${hydra:job.num}")}
    sweep = subprocess.Popen(
        ["bionemo-run", "-m", *launcher, *typed.values(), "optim.lr=1e-3,2e-3"],
        **{"env": environment, "cwd": tmp_path, "text": True, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT},
    )
    wait_for(lambda: any(tmp_path.glob("runs/sweep-0/*/checkpoints/step-*")), sweep)
    job = int((tmp_path / "jobs").read_text().split()[1])
    ranks = [pid for pid in children(job) if b"submitit" in Path(f"/proc/{pid}/cmdline").read_bytes()[:200]]
    os.kill(ranks[-2], signal.SIGUSR2)  # of two ranks; SLURM sends it to both, and only the first puts the job back
    printed, _ = sweep.communicate(timeout=280)
    assert sweep.returncode == 0, printed + (tmp_path / "job0.log").read_text()
    assert (tmp_path / "scontrol.log").read_text() == "requeue 50_0\n"
    with next(tmp_path.glob("sweeps/*/results.csv")).open() as file:
        assert [row["status"] for row in csv.DictReader(file)] == ["done", "done"]
    folders = list(tmp_path.glob("runs/sweep-*/*"))
    assert len(folders) == 2, "a job that was put back began a new run"
    assert steps(tmp_path, "sweep-0") == list(range(1, 401))


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
