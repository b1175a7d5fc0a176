"""Starting the processes of a job and waiting for them: the wait is reported, has a limit, and a signal stops it."""

from __future__ import annotations

import logging
import os
import time
from datetime import timedelta
from typing import Any

import torch.distributed as dist
from lightning_fabric.plugins.environments.cluster_environment import ClusterEnvironment
from pytorch_lightning.strategies.launchers import _SubprocessScriptLauncher

from bionemo_core.errors import ConfigError, NetworkError

log = logging.getLogger("bionemo")

START_TIMEOUT_S = 600.0
"""How long to wait for ranks at the start, also where ranks later wait longer for one that still computes."""
SAY_AFTER_S, SAY_EVERY_S = 5.0, 60.0
_ON_ONE_MACHINE_S = 30.0
"""Ranks of one machine import for a while before they come; only a longer wait is worth a word."""
_POLL_S, _CONNECT_S = 0.05, 2.0


def wait_for_ranks(environment: ClusterEnvironment, num_nodes: int, timeout_s: float) -> None:
    """Return once all ranks have reached the address of rank 0.

    torch itself waits without a word, in code that a signal does not reach. torchrun has made its own ranks meet.

    Raises:
        NetworkError: not all came in time.
    """
    size = environment.world_size()
    if size == 1 or os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":
        return
    place = f"{environment.main_address}:{environment.main_port}"
    began = time.monotonic()
    say_at = began + (SAY_AFTER_S if num_nodes > 1 else _ON_ONE_MACHINE_S)
    store: Any = None
    came = 0
    while came < size:
        if store is None:
            store = _connect(environment)
            if store is not None:
                store.add("came", 1)
        came = store.add("came", 0) if store is not None else 0
        known = f"{came} of {size} processes reached {place}" if store is not None else f"nothing answers at {place}"
        now = time.monotonic()
        if came < size and now >= say_at:
            log.warning(
                "ranks: %s; waiting for the others for %.0f s more. Start the same command on each of "
                "trainer.num_nodes=%d machines, with MASTER_ADDR, MASTER_PORT and NODE_RANK.",
                known,
                max(0.0, began + timeout_s - now),
                num_nodes,
            )
            say_at = now + SAY_EVERY_S
        if came < size and now - began >= timeout_s:
            raise NetworkError(
                f"ranks: {known} within {timeout_s:.0f} s. Start the same command on each of "
                f"trainer.num_nodes={num_nodes} machines, with MASTER_ADDR, MASTER_PORT and NODE_RANK, or lower "
                "trainer.num_nodes."
            )
        time.sleep(_POLL_S)
    _stores.append(store)  # the server of rank 0 serves the process groups too, and ends with the process


_stores: list[Any] = []


def _connect(environment: ClusterEnvironment) -> Any:
    """Return the store of rank 0; None if it does not answer yet."""
    is_first = environment.global_rank() == 0
    try:
        return dist.TCPStore(  # type: ignore[attr-defined]  # public, but torch has no __all__ that says so
            environment.main_address,
            environment.main_port,
            environment.world_size(),
            is_master=is_first,
            timeout=timedelta(seconds=_CONNECT_S),
            wait_for_workers=False,
            multi_tenant=True,
        )
    except (dist.DistNetworkError, dist.DistStoreError):
        if is_first:  # its port is taken
            raise
        return None


class RankLauncher(_SubprocessScriptLauncher):
    """Lightning's launcher of ranks, which a notebook may use as long as there is one."""

    @property
    def is_interactive_compatible(self) -> bool:
        # Lightning asks in a notebook or an interactive Python only.
        if self.num_processes > 1:
            raise ConfigError(
                f"trainer.devices={self.num_processes}: a notebook or an interactive Python cannot start other ranks. "
                "Set trainer.devices=1, or run the command or a script."
            )
        return True
