"""Work that ranks share, with two ranks in two processes that meet through a file."""

import sys
from pathlib import Path

import pytest
import torch.distributed as dist
import torch.multiprocessing as mp

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


def rank_main(rank: int, folder: str, pieces: list[int]) -> None:
    """One of two ranks; it writes what it got, or how it failed."""
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    work, got, end = SharedWork(Ranks(rank, 2), halve), [], "ended"
    try:
        work.lead(lambda: got.extend(work.share(pieces)))
    except Exception as error:
        end = f"{type(error).__name__}: {error}"
    Path(folder, str(rank)).write_text(f"{got}\n{end}")


def run_two(folder: Path, pieces: list[int]) -> list[list[str]]:
    mp.start_processes(rank_main, (str(folder), pieces), nprocs=2, start_method="fork")
    return [Path(folder, str(rank)).read_text().splitlines() for rank in range(2)]


pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the ranks are forked")


def test_pieces_go_round_and_their_results_keep_their_order(tmp_path):
    first, second = run_two(tmp_path, [2, 4, 6, 8, 10])
    assert first == ["[(0, 1.0), (1, 2.0), (0, 3.0), (1, 4.0), (0, 5.0)]", "ended"]
    assert second == ["[]", "ended"]


def test_what_another_rank_raises_reaches_rank_0_alone(tmp_path):
    first, second = run_two(tmp_path, [2, 7, 4])
    assert first == ["[(0, 1.0)]", "DataError: seven is odd"]
    assert second == ["[]", "ended"]


def test_what_rank_0_raises_ends_the_others(tmp_path):
    first, second = run_two(tmp_path, [7, 2])
    assert first == ["[]", "DataError: seven is odd"]
    assert second == ["[]", "ended"]


def test_a_bug_on_another_rank_is_raised_there(tmp_path):
    first, second = run_two(tmp_path, [2, 9])
    assert first[1] == "NetworkError: another rank of this job failed; its output says why: ZeroDivisionError('nine')"
    assert second == ["[]", "ZeroDivisionError: nine"]


def test_one_rank_needs_no_group():
    work = SharedWork(Ranks(), lambda number: number * 2)
    got: list[int] = []
    work.lead(lambda: got.extend(work.share([1, 2])))
    assert got == [2, 4]
    with pytest.raises(NetworkError):
        SharedWork(Ranks(), halve).lead(lambda: (_ for _ in ()).throw(NetworkError("x")))
