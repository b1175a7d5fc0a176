"""A first signal is remembered without further effect, and a second one does no harm."""

import os
import signal
import threading

import pytest

from bionemo_core.errors import Stopped
from bionemo_core.training.signals import STOP_SIGNALS, StopSignal


@pytest.mark.parametrize("number", STOP_SIGNALS, ids=lambda number: number.name)
def test_the_first_signal_is_remembered(number):
    with StopSignal() as stop:
        assert stop.requested is None
        os.kill(os.getpid(), number)
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.requested == number.name
    assert stop.requested == number.name


def test_handlers_are_restored_even_if_another_library_put_its_own_in_between():
    before = [signal.getsignal(number) for number in STOP_SIGNALS]
    with StopSignal() as stop:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        stop.install()
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.requested == "SIGTERM"
    assert [signal.getsignal(number) for number in STOP_SIGNALS] == before


@pytest.mark.parametrize("number", STOP_SIGNALS, ids=lambda number: number.name)
def test_work_that_keeps_nothing_is_ended_once(number):
    with StopSignal(remember=False):
        with pytest.raises(Stopped) as stopped:
            os.kill(os.getpid(), number)
        os.kill(os.getpid(), signal.SIGTERM)  # while it cleans up
    assert stopped.value.name == number.name


def test_a_second_signal_does_not_reach_the_work_outside():
    with StopSignal(remember=False):
        with pytest.raises(Stopped), StopSignal(remember=False):
            os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)


def test_a_hangup_that_is_ignored_stays_so():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as `nohup` does
    try:
        with StopSignal() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            assert stop.requested is None
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_forked_worker_dies_of_the_signal():
    with StopSignal(remember=False):
        worker = os.fork()
        if worker == 0:
            os.kill(os.getpid(), signal.SIGTERM)
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(worker, 0)[1]) == -signal.SIGTERM


def test_in_another_thread_nothing_is_installed():
    before = [signal.getsignal(number) for number in STOP_SIGNALS]
    seen = []

    def enter():
        with StopSignal() as stop:
            seen.append((stop.requested, [signal.getsignal(number) for number in STOP_SIGNALS]))

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert seen == [(None, before)]
