"""Named points at which a test can kill this process, as power loss or the scheduler would.

Nothing happens unless `BIONEMO_FAULT_POINT` is set: `renamed` kills at the first passage of that
point, `renamed:3` at the third. The name goes to standard error first, so a test can see it fire.
"""

import os
import signal
from collections import Counter
from typing import Final

SAVE_POINTS: Final = (
    "before_folder",
    "folder_made",
    "shard_half_written",
    "shard_written",
    "piece_list_written",
    "index_written",
    "state_written",
    "manifest_written",
    "folder_synced",
    "renamed",
    "parent_synced",
    "verified",
)
"""The points of one save, in the order in which they are passed."""

PRUNE_POINTS: Final = ("before_prune", "moved_to_trash")
"""The points of pruning one checkpoint."""

VARIABLE: Final = "BIONEMO_FAULT_POINT"

_passed: Counter[str] = Counter()


def reached(point: str) -> None:
    """Kills this process with SIGKILL if the environment asks for it at `point`."""
    wanted = os.environ.get(VARIABLE)
    if not wanted:
        return
    name, _, passage = wanted.partition(":")
    if name != point:
        return
    _passed[point] += 1
    if _passed[point] == int(passage or 1):
        os.write(2, f"fault point {point} reached\n".encode())
        os.kill(os.getpid(), signal.SIGKILL)
