"""Which checkpoints to delete, in an order in which no crash loses one that is needed."""

import math
import shutil
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Literal

from bionemo_core.checkpoint import folder_names, manifest
from bionemo_core.checkpoint.faults import check_fault_point
from bionemo_core.errors import CheckpointError, StorageError
from bionemo_core.io import atomic


def prune(
    root: Path,
    *,
    keep_last: int,
    best: Mapping[int, float],
    save_top_k: int,
    mode: Literal["min", "max"],
    protect: Collection[int] = (),
) -> list[int]:
    """Delete checkpoints under `root` that need not be kept; return their steps, oldest first.

    It keeps the newest `keep_last` complete checkpoints (at least two), the `save_top_k` best by `best` (step to
    metric; -1 keeps all that have a metric), and the steps in `protect`. Only rank 0 calls it, after `save` has
    returned and so has read the newest checkpoint back.

    Raises:
        StorageError: a folder cannot be listed or moved; checkpoints that were not moved are intact.
    """
    try:
        present = folder_names.list_checkpoints(root)
        complete = [step for step, path in present.items() if _is_complete(path)]
        newest = complete[-max(2, keep_last) :]
        if len(newest) < 2 or newest[-1] != max(present):
            return []
        kept = {*newest, *best_steps(best, save_top_k, mode, present), *protect}
        expired = [step for step in present if step not in kept]
        for step in expired:
            check_fault_point("before_prune")
            # A single rename hides the whole folder first, so that a kill during the removal does no harm.
            trash = root / (folder_names.TRASH + folder_names.step_name(step))
            shutil.rmtree(trash, ignore_errors=True)
            atomic.move(present[step], trash)
            check_fault_point("moved_to_trash")
            shutil.rmtree(trash, ignore_errors=True)
        if expired:
            atomic.sync(root)
    except OSError as failure:
        raise StorageError(
            f"checkpoint: old checkpoints in {root} cannot be removed: {failure.strerror} at {failure.filename}. "
            "The newest one is saved. Repair the folder's permissions, then resume."
        ) from failure
    return expired


def set_aside_after(root: Path, step: int) -> list[Path]:
    """Rename the checkpoints later than `step` to `superseded-...`; return their new paths.

    A run that resumes from an older checkpoint calls this. Its later checkpoints are damaged or belong to the
    abandoned continuation, so the next resume must not take them for the newest. This program never deletes them.

    Raises:
        StorageError: one cannot be renamed.
    """
    moved = []
    try:
        for later, path in folder_names.list_checkpoints(root).items():
            if later <= step:
                continue
            attempt = 1
            while (target := root / f"superseded-{attempt}-{folder_names.step_name(later)}").exists():
                attempt += 1
            atomic.move(path, target)
            moved.append(target)
        if moved:
            atomic.sync(root)
    except OSError as failure:
        raise StorageError(
            f"checkpoint: {failure.filename} is later than the resumed step {step} and cannot be renamed: "
            f"{failure.strerror}. Move it to another folder by hand, then resume."
        ) from failure
    return moved


def best_steps(best: Mapping[int, float], count: int, mode: str, present: Mapping[int, Path]) -> list[int]:
    """Return the `count` steps in `present` with the best metric in `best`, the best first; -1: all with a metric."""
    ranked = sorted(
        (step for step, metric in best.items() if step in present and not math.isnan(metric)),
        key=lambda step: (best[step] if mode == "min" else -best[step], -step),
    )
    return ranked if count < 0 else ranked[:count]


def _is_complete(folder: Path) -> bool:
    """Return whether the manifest is valid and all files exist with their sizes; their contents are not read."""
    try:
        listed = {name: facts.size for name, facts in manifest.read(folder).files.items()}
        found = manifest.regular_files(folder)
    except (CheckpointError, OSError):
        return False
    found.pop(folder_names.MANIFEST, None)
    return found == listed
