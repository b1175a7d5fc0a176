"""Every failure a user can meet, with the status the command exits with.

A message says what, where, what was got, what was expected and what to do.
"""

from typing import ClassVar


class BioNeMoError(Exception):
    """Root of all classified failures; anything else that escapes is a bug (exit 70)."""

    code: ClassVar[str] = "bug"
    exit_status: ClassVar[int] = 70


class ConfigError(BioNeMoError):
    """The command line, a configuration or a plugin's offer cannot be used as given."""

    code = "config"
    exit_status = 2


class DataError(BioNeMoError):
    """An input file or record cannot be used."""

    code = "data"
    exit_status = 3


class ArtefactError(BioNeMoError):
    """Something foreign was refused: an archive, weights, or a config that travels with them."""

    code = "artefact"
    exit_status = 4


class CheckpointError(BioNeMoError):
    """No checkpoint that verifies, or one that does not fit this run."""

    code = "checkpoint"
    exit_status = 5


class NonFiniteError(BioNeMoError):
    """A loss or gradient norm was NaN or infinite; nothing was updated with it."""

    code = "non-finite"
    exit_status = 6


class StorageError(BioNeMoError):
    """The file system refused a write, a rename or a flush."""

    code = "storage"
    exit_status = 7


class NetworkError(BioNeMoError):
    """A download failed, or another rank of the job is gone."""

    code = "network"
    exit_status = 8


class Preempted(BioNeMoError):
    """A signal asked the run to stop; it saved a checkpoint and can be resumed."""

    code = "preempted"
    exit_status = 75


EXIT_BUG = 70
EXIT_DONE = 0
