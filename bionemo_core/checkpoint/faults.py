"""Named points at which a test can kill this process, as a power failure or the scheduler would.

Nothing happens unless `BIONEMO_FAULT_POINT` is set. `renamed` kills the process the first time it reaches that point,
`renamed:3` the third time. The process first writes the name to standard error, so that a test can see it.
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
"""The points of one save, in order. Pruning a checkpoint has two more: `before_prune` and `moved_to_trash`."""

VARIABLE: Final = "BIONEMO_FAULT_POINT"

_passages: Counter[str] = Counter()


def check_fault_point(point: str) -> None:
    """Kill this process with SIGKILL if the environment variable names `point`."""
    wanted = os.environ.get(VARIABLE)
    if not wanted:
        return
    name, _, passage = wanted.partition(":")
    if name != point:
        return
    _passages[point] += 1
    if _passages[point] == int(passage or 1):
        os.write(2, f"fault point {point} reached\n".encode())
        os.kill(os.getpid(), signal.SIGKILL)
