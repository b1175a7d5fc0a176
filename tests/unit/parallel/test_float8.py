"""Products in float8: equal to torchao's own layer, near those of bfloat16, and used by every layer of a stack."""

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch
from test_recompute import FAMILIES, batch_for, gradients, make
from torch import nn

from bionemo_core.config.schema import Choice, Parallel, RunSpec, Trainer
from bionemo_core.config.value_checks import check_values
from bionemo_core.errors import ConfigError
from bionemo_core.nn.layers import ColumnLinear, RowLinear
from bionemo_core.parallel import float8
from bionemo_core.parallel.float8 import use_float8

CPU = torch.device("cpu")


@pytest.mark.parametrize("recipe", ["tensorwise", "rowwise"])
def test_the_product_is_that_of_torchao(recipe: str) -> None:
    from torchao.float8 import Float8LinearConfig
    from torchao.float8.float8_linear import Float8Linear

    torch.manual_seed(0)
    config = replace(Float8LinearConfig.from_recipe_name(recipe), emulate=True, pad_inner_dim=True)
    theirs = Float8Linear.from_float(nn.Linear(48, 32), config)
    x = torch.randn(5, 7, 48)
    found = []
    for product in (lambda x: theirs(x), lambda x: float8.Float8Product(config)(x, theirs.weight, theirs.bias)):
        theirs.zero_grad()
        leaf = x.clone().requires_grad_()
        out = product(leaf)
        out.square().sum().backward()
        found.append([out, leaf.grad, theirs.weight.grad.clone(), theirs.bias.grad.clone()])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))
    exact = nn.functional.linear(x, theirs.weight, theirs.bias)
    error = (found[0][0] - exact).norm() / exact.norm()
    assert 1e-3 < error < 5e-2


@pytest.mark.parametrize("family", FAMILIES)
def test_every_linear_layer_of_the_stacks_multiplies_in_float8(family: str) -> None:
    network = make(family)
    batch, names = batch_for(network, packed=True), list(network.state_dict())
    wanted = gradients(network, batch)
    use_float8(network, "tensorwise", CPU)
    linears = [one for layer in network.layers for one in layer.modules() if isinstance(one, (ColumnLinear, RowLinear))]
    assert linears and all(one.float8 is not None for one in linears)
    inside = {id(one) for one in linears}
    outside = [one for one in network.modules() if isinstance(one, ColumnLinear) and id(one) not in inside]
    assert all(one.float8 is None for one in outside)
    got = gradients(network, batch)
    assert got["loss"] != wanted["loss"]
    assert got["loss"] == pytest.approx(wanted["loss"].item(), rel=1e-2)
    assert all(torch.nn.functional.cosine_similarity(got[name].flatten(), wanted[name].flatten(), dim=0) > 0.9
               for name in wanted if wanted[name].norm() > 1e-6)  # fmt: skip
    assert list(network.state_dict()) == names


def test_linear_layers_of_other_networks_are_replaced_and_keep_their_weights() -> None:
    torch.manual_seed(0)
    network = nn.Module()
    network.layers = nn.ModuleList([nn.Sequential(nn.Linear(32, 64), nn.GELU(), nn.Linear(64, 32))])
    changed = copy.deepcopy(network)
    use_float8(changed, "tensorwise", CPU)
    x = torch.randn(4, 32)
    assert not torch.equal(changed.layers[0](x), network.layers[0](x))
    assert torch.allclose(changed.layers[0](x), network.layers[0](x), atol=0.05)
    assert all(torch.equal(a, b) for a, b in zip(changed.parameters(), network.parameters(), strict=True))


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        (nn.ModuleList([nn.Linear(24, 32)]), "32 x 24, expected multiples of 16"),
        (nn.ModuleList([nn.LayerNorm(32)]), "has no linear layers in its `layers`"),
    ],
)
def test_networks_that_cannot_are_refused(layers: nn.ModuleList, message: str) -> None:
    network = nn.Module()
    network.layers = layers
    with pytest.raises(ConfigError, match=message):
        use_float8(network, "tensorwise", CPU)


def test_without_torchao_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(float8, "has_package", lambda _: False)
    with pytest.raises(ConfigError, match=r"pip install 'bionemo-run\[fp8\]'"):
        float8.check_float8("tensorwise", on_gpu=False)


@pytest.mark.parametrize(("capability", "recipe", "allowed"), [
    ((8, 0), "tensorwise", False), ((8, 9), "tensorwise", True), ((8, 9), "rowwise", False), ((9, 0), "rowwise", True),
])  # fmt: skip
def test_older_gpus_are_refused(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], recipe: str, allowed: bool
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "a card")
    if allowed:
        float8.check_float8(recipe, on_gpu=True)
    else:
        way = "fp8_recipe=tensorwise or " * (capability == (8, 9)) + "trainer.precision=bf16-mixed"
        with pytest.raises(ConfigError, match=rf"a card has compute capability 8\.[09].*{way}"):
            float8.check_float8(recipe, on_gpu=True)


def spec_with(task: str = "train", tensor_size: int = 1, **trainer: Any) -> RunSpec:
    groups = ("model", "tokenizer", "data", "optim", "scheduler")
    chosen = {group: Choice(group, "any") for group in groups}
    parallel = Parallel(tensor_model_parallel_size=tensor_size)
    return RunSpec("run", ".", 1, Choice("task", task), **chosen, trainer=Trainer(**trainer), parallel=parallel)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (spec_with(fp8_recipe="rowwise"), "trainer.fp8_recipe=rowwise is not used with trainer.precision=auto"),
        (spec_with(precision="fp8-mixed", fp8_recipe="blockwise"), "Allowed: tensorwise, rowwise"),
        (spec_with("embed", precision="fp8-mixed"), "is for task=train, and not for task=embed"),
        (spec_with(tensor_size=2, precision="fp8-mixed"), "tensor_model_parallel_size=2 yet"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(spec: RunSpec, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_values(spec)


def test_settings_that_go_together_are_not() -> None:
    check_values(spec_with(precision="fp8-mixed", fp8_recipe="rowwise"))
