"""Resizing vocabulary and position tables, for a model that is initialised from one with other sizes."""

import torch
import torch.nn.functional as F
from torch import Tensor


def tile_rows(table: Tensor, rows: int) -> Tensor:
    """Return `rows` rows: `table` repeated and cut at the end (v1's `modify_state_dict`)."""
    times = -(-rows // table.shape[0])
    return table.repeat(times, *(1,) * (table.dim() - 1))[:rows]


def fill_with_mean(table: Tensor, real: int, rows: int) -> Tensor:
    """Return `rows` rows: the first `real` rows of `table`, cut or followed by copies of their mean."""
    kept = table[: min(real, rows)]
    added = table[:real].float().mean(0, keepdim=True).to(table.dtype)
    return torch.cat([kept, added.expand(rows - kept.shape[0], *table.shape[1:])])


def interpolate_rows(table: Tensor, rows: int, offset: int) -> Tensor:
    """Return `rows` rows: the first `offset` unchanged, the rest interpolated linearly between the old ones.

    The first and the last position keep their rows (`align_corners`).
    """
    curve = table[offset:].float().T.unsqueeze(0)
    stretched = F.interpolate(curve, size=rows - offset, mode="linear", align_corners=True)
    return torch.cat([table[:offset], stretched[0].T.to(table.dtype)])


def pad_rows(table: Tensor, rows: int) -> Tensor:
    """Return `rows` rows: those of `table`, cut or followed by zeros."""
    result = table.new_zeros(rows, *table.shape[1:])
    common = min(rows, table.shape[0])
    result[:common] = table[:common]
    return result
