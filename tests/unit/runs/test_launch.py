"""Ranks agree on what rank 0 chooses, and fail together when it cannot."""

from copy import deepcopy

import pytest
import torch.distributed as dist

from bionemo_core.errors import ConfigError, NetworkError
from bionemo_core.parallel.ranks import Ranks
from bionemo_core.runs.launch import agree


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
