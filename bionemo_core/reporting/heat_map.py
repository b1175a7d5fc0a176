"""The heat map of a scan: the score of each of the 20 residues at every position of a protein."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bionemo_core.io.plots import INK, add_title, new_panels, save_png

RESIDUES = "GAVLIMFWPCSTNQYDEHKR"
"""The 20 residues, those that resemble each other side by side."""

_PER_PANEL, _MOST_PANELS = 100, 40
"""Positions in one panel, of which a longer protein has several, one below the other; the longest have wider ones."""


def draw_scan(path: Path, wild_type: str, scores: NDArray[np.float64], first: int, strategy: str) -> None:
    """Write a PNG of the scores, float64 [positions, 20] in nats; a dot marks the wild type.

    Args:
        path: the file.
        wild_type: the residues of the protein.
        scores: in the order of `RESIDUES`.
        first: the number of the first residue.
        strategy: how the scores were computed.

    Raises:
        StorageError: the file cannot be written.
    """
    width = min(len(wild_type), max(_PER_PANEL, -(-len(wild_type) // _MOST_PANELS)))
    starts = range(0, len(wild_type), width)
    figure, panels = new_panels(len(starts), max(6.0, 0.13 * width + 2.0), 3.2)
    limit = max(float(np.quantile(np.abs(scores), 0.99)), 1e-6)
    image: Any = None
    for axes, start in zip(panels, starts, strict=True):
        letters = wild_type[start : start + width]
        edges = (start + first - 0.5, start + first + len(letters) - 0.5, len(RESIDUES) - 0.5, -0.5)
        image = axes.imshow(
            scores[start : start + width].T, cmap="RdBu", vmin=-limit, vmax=limit, aspect="auto", extent=edges
        )
        known = [at for at, letter in enumerate(letters) if letter in RESIDUES]
        rows = [RESIDUES.index(letters[at]) for at in known]
        axes.scatter([start + first + at for at in known], rows, s=7, color=INK)
        axes.set_xlim(edges[0], edges[0] + width)
        axes.set_yticks(range(len(RESIDUES)), list(RESIDUES), fontsize=6)
        axes.set_ylabel("mutant residue")
    panels[-1].set_xlabel("position in the protein")
    add_title(panels[0], f"{strategy} of all substitutions", "dot: wild type")
    figure.colorbar(image, ax=panels, label="score (nats); above 0: likelier than the wild type", extend="both")
    save_png(figure, path)
