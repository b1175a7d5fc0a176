"""Dropout is a function of seed, step, rank and micro batch, and of nothing that came before."""

import torch

from bionemo_core.parallel.dropout import seed_micro_batch, tensor_parallel_stream


def drawn(*where: int) -> list[float]:
    seed_micro_batch(*where)
    return torch.rand(3).tolist()


def test_the_same_place_draws_the_same() -> None:
    first = drawn(1, 2, 0, 0)
    torch.rand(7)
    assert drawn(1, 2, 0, 0) == first


def test_every_part_of_the_place_matters() -> None:
    places = [(1, 2, 0, 0), (2, 2, 0, 0), (1, 3, 0, 0), (1, 2, 1, 0), (1, 2, 0, 1)]
    assert len({tuple(drawn(*place)) for place in places}) == len(places)


def test_tensor_parallel_ranks_share_one_stream_and_have_one_of_their_own() -> None:
    shared, own = [], []
    for rank in range(2):
        seed_micro_batch(1, 2, 0, 0, tensor_rank=rank)
        before = torch.rand(2).tolist()
        with tensor_parallel_stream(torch.device("cpu")):
            own.append(torch.rand(2).tolist())
        with tensor_parallel_stream(torch.device("cpu")):
            again = torch.rand(2).tolist()
        assert again != own[-1], "two layers must not share a mask"
        shared.append((before, torch.rand(2).tolist()))
    assert shared[0] == shared[1]
    assert own[0] != own[1]
