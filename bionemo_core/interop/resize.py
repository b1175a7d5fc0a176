"""Tables of another size: vocabularies and positions that grow or shrink when a model is seeded from another."""

import torch
import torch.nn.functional as F
from torch import Tensor


def tile_rows(table: Tensor, rows: int) -> Tensor:
    """`rows` rows: those of `table` over and over, cut at the end (v1's `modify_state_dict`)."""
    times = -(-rows // table.shape[0])
    return table.repeat(times, *(1,) * (table.dim() - 1))[:rows]


def fill_with_mean(table: Tensor, real: int, rows: int) -> Tensor:
    """`rows` rows: the first `real` of `table`, cut or followed by copies of their mean."""
    kept = table[: min(real, rows)]
    added = table[:real].float().mean(0, keepdim=True).to(table.dtype)
    return torch.cat([kept, added.expand(rows - kept.shape[0], *table.shape[1:])])


def interpolate_rows(table: Tensor, rows: int, offset: int) -> Tensor:
    """`rows` rows: the first `offset` as they are, the rest on a straight line between the old ones.

    The first and the last position keep their rows, as `align_corners` has it.
    """
    curve = table[offset:].float().T.unsqueeze(0)
    stretched = F.interpolate(curve, size=rows - offset, mode="linear", align_corners=True)
    return torch.cat([table[:offset], stretched[0].T.to(table.dtype)])


def pad_rows(table: Tensor, rows: int) -> Tensor:
    """`rows` rows: those of `table`, cut or followed by zeros."""
    result = table.new_zeros(rows, *table.shape[1:])
    common = min(rows, table.shape[0])
    result[:common] = table[:common]
    return result
