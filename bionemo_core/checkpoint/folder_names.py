"""The names of a checkpoint's files: `root/step-00000120/{manifest,index,state}.json` and safetensors files."""

import re
from pathlib import Path

MANIFEST = "manifest.json"
INDEX = "index.json"
STATE = "state.json"
STATE_TENSORS = "state.safetensors"

TEMPORARY = ".tmp-"
REPLACED = ".replaced-"
TRASH = ".trash-"

_STEP = re.compile(r"step-(\d{8,})\Z", re.ASCII)


def step_name(step: int) -> str:
    """Return the folder name of step `step`; up to 8 digits, names sort like their steps."""
    return f"step-{step:08d}"


def parse_step(name: str) -> int | None:
    """Return the step that a folder name encodes, None for any other name."""
    match = _STEP.match(name)
    if match is None or step_name(int(match[1])) != name:
        return None
    return int(match[1])


def shard_name(rank: int, size: int) -> str:
    """Return the name of the file that rank `rank` of `size` writes its tensors to."""
    return f"shard-{rank:05d}-of-{size:05d}.safetensors"


def piece_list_name(rank: int, size: int) -> str:
    """Return the name of the file that tells rank 0, during a save, what the shard of rank `rank` holds."""
    return f"pieces-{rank:05d}-of-{size:05d}.json"


def list_checkpoints(root: Path) -> dict[int, Path]:
    """Return the checkpoint folders under `root` by step, oldest first.

    A folder that a killed save moved aside counts if the save did not put a new one in its place.

    Raises:
        OSError: `root` exists but cannot be listed.
    """
    if not root.exists():
        return {}
    found: dict[int, Path] = {}
    aside: dict[int, Path] = {}
    for entry in root.iterdir():
        step = parse_step(entry.name)
        if step is not None:
            found[step] = entry
        elif entry.name.startswith(REPLACED):
            step = parse_step(entry.name.removeprefix(REPLACED))
            if step is not None:
                aside[step] = entry
    return dict(sorted({**aside, **found}.items()))
