"""Runs of the command that a test can start, watch, kill and compare."""

import contextlib
import csv
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TINY = (
    "model=esm1nv_tiny",
    "model.num_layers=2",
    "model.hidden_size=64",
    "batch.seq_length=128",
    "batch.micro_batch_size=2",
    "batch.num_workers=0",
    "batch.pack_window=64",
    "trainer.max_steps=40",
    "trainer.val_check_interval=10",
    "trainer.limit_val_batches=2",
    "trainer.log_every_n_steps=1",
    "trainer.num_threads=1",
    "trainer.progress_bar=false",
    "checkpoint.every_n_steps=5",
    "checkpoint.save_top_k=2",
    "optim.lr=2e-3",
    "scheduler.warmup_steps=10",
)
"""The model of the fault matrix: 2 layers, 64 hidden, dropout 0.1."""

COMPARED = ("reduced_train_loss", "val_loss", "grad_norm", "lr", "consumed_samples")


@dataclass
class Home:
    """A home folder and the server that runs commands in it."""

    path: Path
    server: subprocess.Popen[str]

    def start(
        self,
        *arguments: str,
        streams: Mapping[str, str] | None = None,
        ignored: Sequence[int] = (),
        **environment: str,
    ) -> "Run":
        """Start a run of the tiny model; `name=` is among the arguments, and later ones take the place of earlier.

        `streams` says who listens to descriptors 1 and 2, by the words of `fork_server.LISTENERS`; `ignored` are the
        signals that it inherits as ignored.
        """
        chosen = {argument.partition("=")[0].lstrip("~"): argument for argument in (*TINY, *arguments)}
        # `~key` takes a setting back that the model at hand does not have.
        typed = [argument for argument in chosen.values() if not argument.startswith("~")]
        name = chosen["name"].removeprefix("name=")
        log = self.path / f"{name}.log"
        return Run(self, name, log, self._start(typed, log, environment, streams, ignored))

    def command(self, *arguments: str, **environment: str) -> str:
        """What the command prints for these arguments and no others."""
        log = self.path / "command.log"
        log.unlink(missing_ok=True)
        self.ask({"wait": self._start(arguments, log, environment), "timeout_s": 60})
        return log.read_text()

    def task(self, *arguments: str, streams: Mapping[str, str] | None = None, **environment: str) -> "Run":
        """Start any command line, with these arguments and no others; it has the log of `name=`."""
        name = next(one for one in arguments if one.startswith("name=")).removeprefix("name=")
        log = self.path / f"{name}.log"
        return Run(self, name, log, self._start(arguments, log, environment, streams))

    def python(
        self, *arguments: str | Path, folder: Path, timeout_s: float = 240, **environment: str
    ) -> "subprocess.CompletedProcess[str]":
        """Run `python ARGUMENTS` in a folder, with the variables of this process and these, and wait for its end.

        It takes seconds less than a process of its own: torch and the like are imported already.
        """
        wait = self.start_python(*arguments, folder=folder, **environment)
        return wait(timeout_s)

    def pytest(self, *arguments: str, folder: Path, **environment: str) -> "subprocess.CompletedProcess[str]":
        """Run pytest on a project that is in a folder, without settings of its own; warnings are errors."""
        options = ["-q", "-W", "error", "--rootdir", ".", "-c", os.devnull]
        # The server has imported one of pytest's plugins, whose assertions pytest could not rewrite; it would warn.
        variables = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", **environment}
        return self.python("-m", "pytest", *options, *arguments, folder=folder, **variables)

    def start_python(
        self, *arguments: str | Path, folder: Path, **environment: str
    ) -> "Callable[[float], subprocess.CompletedProcess[str]]":
        """Start `python ARGUMENTS` as `python` does; call what is returned to wait for its end."""
        typed = [str(argument) for argument in arguments]
        outputs = [Path(tempfile.mkstemp(dir=self.path)[1]) for _ in range(2)]
        files = {"log": str(outputs[0]), "errors": str(outputs[1]), "folder": str(folder)}
        pid = self.ask({"python": typed, "environment": {**os.environ, **environment}, **files})["pid"]

        def wait(timeout_s: float) -> "subprocess.CompletedProcess[str]":
            status = self.ask({"wait": pid, "timeout_s": timeout_s})["status"]
            out, err = (path.read_text() for path in outputs)
            assert status is not None, f"python {' '.join(typed)} takes over {timeout_s} s\n{out}{err}"
            return subprocess.CompletedProcess(typed, status, out, err)

        return wait

    def _start(
        self,
        arguments: Sequence[str],
        log: Path,
        environment: Mapping[str, str],
        streams: Mapping[str, str] | None = None,
        ignored: Sequence[int] = (),
    ) -> int:
        variables = {"BIONEMO_HOME": str(self.path), **environment}
        request = {"start": list(arguments), "environment": variables, "log": str(log), "streams": dict(streams or {})}
        return self.ask({**request, "ignored": list(ignored)})["pid"]

    def finish(self, *arguments: str, status: int = 0, **environment: str) -> "Run":
        """Start a run and wait for this exit status."""
        run = self.start(*arguments, **environment)
        got = run.wait()
        assert got == status, f"exit status {got}, expected {status}\n{run.output()}"
        return run

    def ask(self, request: dict[str, object]) -> dict[str, int]:
        """The server's answer."""
        assert self.server.stdin and self.server.stdout
        self.server.stdin.write(json.dumps(request) + "\n")
        self.server.stdin.flush()
        return json.loads(self.server.stdout.readline())


@dataclass
class Run:
    """One process of the command, and the folder that it writes."""

    home: Home
    name: str
    log: Path
    pid: int

    def wait(self, timeout_s: float = 120) -> int | None:
        """The exit status; negative for a signal, None if it still runs."""
        return self.home.ask({"wait": self.pid, "timeout_s": timeout_s})["status"]

    def kill(self) -> None:
        """End the process and its loader workers at once, as the kernel would."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self.wait()

    def signal(self, number: int) -> None:
        """Send a signal to the main process only, as a scheduler does."""
        os.kill(self.pid, number)

    def output(self) -> str:
        """Everything that it printed."""
        return self.log.read_text()

    @property
    def folder(self) -> Path:
        """The newest run folder of this name."""
        return max((self.home.path / "runs" / self.name).iterdir(), key=lambda path: path.stat().st_mtime_ns)

    @property
    def checkpoints(self) -> list[int]:
        """The steps of the published checkpoints."""
        return sorted(int(path.name.removeprefix("step-")) for path in self.folder.glob("checkpoints/step-*"))

    def last_step(self) -> int:
        """The last step in the metrics file, 0 before there is one."""
        try:
            rows = read_metrics(self.folder)
        except (OSError, ValueError):
            return 0
        return max(rows, default=0)

    def wait_for(self, condition: Callable[["Run"], bool], timeout_s: float = 60) -> bool:
        """True once the condition holds; False if the process ended first."""
        until = time.monotonic() + timeout_s
        while time.monotonic() < until:
            if condition(self):
                return True
            if self.home.ask({"wait": self.pid, "timeout_s": 0.005})["status"] is not None:
                return False
        raise AssertionError(f"nothing came within {timeout_s} s\n{self.output()}")


def free_port() -> str:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return str(one.getsockname()[1])


def finish_ranks(home: Home, *arguments: str, **environment: str) -> Run:
    """Start all ranks of a run as torchrun does, and wait until each has ended well.

    They are forked, so they start in a fraction of the time of ranks that the command starts.
    """
    ranks = next((int(one.partition("=")[2]) for one in arguments if one.startswith("trainer.devices=")), 1)
    if ranks == 1:
        return home.finish(*arguments, **environment)
    runs = start_ranks(home.start, ranks, *arguments, **environment)
    ends = [run.wait() for run in runs]
    assert ends == [0] * ranks, runs[0].output()
    return runs[0]


def start_ranks(start: Callable[..., Run], ranks: int, *arguments: str, **environment: str) -> list[Run]:
    """Start every rank of a command, each with the variables that torchrun gives it; they share a log."""
    shared = {
        "WORLD_SIZE": str(ranks),
        "LOCAL_WORLD_SIZE": str(ranks),
        "GROUP_RANK": "0",
        "TORCHELASTIC_RUN_ID": "none",
    }
    shared |= environment | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port()}
    return [start(*arguments, RANK=str(rank), LOCAL_RANK=str(rank), **shared) for rank in range(ranks)]


def found_by_two_ranks(home: Home, script: Path, folder: Path) -> list[dict[str, Any]]:
    """What each of two processes of a script prints as JSON after FOUND; it gets a rank and a file to meet at."""
    started = [home.start_python(script, str(rank), folder / "store", folder=folder) for rank in range(2)]
    ended = [wait(300) for wait in started]
    assert [one.returncode for one in ended] == [0, 0], [one.stderr for one in ended]
    lines = [line for one in ended for line in one.stdout.splitlines() if line.startswith("FOUND ")]
    return [json.loads(line.removeprefix("FOUND ")) for line in lines]


def read_metrics(folder: Path) -> dict[int, dict[str, str]]:
    """The compared columns of every step, as they are written: equal text is equal bits."""
    with (folder / "metrics.csv").open() as file:
        return {
            int(float(row["step"])): {key: row.get(key) or "" for key in COMPARED}
            for row in csv.DictReader(file)
            # While the run writes, the last row may be torn.
            if row.get("reduced_train_loss")
            and row.get("global_step")
            and float(row["global_step"]) == float(row["step"])
        }


def assert_same_metrics(folder: Path, reference: Path, failed_validation: int | None = None) -> None:
    """Every step has the same losses, norms and rates, bit for bit; a failed validation may lack its loss."""
    got, expected = read_metrics(folder), read_metrics(reference)
    if failed_validation is not None:
        known = expected[failed_validation].pop("val_loss")
        assert got[failed_validation].pop("val_loss") in ("", known)
    different = [step for step in expected if got.get(step) != expected[step]]
    assert got.keys() == expected.keys(), f"steps {sorted(expected.keys() ^ got.keys())} are in one run only"
    assert not different, f"from step {different[0]} on: {got[different[0]]} instead of {expected[different[0]]}"


def start_server(arguments: Sequence[str] = ()) -> subprocess.Popen[str]:
    """A server that is ready to fork runs."""
    server = subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("fork_server.py")), *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "BIONEMO_LOAD_PLUGINS": "bionemo-esm"},
    )
    assert server.stdout and json.loads(server.stdout.readline())["ready"]
    return server
