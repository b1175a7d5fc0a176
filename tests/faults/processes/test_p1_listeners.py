"""P1: nobody has to listen. The work goes on to its end, and the status is that of the work."""

import json

import pytest
from matrix import row
from runs import Home

pytestmark = pytest.mark.faults

SHORT = ("trainer.max_steps=8", "trainer.val_check_interval=4", "checkpoint.every_n_steps=4", "scheduler=constant")
CASES = (
    {"1": "gone"},
    {"1": "never"},
    {"1": "closed", "2": "closed"},
    {"1": "head"},
    {"2": "gone"},
    {"1": "closed"},
    {"1": "full disk"},
    {"1": "terminal", "2": "terminal"},
    {"1": "slow"},
    {"2": "closed"},
    {"2": "never"},
    {"1": "gone", "2": "gone"},
)
"""Who listens to descriptors 1 and 2; the cases of every change first."""
SAID = {"gone": "Broken pipe", "head": "Broken pipe", "never": "has stopped reading", "full disk": "No space left"}


def test_p1_the_work_goes_on(home: Home) -> None:
    matrix = row("P1", subset=3, full=12)
    for number, streams in enumerate(CASES[: matrix.n]):
        with matrix.case(str(streams)):
            run = home.start(f"name=listener-{number}", *SHORT, streams=streams)
            assert run.wait() == 0, run.output()
            assert run.checkpoints[-1] == 8
            assert json.loads((run.folder / "summary.json").read_text())["steps"] == 8
            if len(streams) == 1:
                ((stream, listener),) = streams.items()
                said = run.output().count(f"warning: {'stdout' if stream == '1' else 'stderr'}: ")
                assert said == (listener in SAID), run.output()
                assert SAID.get(listener, "") in run.output()
    matrix.check()


def test_p1_a_failure_keeps_its_status_and_its_name(home: Home) -> None:
    run = home.start("name=unheard", *SHORT, "optim.lr=1e36", streams={"1": "gone"})
    assert run.wait() == 6
    assert "error[non-finite]" in run.output()


@pytest.mark.parametrize(("listener", "status"), [("gone", 0), ("head", 0), ("closed", 0), ("full disk", 7)])
def test_p1_what_a_command_is_for_may_be_cut_by_its_reader_only(home: Home, listener: str, status: int) -> None:
    run = home.task("help", "model=esm1nv", "name=help", streams={"1": listener})
    assert run.wait() == status
    assert ("error[storage]: stdout cannot be written: No space left" in run.output()) is bool(status)
    assert "warning" not in run.output()
