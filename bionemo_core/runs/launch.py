"""Starting the ranks of a task, or joining those that a launcher has started, and agreeing between them."""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytorch_lightning as pl
import torch.distributed as dist
from lightning_fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from lightning_fabric.strategies.launchers import subprocess_script

from bionemo_core.checkpoint.rank_agreement import Openers, RankPeers, opening_together
from bionemo_core.config.schema import RunSpec
from bionemo_core.errors import BioNeMoError, ConfigError, NetworkError
from bionemo_core.parallel.groups import group_of_all_hosts
from bionemo_core.parallel.ranks import Ranks
from bionemo_core.parallel.strategy import MegatronStrategy
from bionemo_core.runs.device import Device
from bionemo_core.training.signals import started

_SET_FOR_RANKS = ("LOCAL_RANK", "NODE_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
_TIMEOUT_S = 600.0
PATIENCE_S = 7 * 24 * 3600.0
"""How long ranks wait for one that still computes or writes; a rank that dies is noticed at once."""
_FIRST_PORT, _NUM_PORTS = 15_000, 10_000


class Launch:
    """The processes of a task: this one, those that it starts, and those of torchrun, SLURM or another launcher."""

    def __init__(self, spec: RunSpec, device: Device, timeout_s: float = _TIMEOUT_S) -> None:
        """Find the launcher; nothing is started yet.

        Args:
            spec: the run.
            device: the device of all ranks.
            timeout_s: how long a rank waits for the others.

        Raises:
            ConfigError: the launcher has started another number of processes than the run has devices.
        """
        _choose_port()
        settings = spec.trainer
        strategy = MegatronStrategy(
            spec.parallel.tensor_model_parallel_size,
            device.dtype,
            timeout_s=timeout_s,
            pipeline_model_parallel_size=spec.parallel.pipeline_model_parallel_size,
        )
        try:
            self._trainer = pl.Trainer(
                strategy=strategy,
                accelerator=device.accelerator,
                devices=settings.devices,
                num_nodes=settings.num_nodes,
                logger=False,
                enable_checkpointing=False,
                enable_progress_bar=False,
                enable_model_summary=False,
            )
        except RuntimeError as error:
            if "SLURM" not in str(error):
                raise
            raise ConfigError(f"launcher: {error}") from error
        self._check_number(settings.devices, settings.num_nodes)
        self._device = str(strategy.root_device)

    @property
    def is_first_process(self) -> bool:
        """Whether this process will be rank 0 and starts others itself, so that it may fail before it does."""
        environment = self._environment
        return not environment.creates_processes_externally and environment.node_rank() == 0

    @property
    def _environment(self) -> ClusterEnvironment:
        environment = self._trainer.strategy.cluster_environment  # type: ignore[attr-defined]  # of parallel strategies
        assert isinstance(environment, ClusterEnvironment)
        return environment

    def _check_number(self, devices: int, num_nodes: int) -> None:
        environment = self._environment
        if isinstance(environment, LightningEnvironment):  # it learns the number from the trainer
            return
        started = environment.world_size()
        if started != devices * num_nodes:
            raise ConfigError(
                f"trainer.devices={devices}, trainer.num_nodes={num_nodes}: the launcher has started {started} "
                f"processes, expected {devices * num_nodes}, one for each device of each node. Set trainer.devices to "
                "the processes per node and trainer.num_nodes to the number of nodes, or start as many processes."
            )

    def start(self) -> Ranks:
        """Start the other processes of this node and the process groups; models are built after this.

        Raises:
            NetworkError: the port of rank 0 is taken.
        """
        strategy = self._trainer.strategy
        try:
            if strategy.launcher is not None:
                explain_lost_children()
                strategy.launcher.launch(lambda: None, trainer=self._trainer)
                started(getattr(strategy.launcher, "procs", []))
            strategy.setup_environment()
        except dist.DistNetworkError as error:
            raise NetworkError(
                f"ranks: rank 0 and the others cannot meet at {os.environ.get('MASTER_ADDR')}:"
                f"{os.environ.get('MASTER_PORT')}: {str(error).splitlines()[0]} If another job uses the port, set "
                "MASTER_PORT to a free one."
            ) from error
        return Ranks(dist.get_rank(), dist.get_world_size(), self._device)


def explain_lost_children() -> None:
    """Have Lightning's observer of the ranks that this process starts say why it ends them all."""
    observer = getattr(subprocess_script, "_ChildProcessObserver", None)  # private, and there is no hook
    if observer is not None:
        observer._terminate_all = _end_with_lost_rank


def _end_with_lost_rank(observer: Any) -> None:
    """End all ranks of this node because one has died; Lightning would kill this one too, without a word."""
    lost = next(process for process in observer._child_processes if process.returncode)
    for process in observer._child_processes:
        process.kill()
    code = lost.returncode
    how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with status {code}"
    sys.stderr.write(
        f"error[{NetworkError.code}]: another rank of this job, process {lost.pid}, {how}, so this one ends too. Find "
        "the cause in its output, then run the same command again; a training continues with resume=last.\n"
    )
    sys.stderr.flush()
    os._exit(code if code > 0 else NetworkError.exit_status)  # this is a thread, and the main one may wait for ever


def agree(ranks: Ranks, choose: Callable[[], Any]) -> Any:
    """Return on every rank what `choose` returns on rank 0; no other rank calls it.

    Raises:
        BioNeMoError: on every rank, what `choose` raised.
    """
    if ranks.size == 1:
        return choose()
    chosen: Any = None
    failure: Exception | None = None
    if ranks.is_rank_zero:
        try:
            chosen = choose()
        except Exception as error:
            failure = error
    message = [(chosen, None if failure is None else portable_failure(failure))]
    dist.broadcast_object_list(message)
    if failure is not None:
        raise failure
    chosen, failed = message[0]
    raise_failure(failed, "rank 0")
    return chosen


@contextmanager
def opening_on_all_ranks() -> Iterator[None]:
    """Let the ranks of a job share the verification of what all of them open in the block; alone, nothing changes."""
    if not dist.is_initialized() or dist.get_world_size() == 1:
        yield
        return
    group = group_of_all_hosts(PATIENCE_S)
    hosts: list[str] = [""] * dist.get_world_size()
    dist.all_gather_object(hosts, socket.gethostname(), group=group)
    own = dist.get_rank()
    beside = [rank for rank, host in enumerate(hosts) if host == hosts[own]]
    with opening_together(Openers(RankPeers(group, "opening a model"), beside.index(own), len(beside))):
        yield


def portable_failure(failure: Exception) -> BioNeMoError | str:
    """Return a failure in a form that can be sent to other ranks."""
    return failure if isinstance(failure, BioNeMoError) else repr(failure)


def raise_failure(failure: BioNeMoError | str | None, where: str) -> None:
    """Raise a failure that another rank has sent; None: it sent none.

    Raises:
        BioNeMoError: the failure.
    """
    if isinstance(failure, Exception):
        raise failure
    if failure is not None:
        raise NetworkError(f"{where} of this job failed; its output says why: {failure}")


@contextmanager
def keep_environment() -> Iterator[None]:
    """Restore the environment variables that are set to start ranks, so that this process can start others later."""
    before = dict(os.environ)
    try:
        yield
    finally:
        for name in _SET_FOR_RANKS:
            os.environ.pop(name, None)
            if name in before:
                os.environ[name] = before[name]


def _choose_port() -> None:
    """Give each `srun` of a SLURM job a port of its own; Lightning would give all of a job the same one."""
    job, step = os.environ.get("SLURM_JOB_ID", ""), os.environ.get("SLURM_STEP_ID", "")
    if job.isdecimal() and step.isdecimal():
        os.environ.setdefault("MASTER_PORT", str(_FIRST_PORT + (int(job) + 101 * int(step)) % _NUM_PORTS))
