"""Results of a task that was stopped are used again, and only by a command that would compute the same."""

import signal
from pathlib import Path

import numpy as np
import pytest

from bionemo_core.errors import ConfigError, DataError, Preempted, Stopped
from bionemo_core.inference.beam_writer import Written
from bionemo_core.io.locks import lock_folder
from bionemo_core.parallel.ranks import Ranks
from bionemo_core.runs.kept_results import KeptResults
from bionemo_core.runs.shared_work import SharedWork

PIECES = [["a", 1], ["b", 2], ["c", 3], ["d", 4], ["e", 5], ["f", 6]]


class Task:
    """A task whose pieces give arrays and answers, and that a signal stops before some piece."""

    def __init__(self, output: Path | None, facts: str = "a model") -> None:
        self.output, self.facts = output, facts
        self.computed: list[str] = []

    def run(self, pieces=PIECES, stop_before: str = "", fail_before: str = "", split: int = 0):
        """The results of all pieces, in one call of `share` or two."""

        def compute(piece):
            if piece[0] == stop_before:
                raise Stopped(signal.SIGTERM)
            if piece[0] == fail_before:
                raise DataError("bad")
            self.computed.append(piece[0])
            return [[Written(piece[0], 0.5 * piece[1])], np.full((2, piece[1]), piece[1], np.float32)]

        def revive(value):
            return [Written.revive([value[0]])[0], value[1]]

        kept = KeptResults(SharedWork(Ranks(), compute), self.output, lambda: {"facts": self.facts}, "task=x", revive)
        found = []

        def task():
            found.extend(kept.share(pieces[:split]))
            found.extend(kept.share(iter(pieces[split:])))

        kept.lead(task)
        return found


def same(found, expected) -> bool:
    return all(
        got[0] == want[0] and got[0][0].text and got[1].dtype == np.float32 and (got[1] == want[1]).all()
        for got, want in zip(found, expected, strict=True)
    )


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "out.csv"


@pytest.fixture
def whole():
    return Task(None).run()


@pytest.mark.parametrize("split", [0, 2, 5])
def test_a_stopped_task_goes_on_and_leaves_nothing_beside_its_output(output, whole, split):
    with pytest.raises(Preempted, match=r"stopped by SIGTERM; the results of 3 batches are kept in .*out\.csv\.parts"):
        Task(output).run(stop_before="d", split=split)
    again = Task(output)
    with pytest.raises(Preempted, match="5 batches"):
        again.run(stop_before="f", split=split)
    assert again.computed == ["d", "e"]
    last = Task(output)
    assert same(last.run(split=split), whole)
    assert last.computed == ["f"]
    assert list(output.parent.iterdir()) == []


def test_what_is_stopped_before_anything_or_fails_keeps_nothing(output):
    with pytest.raises(Stopped):
        Task(output).run(stop_before="a")
    with pytest.raises(DataError):
        Task(output).run(fail_before="d")
    Task(output).run()
    assert list(output.parent.iterdir()) == []


def stopped(output: Path, before: str = "e") -> None:
    with pytest.raises(Preempted):
        Task(output).run(stop_before=before)


def test_other_pieces_are_computed_anew_from_where_they_differ(output):
    stopped(output)
    changed = [*PIECES[:2], ["C", 3], *PIECES[3:]]
    task = Task(output)
    with pytest.raises(Preempted, match="4 batches"):
        task.run(changed, stop_before="e")
    assert task.computed == ["C", "d"]
    last = Task(output)
    assert same(last.run(changed), Task(None).run(changed))
    assert last.computed == ["e", "f"]


def test_fewer_pieces_end_well(output):
    stopped(output)
    task = Task(output)
    assert len(task.run(PIECES[:2])) == 2
    assert task.computed == []
    assert list(output.parent.iterdir()) == []


def test_results_of_another_model_are_not_used(output, whole):
    stopped(output)
    other = Task(output, "another model")
    assert same(other.run(), whole)
    assert len(other.computed) == len(PIECES)


def test_a_damaged_part_and_those_after_it_are_computed_anew(output, whole):
    for before in ("c", "e", "f"):
        stopped(output, before)
    second = sorted(output.with_name("out.csv.parts").glob("*.safetensors"))[1]
    second.write_bytes(second.read_bytes()[:-1] + b"x")
    task = Task(output)
    assert same(task.run(), whole)
    assert task.computed == ["c", "d", "e", "f"]


def test_a_task_that_goes_on_in_another_process_is_refused(output):
    stopped(output)
    with (
        lock_folder(output.with_name("out.csv.parts"), "another process"),
        pytest.raises(ConfigError, match="task=x: another process is writing to"),
    ):
        Task(output).run()


def test_without_a_named_output_nothing_is_kept(tmp_path):
    with pytest.raises(Stopped):
        Task(None).run(stop_before="d")
