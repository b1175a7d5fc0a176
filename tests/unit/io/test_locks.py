"""A lock keeps other processes and threads out, lasts as long as its process, and is no child's."""

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from bionemo_core.errors import ConfigError, StorageError
from bionemo_core.io.locks import lock, lock_beside, lock_folder

HOLD = """
import sys, time
from pathlib import Path
from bionemo_core.io.locks import lock
with lock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that holds `lock`."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path / "lock")], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def is_free(path: Path) -> bool:
    try:
        with lock(path):
            return True
    except BlockingIOError:
        return False


def test_another_process_is_kept_out_until_it_is_killed(tmp_path, holder):
    path = tmp_path / "lock"
    with pytest.raises(BlockingIOError) as raised, lock(path):
        raise AssertionError
    assert raised.value.filename == str(path)
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert is_free(path)


@pytest.mark.processes
def test_a_worker_that_outlives_a_killed_process_keeps_nobody_out(tmp_path):
    code = (
        "import os, signal, sys, time\n"
        "from pathlib import Path\n"
        "from bionemo_core.io.locks import lock\n"
        "with lock(Path(sys.argv[1])):\n"
        "    worker = os.fork()\n"
        "    if worker:\n"
        "        print(worker, flush=True)\n"
        "    time.sleep(60)\n"
    )
    path = tmp_path / "lock"
    parent = subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, text=True)
    worker = int(parent.stdout.readline())
    try:
        assert not is_free(path)
        time.sleep(0.2)  # a child that has not run yet has not closed its copy
        parent.kill()
        parent.wait()
        assert is_free(path)
    finally:
        os.kill(worker, signal.SIGKILL)
        parent.stdout.close()


def test_waiting_says_what_for_and_ends_with_the_other_process(tmp_path, holder, caplog):
    caplog.set_level(logging.INFO)
    timer = threading.Timer(0.2, holder.kill)
    timer.start()
    started = time.monotonic()
    with lock(tmp_path / "lock", waiting="prepare: waiting."):
        assert time.monotonic() - started >= 0.15
    timer.join()
    assert caplog.messages == ["prepare: waiting."]


def test_two_users_in_one_process_exclude_each_other(tmp_path):
    path = tmp_path / "lock"
    with lock(path):
        assert not is_free(path)
        assert not is_free(path)  # to ask has not let go of it
    assert is_free(path)
    inside, most = [], []

    def use(number):
        for _ in range(50):
            with lock(path, waiting="waiting"):
                inside.append(number)
                most.append(len(inside))
                inside.remove(number)

    threads = [threading.Thread(target=use, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert max(most) == 1 and len(most) == 200


def fork(answer) -> int:
    """A child that ends with the status that `answer()` gives, and in any case after a few seconds."""
    child = os.fork()
    if child == 0:
        try:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(10)
            os._exit(answer())
        finally:
            os._exit(99)
    return child


def status(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.processes
def test_a_forked_child_neither_holds_nor_frees_it(tmp_path):
    path = tmp_path / "lock"
    workers = []
    for _ in range(20):
        with lock(path):
            workers.append(fork(lambda: time.sleep(5) or 0))  # a loader worker that outlives its parent's lock
        assert is_free(path)
    for worker in workers:
        os.kill(worker, signal.SIGKILL)
        status(worker)
    with lock(path):
        assert status(fork(lambda: is_free(path))) == 0  # the child learns that its parent holds it
        assert not is_free(path)  # and its end has not let go of it


@pytest.mark.processes
def test_a_child_may_leave_the_block_that_it_was_forked_in(tmp_path):
    path = tmp_path / "lock"

    def leave() -> int:
        holding.__exit__(None, None, None)
        return is_free(path)

    holding = lock(path)
    holding.__enter__()
    assert status(fork(leave)) == 0
    assert not is_free(path)
    holding.__exit__(None, None, None)
    assert is_free(path)


@pytest.mark.processes
def test_forks_while_other_threads_lock_end_well(tmp_path):
    stop = threading.Event()

    def use():
        while not stop.is_set():
            is_free(tmp_path / "other")

    thread = threading.Thread(target=use)
    thread.start()
    try:
        for _ in range(100):
            assert status(fork(lambda: is_free(tmp_path / "lock"))) == 1
    finally:
        stop.set()
        thread.join()


def test_names_of_lock_files(tmp_path):
    with lock_beside(tmp_path / "new" / "store", "prepare"):
        assert not is_free(tmp_path / "new" / ".store.lock")
    with lock_folder(tmp_path / "run", "run folder"):
        assert not is_free(tmp_path / "run" / ".lock")
        with pytest.raises(ConfigError, match=r"run folder: another process is writing to .*run; wait"):
            lock_folder(tmp_path / "run", "run folder").__enter__()


def test_an_error_in_the_block_is_its_own(tmp_path):
    with pytest.raises(BlockingIOError, match="mine"), lock_folder(tmp_path, "test"):
        raise BlockingIOError("mine")
    assert is_free(tmp_path / ".lock")


def test_a_folder_that_cannot_be_written_is_a_storage_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="cannot be written"), lock_beside(tmp_path / "file" / "a", "test"):
        raise AssertionError
