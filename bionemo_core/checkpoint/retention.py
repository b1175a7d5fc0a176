"""Which checkpoints to delete, in an order that no crash can turn into a loss."""

import math
import shutil
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Literal

from bionemo_core.checkpoint import folder_names, manifest
from bionemo_core.checkpoint.faults import reached
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
    """Deletes checkpoints under `root` and returns their steps, oldest first.

    Kept are the newest `keep_last` (never fewer than two) whose files are all there, the `save_top_k`
    best by `best` (step -> metric; -1 keeps all that have one), and `protect`. Only rank 0 calls it,
    after `save` has returned, which means that the newest one has been read back.

    Raises:
        StorageError: a folder cannot be listed or moved; what was not moved is intact.
    """
    try:
        present = folder_names.published(root)
        whole = [step for step, path in present.items() if _looks_whole(path)]
        newest = whole[-max(2, keep_last) :]
        if len(newest) < 2 or newest[-1] != max(present):
            return []
        kept = {*newest, *best_steps(best, save_top_k, mode, present), *protect}
        doomed = [step for step in present if step not in kept]
        for step in doomed:
            reached("before_prune")
            # One rename takes it out of sight whole; a kill half-way through the removal is then harmless.
            trash = root / (folder_names.TRASH + folder_names.step_name(step))
            shutil.rmtree(trash, ignore_errors=True)
            atomic.move(present[step], trash)
            reached("moved_to_trash")
            shutil.rmtree(trash, ignore_errors=True)
        if doomed:
            atomic.sync(root)
    except OSError as failure:
        raise StorageError(
            f"checkpoint: old checkpoints in {root} cannot be removed: {failure.strerror} at {failure.filename}. "
            "The newest one is saved; mend the folder's permissions, then resume."
        ) from failure
    return doomed


def set_aside_after(root: Path, step: int) -> list[Path]:
    """Renames the checkpoints later than `step` to `superseded-...` and returns their new paths.

    For a run that goes on from an older checkpoint: its own later ones are another future, or are
    damaged, and must not be the newest at the next resume. They are never deleted by this program.

    Raises:
        StorageError: one cannot be renamed.
    """
    moved = []
    try:
        for later, path in folder_names.published(root).items():
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
            f"{failure.strerror}. Move it elsewhere by hand, then resume."
        ) from failure
    return moved


def best_steps(best: Mapping[int, float], count: int, mode: str, present: Mapping[int, Path]) -> list[int]:
    """The steps among `present` that are best by `best` (step -> metric), the best first; -1: all that have one."""
    ranked = sorted(
        (step for step, metric in best.items() if step in present and not math.isnan(metric)),
        key=lambda step: (best[step] if mode == "min" else -best[step], -step),
    )
    return ranked if count < 0 else ranked[:count]


def _looks_whole(folder: Path) -> bool:
    """Whether the manifest is sound and all files are there with their sizes; contents are not read."""
    try:
        listed = {name: facts.size for name, facts in manifest.read(folder).files.items()}
        found = manifest.regular_files(folder)
    except (CheckpointError, OSError):
        return False
    found.pop(folder_names.MANIFEST, None)
    return found == listed
