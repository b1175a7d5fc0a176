"""Sharded networks of any kind: what a network calls its parts does not matter."""

import pytest
import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from bionemo_core.parallel.groups import start_groups
from bionemo_core.parallel.sharding import reduce_gradients_now, shard
from bionemo_core.parallel.sharding_choice import Sharding


class Answers(nn.Module):
    """A head whose layer has a name that decoders use for a method; it may be absent, as in fine-tuning."""

    def __init__(self, start: nn.Linear | None) -> None:
        super().__init__()
        self.middle = nn.Linear(4, 2)
        self.start = start

    def forward(self, x: Tensor) -> Tensor:
        if self.start is None:
            return self.middle(x)  # type: ignore[no-any-return]
        return self.middle(x) + self.start(x.to(self.start.weight.dtype))  # type: ignore[no-any-return]


@pytest.mark.parametrize("has_layer", [False, True])
def test_a_layer_with_the_name_of_a_method_stays_a_layer(has_layer: bool) -> None:
    network = Answers(nn.Linear(4, 2) if has_layer else None)
    x = torch.randn(3, 4)
    expected = network(x)
    shard(network, start_groups(), torch.float32, torch.device("cpu"), Sharding("full", 1))
    assert torch.equal(network(x), expected)


@pytest.mark.parametrize("each_pass", [False, True])
def test_early_micro_batches_leave_whole_gradients_or_shares(each_pass: bool) -> None:
    network, plain, draw = Answers(None), Answers(None), torch.Generator().manual_seed(1)
    plain.load_state_dict(network.state_dict())
    shard(network, start_groups(), torch.float32, torch.device("cpu"), Sharding("full", 1, "", each_pass))
    shares, reduced = list(network.parameters()), []  # whole parameters take their place while they are gathered
    for last in (False, False, True):
        x = torch.randn(3, 4, generator=draw)
        reduce_gradients_now(network, last)
        for one in (network, plain):
            one(x).square().sum().backward()
        reduced.append(all(share.grad is not None for share in shares))
    assert reduced == [each_pass, each_pass, True]
    for share, parameter in zip(shares, plain.parameters(), strict=True):
        assert isinstance(share.grad, DTensor)
        torch.testing.assert_close(share.grad.full_tensor(), parameter.grad)
