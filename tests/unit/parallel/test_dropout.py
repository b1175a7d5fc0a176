"""Dropout depends on seed, step, rank and micro batch, and on nothing that ran before."""

import torch

from bionemo_core.parallel.dropout import dropout_state, go_on_from, seed_micro_batch, tensor_parallel_stream


def draw(*position: int) -> list[float]:
    seed_micro_batch(*position)
    return torch.rand(3).tolist()


def test_the_same_position_draws_the_same_numbers() -> None:
    first = draw(1, 2, 0, 0)
    torch.rand(7)
    assert draw(1, 2, 0, 0) == first


def test_every_part_of_the_position_matters() -> None:
    positions = [(1, 2, 0, 0), (2, 2, 0, 0), (1, 3, 0, 0), (1, 2, 1, 0), (1, 2, 0, 1)]
    assert len({tuple(draw(*position)) for position in positions}) == len(positions)


def test_tensor_parallel_ranks_share_one_stream_and_each_has_a_second_one() -> None:
    shared, own = [], []
    for rank in range(2):
        seed_micro_batch(1, 2, 0, 0, tensor_rank=rank)
        before = torch.rand(2).tolist()
        with tensor_parallel_stream(torch.device("cpu")):
            own.append(torch.rand(2).tolist())
        with tensor_parallel_stream(torch.device("cpu")):
            again = torch.rand(2).tolist()
        assert again != own[-1], "two layers must have different masks"
        shared.append((before, torch.rand(2).tolist()))
    assert shared[0] == shared[1]
    assert own[0] != own[1]


def test_another_rank_draws_on_from_a_state() -> None:
    cpu = torch.device("cpu")
    seed_micro_batch(1, 2, 3, 4)
    torch.rand(5)
    with tensor_parallel_stream(cpu):
        torch.rand(1)
    state = dropout_state(cpu)
    expected = torch.rand(3), draw_in_region(cpu)
    seed_micro_batch(1, 2, 3, 4)
    go_on_from(state, cpu)
    found = torch.rand(3), draw_in_region(cpu)
    assert torch.equal(found[0], expected[0]) and torch.equal(found[1], expected[1])


def draw_in_region(device: torch.device) -> torch.Tensor:
    with tensor_parallel_stream(device):
        return torch.rand(2)
