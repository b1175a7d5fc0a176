"""The one place where a failure becomes a message on stderr and an exit status."""

import os
import sys
import traceback

from bionemo_core.errors import EXIT_BUG, BioNeMoError, ConfigError, StorageError

EXIT_INTERRUPTED = 130


class ExitStatus:
    """The exit status of the command: a block of code sets it, or fails and has it set.

    A failure inside the block becomes a message on stderr, and ends there.
    """

    def __init__(self) -> None:
        self.value = 0

    def __enter__(self) -> "ExitStatus":
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        try:
            if error is None:
                sys.stdout.flush()
        except BrokenPipeError as failure:
            error = failure
        if error is None:
            return True
        if isinstance(error, BrokenPipeError):
            # The reader of a pipe, such as `head`, has left; without this Python complains once more at its exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            self.value = 0
        elif isinstance(error, KeyboardInterrupt):
            sys.stderr.write("error[interrupted]: stopped before there was anything to save.\n")
            self.value = EXIT_INTERRUPTED
        elif isinstance(error, Exception):
            self.value = _report(error)
        else:  # SystemExit and the like
            return False
        return True


def _report(error: Exception) -> int:
    classified = _classified(error)
    if classified is None:
        traceback.print_exception(error)
        sys.stderr.write(
            "error[bug]: this is a bug in bionemo-run or in a plugin; please report it with the lines above.\n"
        )
        return EXIT_BUG
    sys.stderr.write(f"error[{classified.code}]: {classified}\n")
    return classified.exit_status


def _classified(error: Exception) -> BioNeMoError | None:
    """Return the failure as one of ours; errors of Hydra and OmegaConf are configuration errors."""
    if isinstance(error, BioNeMoError):
        return error
    if "hydra" not in sys.modules:
        return None
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    if isinstance(error, HydraException | OmegaConfBaseException):
        inner: BaseException | None = error
        while inner is not None:  # a file of the user's is read inside Hydra, our own message is the better one
            if isinstance(inner, BioNeMoError):
                return inner
            inner = inner.__cause__ or inner.__context__
        return ConfigError(_text(error))
    if isinstance(error, OSError) and _raised_by_hydra(error):
        return StorageError(
            f"{error.filename}: {error.strerror}. Set home or BIONEMO_HOME to a folder you can write to."
        )
    return None


def _text(error: Exception) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    override = getattr(error, "override", None)  # Hydra's parser keeps what it could not read
    if override and lines and override not in lines[0]:
        lines[0] = f"{override}: {lines[0]}"
    cause = error.__cause__
    if cause is not None and str(cause).splitlines():
        first_of_cause = str(cause).splitlines()[0]
        if first_of_cause not in lines:
            lines.append(first_of_cause)
    # OmegaConf's last lines name its own classes, which say nothing to the person at the keyboard.
    kept = [line for line in lines if not line.strip().startswith(("object_type=", "reference_type=", "full_key="))]
    return "\n".join(kept)


def _raised_by_hydra(error: OSError) -> bool:
    frames = [frame.f_globals.get("__name__", "") for frame, _ in traceback.walk_tb(error.__traceback__)]
    return any(name.startswith("hydra.") for name in frames) and not any(
        name.startswith("bionemo_core.tasks") for name in frames
    )
