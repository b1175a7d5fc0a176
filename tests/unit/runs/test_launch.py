"""Ranks agree on what rank 0 chooses, and fail together when it cannot."""

import multiprocessing
import subprocess
import sys
import time
from copy import deepcopy
from pathlib import Path

import pytest
import torch.distributed as dist
from lightning_fabric.strategies.launchers.subprocess_script import _ChildProcessObserver

from bionemo_core.errors import ConfigError, NetworkError
from bionemo_core.parallel.ranks import Ranks
from bionemo_core.runs.launch import agree, explain_lost_children


@pytest.fixture
def wire(monkeypatch: pytest.MonkeyPatch) -> list[list[object]]:
    """What rank 0 has sent; the next rank that listens gets it."""
    sent: list[list[object]] = []

    def broadcast(objects: list[object]) -> None:
        if sent:
            objects[:] = sent.pop()
        else:
            sent.append(deepcopy(objects))

    monkeypatch.setattr(dist, "broadcast_object_list", broadcast)
    return sent


def test_every_rank_gets_what_rank_zero_chose(wire):
    assert agree(Ranks(0, 2), lambda: "a folder") == "a folder"
    assert agree(Ranks(1, 2), lambda: pytest.fail("only rank 0 chooses")) == "a folder"


@pytest.mark.parametrize(
    ("failure", "expected"), [(ConfigError("no run has a checkpoint"), ConfigError), (KeyError("step"), NetworkError)]
)
def test_every_rank_fails_when_rank_zero_does(wire, failure, expected):
    def fail():
        raise failure

    with pytest.raises(type(failure)):
        agree(Ranks(0, 2), fail)
    with pytest.raises(expected, match=str(failure)):
        agree(Ranks(1, 2), lambda: pytest.fail("only rank 0 chooses"))


def watch(said: Path) -> None:
    """Be a rank whose two others are watched by Lightning, and one of them dies."""
    sys.stderr = said.open("w")
    explain_lost_children()
    others = [subprocess.Popen(["sh", "-c", "kill -9 $$"]), subprocess.Popen(["sleep", "60"])]
    _ChildProcessObserver(main_pid=0, child_processes=others, sleep_period=0.1).start()
    time.sleep(30)


@pytest.mark.processes
def test_a_killed_rank_is_explained_before_the_others_end(tmp_path):
    rank = multiprocessing.get_context("fork").Process(target=watch, args=(tmp_path / "said",))
    rank.start()
    rank.join()
    assert rank.exitcode == NetworkError.exit_status
    said = (tmp_path / "said").read_text()
    assert "was ended by SIGKILL, so this one ends too" in said
    assert "run the same command again" in said
