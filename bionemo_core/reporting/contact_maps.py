"""Heat maps of predicted contacts, one picture for each protein."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bionemo_core.inference.embedding import CONTACTS
from bionemo_core.inference.outputs import ADVICE, Part
from bionemo_core.io.plots import add_title, new_plot, save_png, set_count_ticks


def draw_contacts(folder: Path, parts: Iterable[Part]) -> int:
    """Draw the contacts of every protein as `NUMBER_ID.png` in `folder`, numbered from 0; return how many.

    Raises:
        StorageError: the folder cannot be written.
    """
    number = 0
    for part in parts:
        for name, contacts in zip(part.ids, part.embedded.maps(CONTACTS), strict=True):
            safe = re.sub(r"[^\w.-]+", "_", name)[:80]
            _draw(folder / f"{number:05d}_{safe}.png", name, contacts)
            number += 1
    return number


def _draw(path: Path, name: str, contacts: NDArray[np.float32]) -> None:
    figure, axes = new_plot(6.0, 5.4)
    axes.grid(visible=False)
    edges = (0.5, len(contacts) + 0.5)
    image = axes.imshow(contacts, cmap="Blues", vmin=0.0, vmax=1.0, extent=(*edges, *edges), origin="lower")
    axes.set_xlabel("residue")
    axes.set_ylabel("residue")
    set_count_ticks(axes.xaxis)
    set_count_ticks(axes.yaxis)
    figure.colorbar(image, label="probability of a contact")
    add_title(axes, name[:60])
    save_png(figure, path, advice=ADVICE)
