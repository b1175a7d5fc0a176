"""Processes and threads of a run against the cores of the machine, before any is started."""

from __future__ import annotations

import logging

from bionemo_core.config.schema import RunSpec
from bionemo_core.errors import ConfigError
from bionemo_core.machine import cpu_threads

log = logging.getLogger("bionemo")

MOST_PER_CORE = 16
"""Processes or threads of one kind for each core; more are a slip of the finger, and only take memory and time."""


def refuse_oversubscription(spec: RunSpec, *, ranks_use_cores: bool) -> None:
    """Check that a run starts no absurd number of processes and threads; warn of more threads than cores.

    Args:
        spec: the run.
        ranks_use_cores: whether its ranks compute on the CPU.

    Raises:
        ConfigError: there are too many; the message has the arithmetic.
    """
    cores, devices = cpu_threads(), spec.trainer.devices
    if ranks_use_cores:
        _refuse("trainer.devices", "processes", devices, 1, cores)
    _refuse("batch.num_workers", "loader processes", spec.batch.num_workers, devices, cores)
    _refuse("task.num_workers", "processes", spec.task.params.get("num_workers") or 0, 1, cores)
    threads = spec.trainer.num_threads or 0
    _refuse("trainer.num_threads", "threads", threads, devices, cores)
    if threads * devices > cores:
        log.warning(
            "trainer.num_threads=%d in each of %d processes are more threads than the %d CPU cores of this machine; "
            "they wait for each other.",
            threads,
            devices,
            cores,
        )


def _refuse(key: str, what: str, count: int, processes: int, cores: int) -> None:
    if count * processes <= MOST_PER_CORE * cores:
        return
    product = f"{count:,} x {processes:,} devices = " if processes > 1 else ""
    raise ConfigError(
        f"{key}: {product}{count * processes:,} {what}, but this machine has {cores} CPU cores. The limit is "
        f"{MOST_PER_CORE} per core: {MOST_PER_CORE * cores}. Lower {key}"
        f"{' or trainer.devices' if processes > 1 else ''}."
    )
