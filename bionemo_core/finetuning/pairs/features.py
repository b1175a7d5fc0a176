"""Pairs of sequences: what a head gets of two sequences, from the mean state of each.

Shape letters: N pairs, H hidden width, F features.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bionemo_core.data.labelled_records import LabelledRecords
from bionemo_core.nn.residue_states import ResidueStates, copy_to_device, sequence_bounds

if TYPE_CHECKING:
    from bionemo_core.data.batches.batch import TokenBatch

_MULTIPLIERS = 0x2545F4914F6CDD1D, 0x369DEA0F31A53F85
"""Odd numbers of 62 bits."""


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


def sequence_hashes(batch: TokenBatch) -> Tensor:
    """Return a number for each sequence of a batch, the same for the same tokens, int64[N]."""
    of_token, of_place = _MULTIPLIERS
    starts, lengths = sequence_bounds(batch)
    before = lengths.cumsum(0) - lengths
    places = torch.arange(int(lengths.sum())) + torch.repeat_interleave(starts - before, lengths)
    owners = torch.repeat_interleave(torch.arange(len(lengths)), lengths)
    device = batch.tokens.device
    tokens, positions = (
        values.flatten().index_select(0, copy_to_device(places, device))
        for values in (batch.tokens, batch.position_ids)
    )
    mixed = (tokens + 1) * of_token ^ (positions + 1) * of_place
    mixed = (mixed ^ (mixed >> 29)) * of_token  # products wrap around, so every bit matters
    hashes = torch.zeros(len(lengths), dtype=torch.int64, device=device)
    return hashes.index_add(0, copy_to_device(owners, device), mixed ^ (mixed >> 32))
