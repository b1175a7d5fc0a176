"""16-bit copies of the weights on one rank: the same numbers as FSDP2, and unchanged parameters between steps."""

import copy

import pytest
import torch
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor

from bionemo_core.parallel.groups import start_groups
from bionemo_core.parallel.half_weights import HalfWeights
from bionemo_core.parallel.sharding import gather, reshard, shard


class Tied(nn.Module):
    """A network with a tied table, norms, a frozen parameter, and a second method that computes."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(11, 8)
        self.middle = nn.Sequential(nn.LayerNorm(8), nn.Linear(8, 8), nn.GELU(), nn.Linear(8, 8))
        self.out = nn.Linear(8, 11, bias=False)
        self.out.weight = self.table.weight
        self.frozen = nn.Parameter(torch.randn(8), requires_grad=False)

    def states(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.middle(self.table(tokens)) + self.frozen

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return nn.functional.cross_entropy(self.out(self.states(tokens)).float(), tokens, reduction="sum")


def full(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def run_steps(network: nn.Module, num_steps: int) -> list[torch.Tensor]:
    """Return losses and gradients of optimizer steps of two micro batches each."""
    optimizer = torch.optim.AdamW([p for p in network.parameters() if p.requires_grad], lr=1e-2, fused=True)
    seen, draw = [], torch.Generator().manual_seed(3)
    for _ in range(num_steps):
        optimizer.zero_grad()
        for last in (False, True):
            if hasattr(network, "set_requires_gradient_sync"):
                network.set_requires_gradient_sync(last)
            loss = network(torch.randint(11, (6,), generator=draw))
            loss.backward()
            seen.append(loss.detach())
        seen += [full(p.grad).clone() for p in network.parameters() if p.grad is not None]
        optimizer.step()
    return seen


def test_numbers_equal_those_of_fsdp2() -> None:
    torch.manual_seed(0)
    ours = Tied()
    theirs = copy.deepcopy(ours)
    groups = start_groups()
    shard(ours, groups, torch.bfloat16, torch.device("cpu"))
    policy = MixedPrecisionPolicy(torch.bfloat16, torch.float32, cast_forward_inputs=False)
    fully_shard(theirs, mesh=DeviceMesh.from_group(groups.data, "cpu"), mp_policy=policy, reshard_after_forward=False)
    pairs = list(zip(run_steps(ours, 4), run_steps(theirs, 4), strict=True))
    assert len(pairs) == 4 * (2 + len([p for p in ours.parameters() if p.requires_grad]))
    assert all(torch.equal(one, other) for one, other in pairs)


def test_copies_made_in_inference_mode_can_be_trained() -> None:
    network = Tied()
    HalfWeights(network, torch.bfloat16)
    with torch.inference_mode():
        network(torch.arange(6))
    reshard(network)
    assert len(run_steps(network, 2)) == 2 * (2 + 7)


def test_sharding_twice_keeps_one_set_of_copies() -> None:
    network, groups = Tied(), start_groups()
    shard(network, groups, torch.bfloat16, torch.device("cpu"))
    before = network._half_weights
    network(torch.arange(6))
    shard(network, groups, torch.bfloat16, torch.device("cpu"))
    assert network._half_weights is before and network.table.weight.dtype == torch.float32


def test_modules_hold_the_parameters_outside_of_a_step() -> None:
    network = Tied()
    before = dict(network.named_parameters())
    half = HalfWeights(network, torch.bfloat16, ("states", "absent"))
    tokens = torch.arange(6)
    assert network.states(tokens).dtype == torch.bfloat16 and half.gathered
    assert network.out.weight is network.table.weight and network.table.weight.dtype == torch.bfloat16
    reshard(network)
    assert all(parameter is before[name] for name, parameter in network.named_parameters())
    assert all(parameter.dtype == torch.float32 for parameter in network.parameters())
    with torch.no_grad():
        network.frozen += 1.0
    gather(network)
    assert torch.equal(network.frozen, before["frozen"].bfloat16())  # parameters that changed are copied
    reshard(network)


def test_a_deep_copy_has_16_bit_copies_of_its_own() -> None:
    torch.manual_seed(0)
    network, tokens = Tied(), torch.arange(6)
    HalfWeights(network, torch.bfloat16, ("states",))
    run_steps(network, 1)
    copied = copy.deepcopy(network)
    before = copied(tokens).detach(), copied.states(tokens).detach()
    reshard(copied)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
    assert not network.states(tokens).any()
    reshard(network)
    again = copied(tokens).detach(), copied.states(tokens).detach()
    assert all(torch.equal(one, other) for one, other in zip(before, again, strict=True)) and again[1].any()
    reshard(copied)
    twin = copy.deepcopy(copied)
    assert all(torch.equal(one, other) for one, other in zip(run_steps(copied, 2), run_steps(twin, 2), strict=True))
    assert not any(parameter.any() for parameter in network.parameters())


def test_a_network_within_a_step_cannot_be_deep_copied() -> None:
    network = Tied()
    HalfWeights(network, torch.bfloat16)
    network(torch.arange(6))
    with pytest.raises(RuntimeError, match="between steps"):
        copy.deepcopy(network)


def test_held_copies_stay_and_their_gradients_are_added() -> None:
    torch.manual_seed(0)
    network = Tied()
    plain = copy.deepcopy(network)
    half, tokens = HalfWeights(network, torch.bfloat16), torch.arange(6)
    HalfWeights(plain, torch.bfloat16)
    half.held = True
    losses = [network(tokens), network(tokens.flip(0))]  # two forward passes before a backward pass
    copies = [one._version for one in half._half]
    for loss in losses:
        loss.backward()
    assert half.gathered and [one._version for one in half._half] == copies
    half.release()
    for one in (tokens, tokens.flip(0)):
        plain(one).backward()
    for name, parameter in network.named_parameters():
        expected = dict(plain.named_parameters())[name].grad
        assert (parameter.grad is None) == (expected is None)
        assert expected is None or torch.equal(parameter.grad, expected), name
