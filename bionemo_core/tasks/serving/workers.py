"""Several workers behind one address: each a process with the model on its own device, started again if it dies.

The workers accept from one listening socket, which they inherit, so that what waits there outlives a worker.
"""

from __future__ import annotations

import logging
import os
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from bionemo_core.errors import BioNeMoError, ConfigError
from bionemo_core.training.signals import StopSignal

log = logging.getLogger("bionemo")

LISTENER = "BIONEMO_SERVE_LISTENER"
"""The variable with the descriptor of the listening socket; a process that has it is a worker."""
POLL_S = 0.1
_FINAL = {kind.exit_status: kind for kind in BioNeMoError.__subclasses__() if kind.exit_status <= 5}
"""Statuses of what would fail again: the configuration, the data or the model cannot be used."""
_QUICK_S, _LONGEST_PAUSE_S = 30.0, 30.0


@dataclass
class WorkerProcess:
    """A worker, and when it was last started."""

    number: int
    environment: Mapping[str, str]
    process: subprocess.Popen[bytes] | None = None
    start_at: float = 0.0
    """When it is to be started, by `time.monotonic`."""
    began: float = 0.0
    quick_deaths: int = 0
    """How often in a row it died soon after its start."""

    def start(self, command: Sequence[str], descriptor: int) -> None:
        environment = {**os.environ, **self.environment, LISTENER: str(descriptor)}
        self.process = subprocess.Popen(command, env=environment, pass_fds=(descriptor,))  # noqa: S603 - our own
        self.began = time.monotonic()

    def note_death(self, status: int) -> None:
        """Plan the next start: at once, or later if it keeps dying.

        Raises:
            BioNeMoError: it would fail again.
        """
        if kind := _FINAL.get(status):
            raise kind(f"worker {self.number} ended with status {status}; its message is above.")
        now = time.monotonic()
        self.quick_deaths = self.quick_deaths + 1 if now - self.began < _QUICK_S else 0
        pause = min(_LONGEST_PAUSE_S, 2.0 ** (self.quick_deaths - 1)) if self.quick_deaths else 0.0
        log.warning("worker %d ended with status %d; it starts again in %.0f s.", self.number, status, pause)
        self.process, self.start_at = None, now + pause


def supervise(
    command: Sequence[str],
    environments: Sequence[Mapping[str, str]],
    descriptor: int,
    stop: StopSignal,
    *,
    patience_s: float,
    on_death: Callable[[int], None] = lambda pid: None,
) -> None:
    """Keep a worker running for each environment until a signal comes, then let them finish.

    Args:
        command: what starts a worker.
        environments: the variables that a worker has besides those of this process.
        descriptor: the listening socket.
        stop: says when to stop.
        patience_s: how long the workers may take to finish.
        on_death: is called with the id of a worker that has died.

    Raises:
        BioNeMoError: a worker could not be started, and would fail again.
    """
    workers = [WorkerProcess(number, environment) for number, environment in enumerate(environments, start=1)]
    try:
        while stop.requested is None:
            for worker in workers:
                if worker.process is None and time.monotonic() >= worker.start_at:
                    worker.start(command, descriptor)
                elif worker.process is not None and (status := worker.process.poll()) is not None:
                    on_death(worker.process.pid)
                    worker.note_death(status)
            time.sleep(POLL_S)
    finally:
        _end([worker.process for worker in workers if worker.process is not None], patience_s)


def _end(processes: Sequence[subprocess.Popen[bytes]], patience_s: float) -> None:
    """Have the workers finish what they accepted; end those that take too long."""
    for process in processes:
        process.terminate()
    until = time.monotonic() + patience_s
    for process in processes:
        try:
            process.wait(max(0.0, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def environments_of(count: int, on_gpu: bool, num_gpus: int) -> list[dict[str, str]]:
    """Return the variables of each worker: on GPUs, the one that it sees.

    Raises:
        ConfigError: there are fewer GPUs than workers.
    """
    if not on_gpu:
        return [{}] * count
    if count > num_gpus:
        raise ConfigError(f"trainer.devices={count}: this machine has {num_gpus} GPUs. Lower trainer.devices.")
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    names = visible if len(visible) >= count and all(visible) else [str(number) for number in range(num_gpus)]
    return [{"CUDA_VISIBLE_DEVICES": name} for name in names[:count]]
