"""Work that ranks share, with two ranks in two processes that meet through a file."""

import json
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from runs import Home

from bionemo_core.errors import DataError, NetworkError
from bionemo_core.parallel.ranks import Ranks
from bionemo_core.runs.shared_work import SharedWork


def halve(number: int) -> tuple[int, float]:
    """The rank and half of an even number; 7 is not one, and 9 is a bug."""
    if number == 7:
        raise DataError("seven is odd")
    if number == 9:
        raise ZeroDivisionError("nine")
    return dist.get_rank(), number / 2


def add_over_ranks(number: int) -> float:
    """The sum of the numbers of both ranks, times a number; the second rank cannot take 13."""
    if number == 13 and dist.get_rank() == 1:
        raise DataError("thirteen")
    total = torch.tensor([(dist.get_rank() + 1.0) * number])
    dist.all_reduce(total)
    return total.item()


PIECES = {
    "order": [2, 4, 6, 8, 10],
    "another rank fails": [2, 7, 4],
    "rank 0 fails": [7, 2],
    "a bug": [2, 9],
}


def rank_main(rank: int, folder: str) -> None:
    """One of two ranks; it writes what it got of each piece, and how each work ended."""
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    ends = {}
    for name, pieces in PIECES.items():
        work, got, end = SharedWork(Ranks(rank, 2), halve), [], "ended"
        try:
            work.lead(lambda work=work, got=got, pieces=pieces: got.extend(work.share(pieces)))
        except Exception as error:
            end = f"{type(error).__name__}: {error}"
        ends[name] = [got, end]
    for number in (2, 13):
        meeting, got, end = SharedWork(Ranks(rank, 2), add_over_ranks), [], "ended"
        try:
            meeting.lead(lambda meeting=meeting, got=got, number=number: got.append(meeting.together(number)))
        except Exception as error:
            end = f"{type(error).__name__}: {error}"
        ends[f"together {number}"] = [got, end]
    Path(folder, str(rank)).write_text(json.dumps(ends))
    dist.destroy_process_group()  # a rank that has failed is lost to the other


@pytest.mark.processes
def test_two_ranks_share_pieces_and_failures(home: Home, tmp_path):
    here = {"folder": tmp_path, "PYTHONPATH": str(Path(__file__).parent)}
    code = "import sys, test_shared_work; test_shared_work.rank_main(int(sys.argv[1]), sys.argv[2])"
    ranks = [home.start_python("-c", code, str(rank), tmp_path, **here) for rank in range(2)]
    ended = [wait(60) for wait in ranks]
    assert [one.returncode for one in ended] == [0, 0], [one.stderr for one in ended]
    first, second = (json.loads((tmp_path / str(rank)).read_text()) for rank in range(2))
    assert first["order"] == [[[0, 1.0], [1, 2.0], [0, 3.0], [1, 4.0], [0, 5.0]], "ended"]
    assert first["another rank fails"] == [[[0, 1.0]], "DataError: seven is odd"]
    assert first["rank 0 fails"] == [[], "DataError: seven is odd"]
    said = "NetworkError: another rank of this job failed; its output says why: ZeroDivisionError('nine')"
    assert first["a bug"] == [[[0, 1.0]], said]
    assert second.pop("a bug") == [[], "ZeroDivisionError: nine"]
    assert first["together 2"] == [[6.0], "ended"]
    assert "NetworkError: another rank of this job died" in first["together 13"][1]
    assert second.pop("together 13") == [[], "DataError: thirteen"]
    assert list(second.values()) == [[[], "ended"]] * 4, "rank 0 alone says what failed"


def test_one_rank_needs_no_group():
    work = SharedWork(Ranks(), lambda number: number * 2)
    got: list[int] = []
    work.lead(lambda: got.extend(work.share([1, 2])))
    assert got == [2, 4]
    with pytest.raises(NetworkError):
        SharedWork(Ranks(), halve).lead(lambda: (_ for _ in ()).throw(NetworkError("x")))
