"""Recognising that a machine has run out of memory, descriptors or shared memory, as opposed to a bug."""

import errno
import re
from collections.abc import Iterator

from bionemo_core.errors import BioNeMoError, ResourceError

_AGAIN = "Then run the same command again; a training continues with resume=last."
_SHARED_MEMORY = (
    "Shared memory (/dev/shm) is full: free it or make it larger (in a container: --shm-size), or set "
    f"batch.num_workers=0. {_AGAIN}"
)
_HOST = (
    "The memory of this machine is used up: lower batch.num_workers, batch.micro_batch_size or batch.pack_window, or "
    f"end other programs. {_AGAIN}"
)
_DEVICE = (
    "The memory of the device is used up: lower batch.micro_batch_size (in other tasks task.tokens_per_batch or "
    "task.batch_size), batch.seq_length or the size of the model, use trainer.precision=bf16-mixed, or end other "
    f"programs on it. {_AGAIN}"
)
_DESCRIPTORS = (
    f"This process may open no more files: raise the limit (`ulimit -n 65536`) or lower batch.num_workers. {_AGAIN}"
)
_PROCESSES = f"No more processes may be started: raise the limit (`ulimit -u`) or lower batch.num_workers. {_AGAIN}"
_KILLED = (
    "The kernel does this when memory is short (see `dmesg`); a person or a scheduler may do it too. Lower "
    f"batch.num_workers (0 loads in the main process) or request more memory. {_AGAIN}"
)
ADVICE_OF_ERRNO = {
    errno.EMFILE: _DESCRIPTORS,
    errno.ENFILE: _DESCRIPTORS,
    errno.ENOMEM: _HOST,
    errno.EAGAIN: _PROCESSES,
}
_USED_UP = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)
"""Error codes of an exhausted machine, never of a file, address or record; EAGAIN may also be a lock held elsewhere."""
_ADVICE_OF_TEXT = (
    (re.compile(r"bus error|shared memory|/dev/shm|</torch_", re.IGNORECASE), _SHARED_MEMORY),
    (re.compile(r"DataLoader worker .* (killed by signal|exited unexpectedly)"), _KILLED),
    (re.compile(r"(CUDA|HIP|device).*out of memory|CUBLAS_STATUS_ALLOC_FAILED", re.IGNORECASE), _DEVICE),
    (re.compile(r"Too many open files", re.IGNORECASE), _DESCRIPTORS),
    (re.compile(r"can't allocate memory|cannot allocate memory|std::bad_alloc", re.IGNORECASE), _HOST),
    (re.compile(r"process pool was terminated abruptly", re.IGNORECASE), _KILLED),
)


def find_exhaustion(error: BaseException) -> ResourceError | None:
    """Return the classified error if the machine is at fault and not a bug; None for anything else.

    Torch reports a dead loader worker from a signal handler, so that it may come up anywhere, also as the cause of
    another error.
    """
    for one in chain_of(error):
        if isinstance(one, ResourceError):
            return one
        advice = _advice(one)
        if advice:
            return ResourceError(f"{_first_line(one)} {advice}")
    return None


def kind_of_failure(error: OSError, kind: type[BioNeMoError]) -> type[BioNeMoError]:
    """Return the error class for a system error: `ResourceError` if a limit was reached, else the given class."""
    return ResourceError if error.errno in _USED_UP else kind


def comes_from_exhaustion(error: BioNeMoError) -> bool:
    """Return whether a classified error was caused by a system error about a limit."""
    cause = error.__cause__
    while cause is not None and not (isinstance(cause, OSError) and cause.errno in _USED_UP):
        cause = cause.__cause__
    return cause is not None


def exhaustion_advice(error: BaseException) -> str:
    """Return advice for an error of an exhausted machine, unless its message has it already."""
    for one in chain_of(error, hidden=False):
        advice = _advice(one) if one is not error else None
        if advice:
            return "" if advice in str(error) else f" {advice}"
    return ""


def _advice(error: BaseException) -> str | None:
    if isinstance(error, OSError) and error.errno in ADVICE_OF_ERRNO:
        # A lock that another process holds has the number of a process that cannot be started, and names its file.
        return None if error.errno == errno.EAGAIN and error.filename else ADVICE_OF_ERRNO[error.errno]
    if isinstance(error, MemoryError):
        return _HOST
    if isinstance(error, OSError | RuntimeError):
        return next((advice for pattern, advice in _ADVICE_OF_TEXT if pattern.search(str(error))), None)
    return None


def _first_line(error: BaseException) -> str:
    # "DataLoader worker (pid 123) is killed by signal: Killed. " has all that there is to say.
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return f"{lines[0].rstrip('. ')}."


def chain_of(error: BaseException | None, *, hidden: bool = True) -> Iterator[BaseException]:
    """Yield an error, its causes and its contexts; on request also contexts that `from None` hides."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        beside = error.__context__ if hidden or not error.__suppress_context__ else None
        error = error.__cause__ or beside
