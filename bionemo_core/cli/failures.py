"""The one place where a failure becomes a message on stderr and an exit status."""

import re
import signal
import sys
import traceback

from bionemo_core._early_signals import SIGNAL_EXIT, STOPPED_LINE, is_first_rank
from bionemo_core.cli.blame import describe_bug
from bionemo_core.config.v1.range_quoting import spelling
from bionemo_core.errors import (
    EXIT_BUG,
    BioNeMoError,
    ConfigError,
    DataError,
    NetworkError,
    Preempted,
    ResourceError,
    Stopped,
    StorageError,
)
from bionemo_core.io.exhaustion import chain_of, comes_from_exhaustion, exhaustion_advice, find_exhaustion

_SETTING = re.compile(r"Error merging override \+*([^=]+)=(.*)")
_EXPECTED = {
    "could not be converted to Integer": "an integer",
    "could not be converted to Float": "a number",
    "is not a valid bool": "true or false",
    "to string": "one text",
    "is not a ListConfig": "a list in square brackets",
    "is not a DictConfig": "a mapping in braces",
}
"""What OmegaConf says of a value of the wrong type, and what its key takes."""


class ExitStatus:
    """The exit status of the command, as a context manager.

    An exception in its block becomes a message on stderr and an exit status; it is not raised further.
    """

    def __init__(self) -> None:
        self.value = 0

    def __enter__(self) -> "ExitStatus":
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        try:
            sys.stdout.flush()
        except StorageError as failure:
            error = error or failure
        if error is None:
            return True
        if not isinstance(error, BioNeMoError):
            error = _find_stop(error) or error
        if isinstance(error, Stopped):
            if is_first_rank():
                sys.stderr.write(STOPPED_LINE.format(error.name))
            self.value = SIGNAL_EXIT + error.number
        elif isinstance(error, Exception):
            self.value = _report(error)
        else:  # such as SystemExit
            return False
        return True


def _find_stop(error: BaseException) -> Stopped | None:
    """Return the signal that an error comes from; a library may raise something else where a signal interrupts it."""
    for one in chain_of(error):
        if isinstance(one, KeyboardInterrupt):
            return Stopped(signal.SIGINT)
        if isinstance(one, Stopped):
            return one
    return None


def _report(error: Exception) -> int:
    classified = classify(error)
    if classified is None:
        traceback.print_exception(error)
        sys.stderr.write(f"error[bug]: {describe_bug(error)}\n")
        return EXIT_BUG
    text = f"{classified}{_removal_advice(classified)}{exhaustion_advice(classified)}"
    kind = ResourceError if comes_from_exhaustion(classified) else type(classified)
    if kind is not Preempted or is_first_rank():  # a signal stops all ranks, and only the first keeps what is done
        sys.stderr.write(f"error[{kind.code}]: {text}\n")
    return kind.exit_status


def _removal_advice(error: BioNeMoError) -> str:
    """Return how to remove a cached download that the message names."""
    download = sys.modules.get("bionemo_core.io.download")
    return "" if download is None or not isinstance(error, DataError) else str(download.removal_advice(str(error)))


def classify(error: Exception) -> BioNeMoError | None:
    """Return the failure as a `BioNeMoError`, or None; errors of Hydra and OmegaConf become a `ConfigError`."""
    if isinstance(error, BioNeMoError):
        return error
    exhaustion = find_exhaustion(error)
    if exhaustion is not None or "hydra" not in sys.modules:
        return exhaustion
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    if isinstance(error, HydraException | OmegaConfBaseException):
        inner: BaseException | None = error
        while inner is not None:  # Hydra wraps our own error about a user's file, which has the better message
            if isinstance(inner, BioNeMoError):
                return inner
            inner = inner.__cause__ or inner.__context__
        return ConfigError(_text(error))
    if type(error).__module__.startswith("submitit."):
        return NetworkError(
            f"hydra/launcher: a job of the sweep ended without a result: {str(error).splitlines()[0]} Its output is in "
            ".submitit of the sweep's folder. With resume=auto and a name for each job, the same sweep continues it."
        )
    if isinstance(error, OSError) and _raised_by_hydra(error):
        return StorageError(
            f"{error.filename}: {error.strerror}. Set home or BIONEMO_HOME to a folder you can write to."
        )
    return None


def _text(error: Exception) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    override = getattr(error, "override", None)  # the override that Hydra's parser could not read
    if override and lines:
        key, _, value = str(override).partition("=")
        return (
            f"{key}: the value {value} cannot be read. To give it as one text, type {spelling(key, value)}; in a list "
            "or a mapping, put such a text in quotes."
        )
    cause = error.__cause__
    if cause is not None and str(cause).splitlines():
        first_of_cause = str(cause).splitlines()[0]
        if first_of_cause not in lines:
            lines.append(first_of_cause)
    setting = _SETTING.fullmatch(lines[0]) if lines else None
    expected = [words for said, words in _EXPECTED.items() if any(said in line for line in lines[1:])]
    if setting and expected:
        return f"{setting[1]}: got {setting[2]}, expected {expected[0]}."
    # OmegaConf's last lines name internal classes, which mean nothing to a user.
    kept = [line for line in lines if not line.strip().startswith(("object_type=", "reference_type=", "full_key="))]
    return "\n".join(kept)


def _raised_by_hydra(error: OSError) -> bool:
    frames = [frame.f_globals.get("__name__", "") for frame, _ in traceback.walk_tb(error.__traceback__)]
    return any(name.startswith("hydra.") for name in frames) and not any(
        name.startswith("bionemo_core.tasks") for name in frames
    )
