"""What the machine lacks is told from bugs, with advice that fits."""

import errno
import os
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from bionemo_core.checkpoint.blocks import whole_part
from bionemo_core.checkpoint.load import open_newest_valid
from bionemo_core.checkpoint.save import save
from bionemo_core.cli import failures
from bionemo_core.data.readers.decompress import open_bytes
from bionemo_core.errors import NetworkError, ResourceError, StorageError
from bionemo_core.io.atomic import storage_error, write_text
from bionemo_core.io.exhaustion import ADVICE_OF_ERRNO, find_exhaustion
from bionemo_core.io.http import Version, open_url
from bionemo_core.io.locks import lock_folder
from bionemo_core.reporting.metrics_file import read_rows


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (RuntimeError("DataLoader worker (pid 123) is killed by signal: Killed. "), ("pid 123", "batch.num_workers")),
        (RuntimeError("DataLoader worker (pid(s) 12, 13) exited unexpectedly"), ("12, 13", "see `dmesg`")),
        (RuntimeError("DataLoader worker (pid 9) is killed by signal: Bus error. "), ("pid 9", "--shm-size")),
        (RuntimeError("unable to write to file </torch_7_1>: No space left on device (28)"), ("--shm-size",)),
        (RuntimeError("unable to mmap 64 bytes from file </torch_shm_1>"), ("/dev/shm",)),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nmore"), ("batch.micro_batch_size",)),
        (
            RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried 9 bytes"),
            ("memory of this",),
        ),
        (MemoryError(), ("MemoryError", "batch.pack_window")),
        (OSError(errno.EMFILE, os.strerror(errno.EMFILE)), ("ulimit -n",)),
        (OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)), ("memory of this machine",)),
        (BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN)), ("ulimit -u",)),
        (ValueError("CUDA out of memory"), ()),
        (RuntimeError("shapes do not match"), ()),
    ],
)
def test_what_is_used_up(capsys, error, words):
    found = find_exhaustion(error)
    assert (found is not None) is bool(words)
    assert all(word in str(found) for word in words)
    with failures.ExitStatus() as status:
        raise error
    assert status.value == (9 if words else 70)
    assert ("Traceback" in capsys.readouterr().err) is (not words)
    assert not words or "resume=last" in str(found)


def test_a_worker_that_dies_while_something_else_fails_is_the_cause():
    try:
        try:
            raise RuntimeError("DataLoader worker (pid 5) is killed by signal: Killed. ")
        except RuntimeError:
            raise RuntimeError("the queue is empty")  # noqa: B904 - as libraries do
    except RuntimeError as error:
        found = find_exhaustion(error)
    assert isinstance(found, ResourceError)
    assert "pid 5" in str(found)


def test_a_classified_error_keeps_its_status(capsys):
    with failures.ExitStatus() as status:
        raise NetworkError("another rank died") from MemoryError()
    assert status.value == 8


def test_a_file_that_cannot_be_opened_for_want_of_descriptors_is_not_told_to_free_space(tmp_path):
    error = storage_error(tmp_path, OSError(errno.EMFILE, os.strerror(errno.EMFILE)))
    assert "ulimit -n" in str(error)
    assert "Free space" not in str(error)


@contextmanager
def no_more_files() -> Iterator[None]:
    """No descriptor but the open ones; they stay open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def _lock(folder: Path) -> None:
    with lock_folder(folder / "run", "run folder"):
        pass


PLACES: dict[str, Callable[[Path], object]] = {
    "nobody's": lambda folder: list(folder.iterdir()),
    "a file": lambda folder: write_text(folder / "run.json", "{}"),
    "a folder's lock": _lock,
    "a checkpoint": lambda folder: save(folder / "checkpoints", 1, [whole_part("w", torch.ones(3))], {}),
    "the list of checkpoints": open_newest_valid,
    "metrics": lambda folder: read_rows(folder / "metrics.csv"),
    "records": lambda folder: open_bytes(folder / "a.fasta", "fasta").__enter__(),
}


@pytest.mark.parametrize("place", PLACES)
def test_no_more_files_is_one_failure_wherever_it_strikes(tmp_path, capsys, place):
    for name in ("a.fasta", "metrics.csv"):
        (tmp_path / name).write_text(">a\nMKV\n")
    with failures.ExitStatus() as status, no_more_files():
        PLACES[place](tmp_path)
    error = capsys.readouterr().err
    assert status.value == 9, error
    assert error.startswith("error[resources]: ") and error.count("ulimit -n") == 1


def test_no_more_files_is_not_tried_again_as_a_connection():
    with pytest.raises(ResourceError, match="Too many open files"), no_more_files():
        open_url("http://127.0.0.1:9/a.fasta", 0, Version(), 1.0).__enter__()


def test_a_lock_that_another_holds_is_no_exhaustion(tmp_path, capsys):
    with failures.ExitStatus() as status, lock_folder(tmp_path, "run folder"), lock_folder(tmp_path, "run folder"):
        pass
    assert status.value == 2
    assert "another process is writing" in (error := capsys.readouterr().err) and "ulimit" not in error


def test_a_message_without_the_advice_gets_it_once(capsys):
    for text in ("index.json cannot be read", f"index.json: {ADVICE_OF_ERRNO[errno.EMFILE]}"):
        with failures.ExitStatus() as status:
            raise StorageError(text) from OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        assert status.value == ResourceError.exit_status
        assert capsys.readouterr().err.count("ulimit -n") == 1
    with failures.ExitStatus() as status:
        raise StorageError("index.json cannot be read") from OSError(errno.EACCES, "no")
    assert status.value == StorageError.exit_status
    assert "ulimit" not in capsys.readouterr().err
