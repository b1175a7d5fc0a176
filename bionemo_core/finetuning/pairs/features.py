"""Pairs of sequences: what a head gets of two sequences, from the mean state of each.

Shape letters: N pairs, H hidden width, F features.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bionemo_core.data.labelled_records import LabelledRecords
from bionemo_core.nn.residue_states import ResidueStates


def num_features(hidden_size: int, second_size: int | None) -> int:
    """Return the number of features of a pair; `second_size` is the width of a second encoder, None if there is one."""
    return 4 * hidden_size if second_size is None else hidden_size + second_size


def pair_features(first: Tensor, second: Tensor, *, with_products: bool) -> Tensor:
    """Return the features of pairs, from the mean states of both sequences, [N, H] each, to float32 [N, F].

    They are `[a, b, |a - b|, a * b]` with `with_products`, else `[a, b]`: the columns of two encoders have nothing in
    common, and for matching each side of the head reads one sequence alone.
    """
    a, b = first.float(), second.float()
    return torch.cat([a, b, (a - b).abs(), a * b] if with_products else [a, b], dim=-1)


def as_states(features: Tensor) -> ResidueStates:
    """Return features as the only state of each pair, which is what a head reads."""
    return ResidueStates(features, torch.ones(len(features), dtype=torch.int64, device=features.device))


def unique_texts(given: Sequence[bytes]) -> tuple[LabelledRecords, NDArray[np.int64]]:
    """Return every text once, as records, and the row of each given text, int64[texts]."""
    rows = {text: row for row, text in enumerate(dict.fromkeys(given))}
    texts, nothing = tuple(rows), ("",) * len(rows)
    records = LabelledRecords(tuple(str(row + 1) for row in range(len(rows))), texts, nothing, (), np.arange(len(rows)))
    return records, np.array([rows[text] for text in given], dtype=np.int64)
