"""Starting and resuming a run: its folder, its checkpoint, and the settings that a resume may not change."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bionemo_core.checkpoint.load import CheckpointReader, open_checkpoint, open_newest_valid
from bionemo_core.config.schema import Choice, RunSpec
from bionemo_core.config.spec import difference
from bionemo_core.errors import BioNeMoError, ConfigError, Preempted, Stopped
from bionemo_core.io.exhaustion import find_exhaustion
from bionemo_core.protocols import DataSplits
from bionemo_core.runs.device import Device
from bionemo_core.runs.folder import (
    RunFolder,
    choose_alone,
    find_folder,
    lock,
    new_folder,
    record_session,
    refuse_begun,
    remove_unused,
)
from bionemo_core.runs.launch import Launch, agree, keep_environment

if TYPE_CHECKING:
    from bionemo_core.plugins.registry import Registry

log = logging.getLogger("bionemo")

FROZEN_GROUPS = ("model", "tokenizer", "data")
FROZEN_KEYS = ("seed", "optim", "batch.packing", "batch.pack_window", "batch.seq_length")
"""Keys that define the network, the state of the optimizer or the order of the data: a resume may not change them."""
_FILES = ("path", "val_path", "test_path", "dataset_path", "clusters", "split_file", "sequences", "labels", "mask")
_TABLES = ("format", "column", "data_col", "sequence_column", "data_sep", "header_lines")
READING_KEYS = frozenset((*_FILES, *_TABLES, "uf50_path", "uf90_path", "cluster_mapping_tsv"))
"""Keys of data that say where its files are and how they are read; they may change if the records are the same."""


def open_folder(spec: RunSpec) -> tuple[RunFolder, CheckpointReader | None]:
    """Return the run folder, and the checkpoint to resume from.

    Raises:
        ConfigError: `resume` names no run, or with `auto` one that has only begun.
        CheckpointError: the run has no valid checkpoint.
    """
    home = Path(spec.home)
    folder = find_folder(home, spec.name, spec.resume) if spec.resume else None
    if folder is None:
        if spec.resume:
            refuse_begun(home, spec.name)
        return new_folder(home, spec.name), None
    named = Path(str(spec.resume)).expanduser()
    if named.name.startswith("step-"):
        return folder, open_checkpoint(named)
    reader, skipped = open_newest_valid(folder.checkpoints)
    for checkpoint in skipped:
        log.warning("skipping checkpoint %s: %s", checkpoint.path, checkpoint.reason)
    return folder, reader


@contextmanager
def open_run(spec: RunSpec, device: Device) -> Iterator[tuple[RunFolder, CheckpointReader | None]]:
    """Start or join the ranks of a run, and open the same folder and checkpoint on each of them; rank 0 chooses.

    The folder is locked, and the environment restored afterwards. A run that fails before it writes anything leaves no
    folder.

    Raises:
        ConfigError: `resume` names no run, another process writes to the folder, or the launcher does not fit.
        CheckpointError: the run has no valid checkpoint.
    """
    with keep_environment(), ExitStack() as stack:

        def choose() -> tuple[RunFolder, CheckpointReader | None]:
            with choose_alone(Path(spec.home), spec.name, spec.resume):
                folder, reader = open_folder(spec)
                stack.enter_context(lock(folder))
                stack.push(lambda failure, *_: remove_unused(folder) if failure else None)
                record_session(folder)
            return folder, reader

        launch = Launch(spec, device)
        # Where this process starts the others, a failure comes before they run.
        opened = choose() if launch.is_first_process else None
        ranks = launch.start()

        def name_choice() -> tuple[Path, Path | None]:
            nonlocal opened
            opened = opened or choose()
            return opened[0].path, opened[1].folder if opened[1] else None

        path, checkpoint = agree(ranks, name_choice)
        yield opened or (RunFolder(path), open_checkpoint(checkpoint, verify=False) if checkpoint else None)


@contextmanager
def explain_stop(folder: RunFolder) -> Iterator[None]:
    """Say what is left when a signal stops a run outside of its training steps, or an error before any checkpoint.

    Raises:
        Preempted: a signal has stopped it.
        BioNeMoError: the error, of its own class, which no longer promises that resume=last goes on.
    """
    try:
        yield
    except Stopped as stop:
        kept = (
            f"its checkpoints are in {folder.checkpoints}. Continue with resume=last."
            if _has_checkpoint(folder)
            else f"no step was completed, and {folder.path} has no checkpoint. Run the same command again."
        )
        raise Preempted(f"training: stopped by {stop.name}; {kept}") from None
    except Exception as error:
        failure = error if isinstance(error, BioNeMoError) else find_exhaustion(error)
        if failure is None or "resume" not in str(failure) or _has_checkpoint(folder):
            raise
        raise type(failure)(
            f"{failure} But nothing of this run was saved before, so there is nothing to resume from: run the same "
            "command again without resume."
        ) from error


def _has_checkpoint(folder: RunFolder) -> bool:
    return any(folder.checkpoints.glob("step-*"))


def fill_defaults(saved: RunSpec, registry: Registry) -> RunSpec:
    """Return the specification with defaults for parameters that components gained since it was saved."""
    completed: dict[str, Any] = {}
    for group in (*FROZEN_GROUPS, "optim", "scheduler"):
        choice: Choice = getattr(saved, group)
        if (found := registry.find(group, choice.qualified_name)) is not None:
            completed[group] = replace(choice, params=found.complete(choice.params))
    return replace(saved, **completed)


def keep_first_weights(saved: RunSpec, spec: RunSpec) -> RunSpec:
    """Set `restore_from_path` of a resumed run to its first weights; the command may name the same ones again.

    Raises:
        ConfigError: the command names other weights.
    """
    given, first = spec.restore_from_path, saved.restore_from_path
    if given is not None and given != first and not (first and _same_place(given, first)):
        raise ConfigError(
            f"resume: this run was started {f'from {first}' if first else 'from random weights'}, and "
            f"restore_from_path names {given}. Leave restore_from_path out to resume, or leave resume out to "
            "start a new run."
        )
    return replace(spec, restore_from_path=first)


def _same_place(first: str, second: str) -> bool:
    return Path(first).expanduser().resolve() == Path(second).expanduser().resolve()


def check_resume(saved: RunSpec, spec: RunSpec, reader: CheckpointReader, splits: DataSplits) -> None:
    """Check that a resume has the same network and the same data; files with the same records may have moved.

    Raises:
        ConfigError: one of them changed; the message says what.
    """
    old = reader.facts.get("data_fingerprint")
    same_records = bool(old) and old == splits.fingerprint
    changed = [change for change in difference(saved, spec) if _is_frozen(change.key)]
    if changed := [change for change in changed if not (same_records and _is_read_by(change.key))]:
        listed = "; ".join(f"{change.key}: {change.old} -> {change.new}" for change in changed)
        raise ConfigError(
            f"resume: this run was started with other settings: {listed}. Give the old values, or start a new run "
            "from these weights with restore_from_path."
        )
    if old != splits.fingerprint:
        raise ConfigError(
            f"resume: the data changed since the checkpoint (fingerprint {old} then, {splits.fingerprint} now). "
            "Put the old files back, or start a new run from these weights with restore_from_path."
        )


def _is_read_by(key: str) -> bool:
    group, _, leaf = key.partition(".")
    return group == "data" and leaf in READING_KEYS


def _is_frozen(key: str) -> bool:
    group, _, leaf = key.partition(".")
    # A plugin may be upgraded between two starts; loading checks that the weights still fit.
    return key in FROZEN_KEYS or (group in FROZEN_GROUPS and leaf not in ("version", "distribution"))
