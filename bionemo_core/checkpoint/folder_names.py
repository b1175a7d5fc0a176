"""Where a checkpoint's parts lie: `root/step-00000120/{manifest,index,state}.json` and safetensors files."""

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
    """The folder name of step `step`; names sort as their steps do."""
    return f"step-{step:08d}"


def step_of(name: str) -> int | None:
    """The step that a folder name stands for, None for any other name."""
    match = _STEP.match(name)
    if match is None or step_name(int(match[1])) != name:
        return None
    return int(match[1])


def shard_name(rank: int, size: int) -> str:
    """The file that rank `rank` of `size` writes its tensors to."""
    return f"shard-{rank:05d}-of-{size:05d}.safetensors"


def piece_list_name(rank: int, size: int) -> str:
    """The file in which a rank tells rank 0, during a save, what its shard holds."""
    return f"pieces-{rank:05d}-of-{size:05d}.json"


def published(root: Path) -> dict[int, Path]:
    """The checkpoint folders under `root` by step, oldest first.

    A folder that a killed save had moved aside counts where its successor never arrived.

    Raises:
        OSError: `root` exists but cannot be listed.
    """
    if not root.exists():
        return {}
    found: dict[int, Path] = {}
    aside: dict[int, Path] = {}
    for entry in root.iterdir():
        step = step_of(entry.name)
        if step is not None:
            found[step] = entry
        elif entry.name.startswith(REPLACED):
            step = step_of(entry.name.removeprefix(REPLACED))
            if step is not None:
                aside[step] = entry
    return dict(sorted({**aside, **found}.items()))
