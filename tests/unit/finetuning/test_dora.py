"""DoRA against its formula: the length of each row of a weight is trained apart from its direction."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bionemo_core.errors import ConfigError
from bionemo_core.finetuning.adapters import copy_weights
from bionemo_core.finetuning.lora import LoraSettings, adapted_layers, add_adapters, merge_adapters
from bionemo_core.tasks.finetuning.setting_checks import check_settings
from bionemo_core.tasks.settings import Finetune

SETTINGS = LoraSettings(rank=3, alpha=6.0, targets=("fc1", "fc2"), dora=True)


class Apart(nn.Linear):
    """A layer that returns its bias apart from the product, as megatron-core's do."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        return F.linear(x, self.weight), self.bias


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear_fc1 = nn.Linear(6, 10)
        self.linear_fc2 = Apart(10, 4)

    def forward(self, x: Tensor) -> Tensor:
        product, bias = self.linear_fc2(torch.relu(self.linear_fc1(x)))
        return product + bias


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([Block()])

    def forward(self, x: Tensor) -> Tensor:
        return self.layers[0](x)


def directed(weight: Tensor, up: Tensor, down: Tensor, magnitude: Tensor) -> Tensor:
    """Return the weight of DoRA, equation 5 of the paper; the norm is a constant, as its section 4.3 has it."""
    changed = weight + 2.0 * up @ down
    return magnitude[:, None] * changed / changed.pow(2).sum(1, keepdim=True).sqrt().detach()


@pytest.fixture
def network() -> Net:
    torch.manual_seed(0)
    return Net()


def test_a_new_adapter_changes_nothing(network):
    x = torch.randn(5, 6)
    before, other = network(x), copy.deepcopy(network)
    assert add_adapters(network, SETTINGS) == 2
    assert torch.allclose(network(x), before, atol=1e-6)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(3.0)
    copy_weights(other, network)  # the magnitudes are those of the weights that came in
    assert torch.allclose(network(x), other(x), atol=1e-5)


def test_outputs_gradients_and_merged_weights_follow_the_formula(network):
    x = torch.randn(5, 6)
    add_adapters(network, SETTINGS)
    layers = list(adapted_layers(network))
    with torch.no_grad():
        for layer in layers:
            layer.lora.up.normal_(std=0.5)
            layer.lora.magnitude.mul_(1 + torch.rand(len(layer.lora.magnitude)))
    given = [[getattr(layer.lora, name).detach().clone() for name in ("up", "down", "magnitude")] for layer in layers]
    leaves = [[tensor.requires_grad_() for tensor in tensors] for tensors in given]
    first, last = (
        (directed(layer.weight.detach(), *tensors), layer.bias.detach())
        for layer, tensors in zip(layers, leaves, strict=True)
    )
    expected = F.linear(torch.relu(F.linear(x, *first)), *last)
    got = network(x)
    assert torch.allclose(got, expected, atol=1e-5)
    got.square().sum().backward()
    expected.square().sum().backward()
    for layer, tensors in zip(layers, leaves, strict=True):
        for name, tensor in zip(("up", "down", "magnitude"), tensors, strict=True):
            assert torch.allclose(getattr(layer.lora, name).grad, tensor.grad, rtol=1e-4, atol=1e-4), name
        assert layer.weight.grad is None
    assert merge_adapters(network) == 2
    assert torch.allclose(network(x), expected, atol=1e-5)
    assert not list(adapted_layers(network))


def test_without_adapters_it_is_refused():
    with pytest.raises(ConfigError, match=r"task\.lora_dora=true needs task\.encoder=lora, got full"):
        check_settings(Finetune(kind="sequence_regression", encoder="full", lora_dora=True))
