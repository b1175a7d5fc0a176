"""What a rank writes of weights and Adam is what it reads back, or the checkpoint is refused by name."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from bionemo_core.checkpoint.load import open_checkpoint
from bionemo_core.checkpoint.save import save
from bionemo_core.errors import CheckpointError
from bionemo_core.parallel.layout import ParameterLayout
from bionemo_core.parallel.weights import adam_parts, load_adam, names_with_moments, weight_parts

ONE: Any = SimpleNamespace(tensor_rank=0, tensor_size=1, data_rank=0, data_size=1)


def network() -> nn.Module:
    return nn.ModuleDict({"used": nn.Linear(3, 2), "idle": nn.Linear(2, 2)})


def layouts(model: nn.Module) -> dict[str, ParameterLayout]:
    return {name: ParameterLayout(tuple(one.shape), 0, 1) for name, one in model.named_parameters()}


def trained() -> tuple[nn.Module, torch.optim.Optimizer]:
    model = network()
    optimizer = torch.optim.AdamW(model.parameters())
    model["used"](torch.ones(1, 3)).sum().backward()  # the other layer gets no gradient
    optimizer.step()
    return model, optimizer


def saved(folder, lacks: str = "none", lists: bool = True) -> Any:
    model, optimizer = trained()
    parts = [*weight_parts(model, layouts(model), ONE), *adam_parts(model, layouts(model), ONE, optimizer)]
    state = {"adam_steps": 1.0, **({"adam_parameters": names_with_moments(model, optimizer)} if lists else {})}
    return open_checkpoint(save(folder, 1, [part for part in parts if lacks not in part.name], state))


def load(reader: Any) -> tuple[nn.Module, torch.optim.Optimizer]:
    model = network()
    optimizer = torch.optim.AdamW(model.parameters())
    load_adam(model, layouts(model), ONE, optimizer, reader)
    return model, optimizer


def test_a_parameter_without_a_gradient_has_no_moments_and_needs_none(tmp_path):
    model, optimizer = load(saved(tmp_path))
    assert names_with_moments(model, optimizer) == ["used.weight", "used.bias"]


@pytest.mark.parametrize("lacks", ["optim.used.bias", "optim.used.weight.exp_avg_sq"])
def test_a_moment_that_is_missing_is_named(tmp_path, lacks):
    with pytest.raises(CheckpointError, match=f"lacks moments of Adam .*{lacks}"):
        load(saved(tmp_path, lacks))


def test_checkpoints_of_earlier_versions_have_both_moments_or_none(tmp_path):
    load(saved(tmp_path / "whole", lists=False))
    load(saved(tmp_path / "none", "optim.used.bias", lists=False))
    with pytest.raises(CheckpointError, match="exp_avg_sq"):
        load(saved(tmp_path / "half", "optim.used.bias.exp_avg_sq", lists=False))
