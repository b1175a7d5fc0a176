"""What a run that stops says is left: no message promises a resume that has nothing to go on from."""

import signal

import pytest

from bionemo_core.errors import ConfigError, NetworkError, Preempted, ResourceError, Stopped
from bionemo_core.runs.folder import RunFolder
from bionemo_core.runs.resume import explain_stop

LOST_RANK = NetworkError("another rank of this job died. Find the cause, then resume with resume=last.")
KILLED = RuntimeError("DataLoader worker (pid 5) is killed by signal: Killed. ")
NOTHING = "nothing to resume from: run the same command again"


@pytest.mark.parametrize(("error", "kind"), [(LOST_RANK, NetworkError), (KILLED, ResourceError)])
def test_an_error_before_the_first_checkpoint_promises_no_resume(tmp_path, error, kind):
    with pytest.raises(kind, match=NOTHING) as raised, explain_stop(RunFolder(tmp_path)):
        raise error
    assert str(raised.value).count("resume=last") == 1


@pytest.mark.parametrize("error", [LOST_RANK, KILLED])
def test_an_error_after_a_checkpoint_is_as_it_was(tmp_path, error):
    (RunFolder(tmp_path).checkpoints / "step-00000003").mkdir(parents=True)
    with pytest.raises(type(error)) as raised, explain_stop(RunFolder(tmp_path)):
        raise error
    assert raised.value is error


@pytest.mark.parametrize("error", [ConfigError("optim.lr: got -1"), ValueError("a bug")])
def test_an_error_that_advises_no_resume_is_as_it_was(tmp_path, error):
    with pytest.raises(type(error)) as raised, explain_stop(RunFolder(tmp_path)):
        raise error
    assert raised.value is error


def test_a_signal_before_the_first_checkpoint_promises_no_resume(tmp_path):
    with pytest.raises(Preempted, match=r"has no checkpoint\. Run the same command again"):  # noqa: SIM117
        with explain_stop(RunFolder(tmp_path)):
            raise Stopped(signal.SIGTERM)
