"""Runs of the command for the benchmarks of several GPUs: their metrics, and how they compare."""

import os
import signal
import statistics
import subprocess
from collections.abc import Sequence
from pathlib import Path
from time import monotonic, sleep

from bionemo_core.reporting.metrics_file import NAME, read_rows

LOSS, SPEED, SEEN = "reduced_train_loss", "tokens_per_second", "consumed_samples"
TOLERANCE = {"32-true": 1e-4, "bf16-mixed": 1e-2}
"""By how much the losses of several ranks may differ from those of one, as a share of them."""

COMMON = (
    "scheduler=constant",
    "trainer.log_every_n_steps=1",
    "trainer.val_check_interval=100000",
    "trainer.progress_bar=false",
    "batch.num_workers=2",
)


Rows = list[dict[str, int | float]]


class Runs:
    """Runs of the command in one home.

    Args:
        home: the home.
        accelerator: gpu or cpu.
        limit_s: seconds that a run may take.
        command: what is started.
    """

    def __init__(self, home: Path, accelerator: str, limit_s: float, command: Sequence[str] = ("bionemo-run",)) -> None:
        self.home = home
        self.limit_s = limit_s
        self.command = command
        self.accelerator = f"trainer.accelerator={accelerator}"

    def rows(self, name: str, *overrides: str, gpu: int | None = None) -> Rows:
        """The metrics of a run; its output is shown if it fails, is refused, or does not end in time."""
        process = self._start(name, overrides, gpu)
        try:
            status = process.wait(self.limit_s)
        except subprocess.TimeoutExpired:
            status = None
        finally:
            if process.returncode is None:  # ended by Ctrl-C, too
                os.killpg(process.pid, signal.SIGKILL)
        if status is None:
            status = process.wait()
        if status:
            self._explain(name, status)
            return []
        return self._read(name)

    def first_rows(self, name: str, count: int, *overrides: str, gpu: int | None = None) -> Rows:
        """The metrics of the first `count` steps of a run, which is then killed, so that no time goes into saving.

        There are fewer if it fails or does not make them in time; its output is shown then.
        """
        process = self._start(name, (*overrides, "trainer.max_steps=100000"), gpu)
        rows: Rows = []
        end = monotonic() + self.limit_s
        try:
            while process.poll() is None and len(rows) < count and monotonic() < end:
                sleep(0.5)
                rows = self._read(name)
        finally:
            if process.returncode is None:
                os.killpg(process.pid, signal.SIGKILL)
        status = process.wait()
        if len(rows) < count:  # it may have ended between two looks
            rows = self._read(name)
        if len(rows) < count:
            self._explain(name, status)
        return rows

    def _start(self, name: str, overrides: tuple[str, ...], gpu: int | None) -> "subprocess.Popen[bytes]":
        command = [*self.command, f"name={name}", self.accelerator, *COMMON, *overrides]
        environment = {**os.environ, "BIONEMO_HOME": str(self.home)}
        if gpu is not None:
            environment["CUDA_VISIBLE_DEVICES"] = str(gpu)
        with (self.home / f"{name}.log").open("wb") as output:
            return subprocess.Popen(
                command, env=environment, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
            )

    def _explain(self, name: str, status: int) -> None:
        print(f"  {name}: status {status}\n{self.output(name)[-2000:]}", flush=True)

    def output(self, name: str) -> str:
        """What a run has printed."""
        return (self.home / f"{name}.log").read_text()

    def _read(self, name: str) -> Rows:
        files = list((self.home / "runs" / name).glob(f"*/{NAME}"))
        return read_rows(files[0]) if files else []


def difference(rows: Rows, reference: Rows) -> float:
    """The largest difference of a loss from the reference's, as a share of that; infinite for other sequences."""
    if [row[SEEN] for row in rows] != [row[SEEN] for row in reference] or not rows:
        return float("inf")
    pairs = [(row[LOSS], wanted[LOSS]) for row, wanted in zip(rows, reference, strict=True)]
    return max(abs(got - wanted) / abs(wanted) for got, wanted in pairs)


def median_rate(rows: Rows) -> float:
    """Tokens a second, the median of the second half of the steps; 0 if the run failed."""
    found = [float(row[SPEED]) for row in rows[len(rows) // 2 :] if row.get(SPEED)]
    return statistics.median(found) if found else 0.0
