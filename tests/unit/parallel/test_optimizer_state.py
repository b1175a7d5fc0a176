"""What a rank writes of an optimizer is what it reads back, or the checkpoint is refused by name."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from bionemo_core.checkpoint.load import open_checkpoint
from bionemo_core.checkpoint.save import save
from bionemo_core.errors import CheckpointError
from bionemo_core.parallel.layout import ParameterLayout
from bionemo_core.parallel.optimizer_state import (
    load_optimizer,
    optimizer_parts,
    other_numbers,
    tensor_names,
    update_count,
)
from bionemo_core.parallel.weights import weight_parts

ONE: Any = SimpleNamespace(tensor_rank=0, tensor_size=1, data_rank=0, data_size=1)


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.ModuleDict({"used": nn.Linear(3, 2), "idle": nn.Linear(2, 2)})


def layouts(model: nn.Module) -> dict[str, ParameterLayout]:
    return {name: ParameterLayout(tuple(one.shape), 0, 1) for name, one in model.named_parameters()}


def train(model: Any, optimizer: torch.optim.Optimizer, steps: int) -> None:
    for step in range(steps):
        optimizer.zero_grad(set_to_none=True)
        model["used"](torch.tensor([[1.0, 2.0, -step]])).square().sum().backward()  # the other layer gets no gradient
        optimizer.step()


def saved(folder, model: nn.Module, optimizer: torch.optim.Optimizer, lacks: str = "none", lists: str = "now") -> Any:
    parts = [*weight_parts(model, layouts(model), ONE), *optimizer_parts(model, layouts(model), ONE, optimizer)]
    state: dict[str, Any] = {"adam_steps": update_count(optimizer)}
    if lists == "now":
        state |= {"optimizer_tensors": tensor_names(model, optimizer)}
        state |= {"optimizer_numbers": other_numbers(model, optimizer)}
    elif lists == "parameters":  # as 0.1 wrote it
        state |= {"adam_parameters": ["used.weight", "used.bias"]}
    return open_checkpoint(save(folder, 1, [part for part in parts if lacks not in part.name], state))


def of_adam(folder, **options: Any) -> Any:
    model = network()
    optimizer = torch.optim.AdamW(model.parameters())
    train(model, optimizer, 1)
    return saved(folder, model, optimizer, **options)


def load(reader: Any, make: Any = torch.optim.AdamW) -> tuple[nn.Module, torch.optim.Optimizer]:
    model = network()
    optimizer = make(model.parameters())
    load_optimizer(model, layouts(model), ONE, optimizer, reader)
    return model, optimizer


def test_a_parameter_without_a_gradient_has_no_moments_and_needs_none(tmp_path):
    names = tensor_names(*load(of_adam(tmp_path)))
    assert names == [f"optim.used.{one}.{key}" for one in ("weight", "bias") for key in ("exp_avg", "exp_avg_sq")]


@pytest.mark.parametrize("lists", ["now", "parameters"])
@pytest.mark.parametrize("lacks", ["optim.used.bias", "optim.used.weight.exp_avg_sq"])
def test_a_moment_that_is_missing_is_named(tmp_path, lacks, lists):
    reader = of_adam(tmp_path, lacks=lacks, lists=lists)
    with pytest.raises(CheckpointError, match=f"lacks state of the optimizer .*{lacks}"):
        load(reader)


def test_checkpoints_of_earlier_versions_have_both_moments_or_none(tmp_path):
    load(of_adam(tmp_path / "whole", lists="not"))
    load(of_adam(tmp_path / "none", lacks="optim.used.bias", lists="not"))
    with pytest.raises(CheckpointError, match="exp_avg_sq"):
        load(of_adam(tmp_path / "half", lacks="optim.used.bias.exp_avg_sq", lists="not"))


class Counted(torch.optim.SGD):
    """Keeps a number of Python's and a tensor that is a number."""

    def step(self, closure: Any = None) -> None:
        for parameter in (one for group in self.param_groups for one in group["params"] if one.grad is not None):
            state = self.state[parameter]
            state["step"] = state.get("step", 0) + 1
            state["trust"] = state.get("trust", torch.ones(())) * 0.5
            parameter.data.add_(parameter.grad, alpha=-0.1 * float(state["trust"]) / state["step"])


@pytest.mark.parametrize(
    "make",
    [
        lambda parameters: torch.optim.SGD(parameters, lr=0.05),
        lambda parameters: torch.optim.SGD(parameters, lr=0.05, momentum=0.9),
        lambda parameters: torch.optim.NAdam(parameters, lr=0.05),
        lambda parameters: torch.optim.AdamW(parameters, lr=0.05, amsgrad=True),
        lambda parameters: torch.optim.RAdam(parameters, lr=0.05),
        lambda parameters: Counted(parameters, lr=0.1),
    ],
    ids=["sgd", "momentum", "nadam", "amsgrad", "radam", "numbers"],
)
def test_a_resumed_optimizer_goes_on_exactly(tmp_path, make):
    whole = network()
    straight = make(whole.parameters())
    train(whole, straight, 3)
    reader = saved(tmp_path, whole, straight)
    resumed, optimizer = load(reader, make)
    resumed.load_state_dict(whole.state_dict())
    for model, one in ((whole, straight), (resumed, optimizer)):
        train(model, one, 3)
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), resumed.parameters(), strict=True))


def test_a_state_of_another_shape_is_refused_by_name(tmp_path):
    model = network()
    optimizer = torch.optim.Adafactor(model.parameters())
    train(model, optimizer, 1)
    with pytest.raises(
        CheckpointError, match=r"Adafactor keeps 'row_var' of shape \[2, 1\] for used.weight, .* \[2, 3\]"
    ):
        saved(tmp_path, model, optimizer)
