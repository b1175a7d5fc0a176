"""A rank that waits for others says so, stops at a signal, and ends after its time."""

import os
import signal
import socket
import threading
import time
from types import SimpleNamespace
from typing import Any

import pytest

from bionemo_core.errors import NetworkError, Stopped
from bionemo_core.parallel import rendezvous
from bionemo_core.parallel.rendezvous import wait_for_ranks
from bionemo_core.training.signals import StopSignal


def ranks(size: int) -> list[Any]:
    """The environment of each rank of a job at a free port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    facts = {"main_address": "127.0.0.1", "main_port": port, "world_size": lambda: size}
    return [SimpleNamespace(global_rank=lambda rank=rank: rank, **facts) for rank in range(size)]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rendezvous, "_CONNECT_S", 0.2)


def test_ranks_that_all_come_meet_whoever_is_first():
    first, second = ranks(2)
    late = threading.Thread(target=wait_for_ranks, args=(first, 2, 20.0))
    timer = threading.Timer(0.5, late.start)
    timer.start()
    wait_for_ranks(second, 2, 20.0)
    late.join(timeout=20)
    assert not late.is_alive()


@pytest.mark.parametrize(
    ("rank", "known"), [(0, "1 of 3 processes reached 127.0.0.1:"), (1, "nothing answers at 127.")]
)
def test_a_wait_is_said_and_ends(caplog, monkeypatch, rank, known):
    monkeypatch.setattr(rendezvous, "SAY_AFTER_S", 0.1)
    with pytest.raises(NetworkError, match=rf"{known}.* within 1 s\. .*trainer\.num_nodes=3"):
        wait_for_ranks(ranks(3)[rank], 3, 0.6)
    assert known in caplog.text


@pytest.mark.parametrize("rank", [0, 1])
def test_a_signal_ends_the_wait(rank):
    began = time.monotonic()
    with StopSignal(remember=False), pytest.raises(Stopped):
        threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGTERM)).start()
        wait_for_ranks(ranks(2)[rank], 2, 30.0)
    assert time.monotonic() - began < 10
