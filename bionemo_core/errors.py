"""The failures that a user can meet, each with the exit status of the command.

A message says what failed, where, what was got, what was expected, and what to do.
"""

import signal
from typing import ClassVar


class BioNeMoError(Exception):
    """The base class of all expected failures; any other exception is a bug (exit status 70)."""

    code: ClassVar[str] = "bug"
    exit_status: ClassVar[int] = 70


class ConfigError(BioNeMoError):
    """The command line, a configuration or a plugin's component is invalid."""

    code = "config"
    exit_status = 2


class DataError(BioNeMoError):
    """An input file or record cannot be used."""

    code = "data"
    exit_status = 3


class ArtefactError(BioNeMoError):
    """An archive, weights, or a config stored with them was refused."""

    code = "artefact"
    exit_status = 4


class CheckpointError(BioNeMoError):
    """There is no valid checkpoint, or it does not fit this run."""

    code = "checkpoint"
    exit_status = 5


class NonFiniteError(BioNeMoError):
    """A loss, a gradient norm, a weight or a result was NaN or infinite; nothing was updated or written with it."""

    code = "non-finite"
    exit_status = 6

    @classmethod
    def of_result(cls, what: str) -> "NonFiniteError":
        """Return the error about something that a model computes, such as `embedding: states`."""
        return cls(
            f"{what} are NaN or infinite. The weights of the model are damaged, or too large for this precision: check "
            "restore_from_path, or set trainer.precision=32."
        )


class StorageError(BioNeMoError):
    """The file system refused a write, a rename or a flush."""

    code = "storage"
    exit_status = 7


class NetworkError(BioNeMoError):
    """A download or an upload failed, or another rank of the job has stopped."""

    code = "network"
    exit_status = 8


class ResourceError(BioNeMoError):
    """Memory, file descriptors or shared memory are used up, or a worker process was killed."""

    code = "resources"
    exit_status = 9


class Preempted(BioNeMoError):
    """A signal asked the work to stop; the work so far is kept, and the same command, or resume=last, continues it."""

    code = "preempted"
    exit_status = 75


class Stopped(BaseException):
    """A signal has ended the work at once; like `KeyboardInterrupt`, only the command itself catches it."""

    def __init__(self, number: int) -> None:
        """Take the number of the signal."""
        super().__init__(number)
        self.number = number

    @property
    def name(self) -> str:
        """The signal's name."""
        return signal.Signals(self.number).name


EXIT_BUG = 70
EXIT_DONE = 0
