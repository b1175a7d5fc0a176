"""L1: whatever starts a run, and however its ids repeat, no new run enters the folder of another."""

import json
import socket
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from matrix import row
from runs import Home, Run

pytestmark = pytest.mark.faults

SHORT = ("trainer.max_steps=4", "trainer.val_check_interval=4", "checkpoint.every_n_steps=2", "scheduler=constant")


def free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


def torchrun(home: Home, name: str, *arguments: str, ranks: int = 2, **variables: str) -> list[Run]:
    """The processes that `torchrun` starts; without an id of the user, its id is the word none."""
    shared = {"TORCHELASTIC_RUN_ID": "none", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port(), **variables}
    return [
        home.start(
            f"name={name}",
            "trainer.devices=2",
            *SHORT,
            *arguments,
            **shared,
            WORLD_SIZE=str(ranks),
            RANK=str(rank),
            LOCAL_RANK=str(rank),
            GROUP_RANK="0",
        )
        for rank in range(ranks)
    ]


def srun(home: Home, name: str, *arguments: str, job: str, step: int = 0, **variables: str) -> list[Run]:
    """The processes that `srun --ntasks-per-node=2` starts."""
    shared = {"SLURM_JOB_ID": job, "SLURM_STEP_ID": str(step), "SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "2"}
    shared |= {"SLURM_NNODES": "1", "SLURM_NODEID": "0", "SLURM_NODELIST": "127.0.0.1", "SLURM_JOB_NAME": "train"}
    return [
        home.start(
            f"name={name}",
            "trainer.devices=2",
            *SHORT,
            *arguments,
            **shared,
            **variables,
            SLURM_PROCID=str(rank),
            SLURM_LOCALID=str(rank),
        )
        for rank in range(2)
    ]


def plain(home: Home, name: str, *arguments: str, **variables: str) -> list[Run]:
    """One process, whatever the job that it is in."""
    return [home.start(f"name={name}", *SHORT, *arguments, **variables)]


def finish(runs: Sequence[Run], status: int = 0) -> None:
    for run in runs:
        got = run.wait()
        assert got == status, f"exit status {got}, expected {status}\n{run.output()}"


def folders(home: Home, name: str) -> list[Path]:
    return sorted((home.path / "runs" / name).iterdir())


def assert_whole(home: Home, name: str, count: int) -> None:
    """There are so many runs of the name, each with all its steps and checkpoints and nothing of another."""
    found = folders(home, name)
    assert len(found) == count, found
    for folder in found:
        steps = [line.split(",")[0] for line in (folder / "metrics.csv").read_text().splitlines()[1:]]
        assert sorted(path.name for path in folder.glob("checkpoints/step-*"))[-1] == "step-00000004"
        assert len(steps) <= 5, f"{folder} has the rows of several runs: {steps}"
        assert json.loads((folder / "summary.json").read_text())["steps"] == 4


def one_after_another(start: Callable[[], list[Run]], home: Home, name: str) -> None:
    finish(start())
    before = {path: path.stat().st_mtime_ns for path in folders(home, name)[0].rglob("*")}
    finish(start())
    assert_whole(home, name, 2)
    assert {path: path.stat().st_mtime_ns for path in before} == before, "the second run touched the first one's files"


def at_once(first: list[Run], second: list[Run], home: Home, name: str) -> None:
    finish([*first, *second])
    assert_whole(home, name, 2)


def requeued(home: Home) -> None:
    """Two jobs of one name are stopped and requeued; each goes on with its own run, the older one last."""
    for job in ("31", "32"):
        finish(plain(home, "requeued", "resume=auto" if job == "31" else "seed=2", SLURM_JOB_ID=job), 0)
    own = {json.loads((path / "session.json").read_text())["job"]: path for path in folders(home, "requeued")}
    for job, other in (("32", "31"), ("31", "32")):
        before = (own[other] / "session.json").read_bytes()
        longer = ("trainer.max_steps=6", "resume=auto", *(["seed=2"] if job == "32" else []))
        finish(plain(home, "requeued", *longer, SLURM_JOB_ID=job, SLURM_RESTART_COUNT="1"))
        assert (own[job] / "checkpoints" / "step-00000006").is_dir()
        assert (own[other] / "session.json").read_bytes() == before
    assert len(folders(home, "requeued")) == 2


def resumed_twice_at_once(home: Home) -> None:
    finish(plain(home, "twice"))
    first = plain(home, "twice", "resume=last", "trainer.max_steps=400", "trainer.val_check_interval=400")
    assert first[0].wait_for(lambda run: run.last_step() > 6)
    second = plain(home, "twice", "resume=last", "trainer.max_steps=6")
    finish(second, 2)
    assert "another process is writing" in second[0].output()
    first[0].kill()


def wrong_number(home: Home) -> None:
    runs = torchrun(home, "number", "trainer.devices=1")
    finish(runs, 2)
    assert "the launcher has started 2 processes" in runs[0].output()
    assert not (home.path / "runs" / "number").exists()


def cases(home: Home) -> dict[str, Callable[[], None]]:
    """The cases, those of every change first."""
    array = {"SLURM_ARRAY_JOB_ID": "51"}
    return {
        "torchrun twice in a SLURM job": lambda: one_after_another(
            lambda: torchrun(home, "in-slurm", SLURM_JOB_ID="11"), home, "in-slurm"
        ),
        "two srun at once in a job": lambda: at_once(
            srun(home, "steps", job="21"), srun(home, "steps", job="21", step=1), home, "steps"
        ),
        "jobs that are requeued": lambda: requeued(home),
        "another number of processes": lambda: wrong_number(home),
        "torchrun twice without an id": lambda: one_after_another(lambda: torchrun(home, "no-id"), home, "no-id"),
        "torchrun twice with one id": lambda: one_after_another(
            lambda: torchrun(home, "one-id", TORCHELASTIC_RUN_ID="mine"), home, "one-id"
        ),
        "srun twice in a job": lambda: one_after_another(lambda: srun(home, "job", job="22"), home, "job"),
        "array tasks at once": lambda: at_once(
            plain(home, "array", SLURM_JOB_ID="51", SLURM_ARRAY_TASK_ID="0", **array),
            plain(home, "array", SLURM_JOB_ID="52", SLURM_ARRAY_TASK_ID="1", **array),
            home,
            "array",
        ),
        "a requeue without resume": lambda: one_after_another(
            lambda: plain(home, "anew", SLURM_JOB_ID="61", SLURM_RESTART_COUNT="1"), home, "anew"
        ),
        "two at once without a launcher": lambda: at_once(plain(home, "both"), plain(home, "both"), home, "both"),
        "one run resumed twice at once": lambda: resumed_twice_at_once(home),
        "ranks started by Lightning, twice": lambda: one_after_another(
            lambda: plain(home, "inner", "trainer.devices=2"), home, "inner"
        ),
    }


def test_l1_no_run_enters_the_folder_of_another(home: Home) -> None:
    matrix = row("L1", quick=3, subset=4, full=12)
    for name, case in list(cases(home).items())[: matrix.n]:
        with matrix.case(name):
            case()
    matrix.check()
