"""Gradients are averaged bucket by bucket in the last backward pass of a step, and every one once."""

import copy
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from bionemo_core.parallel import replicas
from bionemo_core.parallel.half_weights import HalfWeights
from bionemo_core.parallel.replicas import Replicas
from bionemo_core.parallel.sharding import average_gradients, reduce_gradients_now

NUM_LAYERS, WIDTH = 4, 8
TOLERANCE = {torch.float32: 1e-6, torch.bfloat16: 4e-2}


class Network(nn.Module):
    """Layers, a tied table that is used at both ends, and parts that only some steps use."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(11, WIDTH)
        self.layers = nn.ModuleList([nn.Linear(WIDTH, WIDTH) for _ in range(NUM_LAYERS)])
        self.extra = nn.Linear(WIDTH, WIDTH)
        self.never = nn.Linear(WIDTH, WIDTH)
        self.used = {"extra"}
        self.recomputed = False

    def forward(self, tokens: Tensor) -> Tensor:
        states = self.table(tokens)
        for layer in self.layers:
            states = states + torch.tanh(layer(states))
        for name in self.used:
            states = states + getattr(self, name)(states)
        if self.recomputed:  # the table's gradient then comes in two pieces
            return checkpoint(self._loss, states, use_reentrant=True)  # type: ignore[no-any-return]
        return self._loss(states)

    def _loss(self, states: Tensor) -> Tensor:
        return (states @ self.table.weight.T).float().square().sum()


class Rank:
    """One of two ranks, whose peer has no gradients: a mean is half of this rank's gradient."""

    data, data_size = None, 2

    def __init__(self) -> None:
        self.sizes: list[int] = []
        """Of the gradients that were summed over the ranks."""

    def all_reduce(self, tensor: Tensor, *_: object, **__: object) -> "Rank":
        if tensor.is_floating_point():
            self.sizes.append(tensor.numel())
        return self

    def wait(self) -> None:
        """The sum over the ranks is there at once."""


@pytest.fixture
def rank(monkeypatch: pytest.MonkeyPatch) -> Rank:
    rank = Rank()
    reduce_op = torch.distributed.ReduceOp
    monkeypatch.setattr(replicas, "dist", SimpleNamespace(all_reduce=rank.all_reduce, ReduceOp=reduce_op, Work=object))
    monkeypatch.setattr(replicas, "copy_to_replicas", lambda *_: None)
    monkeypatch.setattr(replicas, "_BUCKET_NUMBERS", WIDTH * WIDTH)  # a bucket for each layer
    return rank


def replicated(rank: Rank, dtype: torch.dtype) -> Network:
    torch.manual_seed(0)
    network = Network()
    if dtype != torch.float32:
        HalfWeights(network, dtype)
    Replicas(network, rank, torch.float32)  # type: ignore[arg-type]
    return network


def run_step(network: nn.Module, rank: Rank, batches: list[Tensor]) -> list[int]:
    """Run a step; return the number of all-reduces after each backward pass and at the end."""
    network.zero_grad()
    done = []
    for number, tokens in enumerate(batches):
        reduce_gradients_now(network, number == len(batches) - 1)
        network(tokens).backward()
        done.append(len(rank.sizes))
    average_gradients(network)
    return [*done, len(rank.sizes)]


def assert_means(network: Network, batches: list[Tensor], dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    alone = Network()
    alone.used, alone.recomputed = network.used, network.recomputed
    for tokens in batches:
        alone(tokens).backward()
    for (name, parameter), one in zip(network.named_parameters(), alone.parameters(), strict=True):
        wanted = torch.zeros_like(one) if one.grad is None else one.grad / 2
        got = torch.zeros_like(one) if parameter.grad is None else parameter.grad
        assert (got - wanted).abs().max() <= TOLERANCE[dtype] * (wanted.abs().max() + 1e-9), name


def gradients(network: nn.Module) -> list[Tensor]:
    return [one.grad.clone() for one in network.parameters() if one.grad is not None]


def tokens(number: int) -> Tensor:
    return torch.randint(11, (6,), generator=torch.Generator().manual_seed(number))


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_all_gradients_are_averaged_within_the_last_backward_pass(rank: Rank, dtype: torch.dtype) -> None:
    network, batches = replicated(rank, dtype), [tokens(1), tokens(2)]
    buckets = NUM_LAYERS + 2
    assert run_step(network, rank, batches) == [0, 0, buckets]  # the first step decides on the buckets
    assert_means(network, batches, dtype)
    for start in (buckets, 2 * buckets):
        assert run_step(network, rank, batches) == [start, start + buckets, start + buckets]
        assert_means(network, batches, dtype)
    assert rank.sizes[:buckets] == rank.sizes[buckets : 2 * buckets]
    assert sum(rank.sizes[:buckets]) == sum(one.numel() for one in network.parameters() if one.grad is not None)


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_a_gradient_that_comes_in_two_pieces_is_averaged_after_the_pass(rank: Rank, dtype: torch.dtype) -> None:
    network, batches = replicated(rank, dtype), [tokens(1), tokens(2)]
    network.recomputed = True
    buckets = NUM_LAYERS + 2
    run_step(network, rank, batches)
    assert run_step(network, rank, batches) == [buckets, 2 * buckets - 1, 2 * buckets]  # all but the table's
    assert_means(network, batches, dtype)


def test_a_gradient_that_a_step_lacks_counts_as_zero_and_keeps_the_order(rank: Rank) -> None:
    network = replicated(rank, torch.float32)
    run_step(network, rank, [tokens(1)])
    first = rank.sizes.copy()
    network.used = set()
    done = run_step(network, rank, [tokens(1)])
    assert rank.sizes == first * 2
    assert done == [len(first), 2 * len(first)]  # the lacking one is the first bucket, so that all others wait for it
    assert_means(network, [tokens(1)], torch.float32)


def test_gradients_that_the_first_step_did_not_show_are_refused(rank: Rank) -> None:
    network = replicated(rank, torch.float32)
    run_step(network, rank, [tokens(1)])
    network.used = {"extra", "never"}
    with pytest.raises(RuntimeError, match=r"no rank made in the first step.*sharding_strategy=full"):
        run_step(network, rank, [tokens(1)])


def test_a_gradient_that_later_comes_in_two_pieces_is_refused(rank: Rank) -> None:
    network = replicated(rank, torch.float32)
    run_step(network, rank, [tokens(1)])
    network.recomputed = True
    with pytest.raises(RuntimeError, match=r"made twice.*sharding_strategy=full"):
        run_step(network, rank, [tokens(1)])


def test_a_copy_of_the_network_decides_on_its_own_buckets(rank: Rank) -> None:
    network = replicated(rank, torch.bfloat16)
    run_step(network, rank, [tokens(1)])
    copied = copy.deepcopy(network)
    before = gradients(network)
    rank.sizes.clear()
    buckets = NUM_LAYERS + 2
    assert run_step(copied, rank, [tokens(2)]) == [0, buckets]
    assert_means(copied, [tokens(2)], torch.bfloat16)
    assert all(torch.equal(old, new) for old, new in zip(before, gradients(network), strict=True))
