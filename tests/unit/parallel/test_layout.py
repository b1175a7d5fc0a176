"""On any layout every element of every parameter has one owner and the right offset."""

from dataclasses import dataclass
from typing import Any

import pytest
import torch

from bionemo_core.checkpoint.blocks import Block, check_tiling
from bionemo_core.parallel import layout as layouts
from bionemo_core.parallel.layout import ParameterLayout, local_blocks, owned_parts


@dataclass
class Ranks:
    """The attributes of process groups that the layout reads."""

    tensor_rank: int
    tensor_size: int
    data_rank: int = 0


def shards(whole: torch.Tensor, layout: ParameterLayout, size: int) -> list[torch.Tensor]:
    """Return what megatron-core gives each tensor-parallel rank: an equal part of every run, concatenated."""
    runs = whole.chunk(layout.stride, dim=layout.dim)
    return [torch.cat([run.chunk(size, dim=layout.dim)[rank] for run in runs], dim=layout.dim) for rank in range(size)]


@pytest.mark.parametrize(("dim", "stride"), [(0, 1), (0, 2), (1, 1)])
@pytest.mark.parametrize("size", [1, 2, 4])
def test_tensor_parallel_parts_make_up_the_whole(dim: int, stride: int, size: int) -> None:
    whole = torch.arange(16 * 8).reshape(16, 8)
    layout = ParameterLayout((16, 8), dim, stride)
    rebuilt = torch.full_like(whole, -1)
    blocks = []
    for rank, shard in enumerate(shards(whole, layout, size)):
        for part in owned_parts("w", layout, shard, shard, Ranks(rank, size)):
            assert part.global_shape == (16, 8)
            where = tuple(slice(o, o + s) for o, s in zip(part.offset, part.tensor.shape, strict=True))
            rebuilt[where] = part.tensor
            blocks.append(Block(part.offset, tuple(part.tensor.shape)))
    check_tiling("w", (16, 8), blocks)
    assert torch.equal(rebuilt, whole)


@dataclass
class Mesh:
    """The attributes of a device mesh that the layout reads: each axis has a rank and a size."""

    axes: tuple[tuple[int, int], ...]

    @property
    def ndim(self) -> int:
        return len(self.axes)

    def get_local_rank(self, axis: int) -> int:
        return self.axes[axis][0]

    def size(self, axis: int) -> int:
        return self.axes[axis][1]


@dataclass
class Sharded:
    """The attributes of a DTensor that the layout reads; FSDP2 gives a rank its part of `torch.chunk`, or nothing."""

    whole: torch.Tensor
    rank: int
    size: int
    replica: tuple[tuple[int, int], ...] = ()
    """The rank and size of an axis of copies, for a mesh of two axes."""

    @property
    def device_mesh(self) -> Mesh:
        return Mesh((*self.replica, (self.rank, self.size)))

    @property
    def shape(self) -> torch.Size:
        return self.whole.shape

    def to_local(self) -> torch.Tensor:
        parts = self.whole.chunk(self.size)
        return parts[self.rank] if self.rank < len(parts) else self.whole[:0]


@pytest.mark.parametrize(("dim", "stride", "tensor_size"), [(None, 1, 1), (0, 1, 2), (0, 2, 2), (1, 1, 2)])
@pytest.mark.parametrize("data_size", [2, 3, 4])
@pytest.mark.parametrize("copies", [1, 2])
def test_uneven_data_parallel_parts_make_up_the_whole(
    monkeypatch: pytest.MonkeyPatch, copies: int, dim: int | None, stride: int, tensor_size: int, data_size: int
) -> None:
    """A rank's rows do not divide by the ranks: the last ones get fewer, or none."""
    monkeypatch.setattr(layouts, "DTensor", Sharded)
    rows = 20 if dim == 0 else 5
    whole = torch.arange(rows * 4).reshape(rows, 4)
    layout = ParameterLayout((rows, 4), dim, stride)
    rebuilt, blocks = torch.full_like(whole, -1), []
    for tensor_rank, shard in enumerate([whole] if dim is None else shards(whole, layout, tensor_size)):
        for data_rank in range(copies * data_size):
            copy, place = divmod(data_rank, data_size)
            parameter: Any = Sharded(shard, place, data_size, ((copy, copies),) if copies > 1 else ())
            ranks: Any = Ranks(tensor_rank, tensor_size, data_rank)
            for part in owned_parts("w", layout, parameter, parameter, ranks):
                where = tuple(slice(o, o + s) for o, s in zip(part.offset, part.tensor.shape, strict=True))
                rebuilt[where] = part.tensor
                blocks.append(Block(part.offset, tuple(part.tensor.shape)))
    check_tiling("w", (rows, 4), blocks)
    assert torch.equal(rebuilt, whole)


def test_a_replicated_parameter_is_written_by_one_rank() -> None:
    layout, tensor = ParameterLayout((4,), None), torch.ones(4)
    written = [len(list(owned_parts("b", layout, tensor, tensor, Ranks(rank, 2)))) for rank in range(2)]
    assert written == [1, 0]
    for rank in range(2):
        assert len(list(local_blocks(layout, tensor, Ranks(rank, 2)))) == 1, "but every rank reads it"


def test_a_scalar_has_one_block() -> None:
    layout, tensor = ParameterLayout((), None), torch.ones(())
    (part,) = owned_parts("s", layout, tensor, tensor, Ranks(0, 1))
    assert part.offset == () and part.tensor == 1
