"""Clipping and the loss scale follow v1's rules."""

import pytest
import torch
from torch import nn

from bionemo_core.training.gradients import LossScaler, clip_factor, scale_gradients
from bionemo_core.training.module import LanguageModule, Recipe
from bionemo_core.training.optim import AdamW


def test_short_gradients_are_left_alone() -> None:
    assert clip_factor(0.5, 1.0) == 1.0
    assert clip_factor(50.0, None) == 1.0
    assert clip_factor(4.0, 1.0) == pytest.approx(0.25, rel=1e-5)


def test_a_clipped_gradient_is_that_of_torch() -> None:
    for norm, limit in ((3e-6, 1e-6), (1.5, 1.0), (4000.0, 0.5)):  # torch adds 1e-6 to the norm
        weight = nn.Parameter(torch.zeros(1))
        weight.grad = torch.tensor([norm])
        nn.utils.clip_grad_norm_([weight], limit)
        assert norm * clip_factor(norm, limit) == pytest.approx(weight.grad.item(), rel=1e-6)


def test_scaling_reaches_every_gradient() -> None:
    layer = nn.Linear(3, 2)
    layer(torch.ones(1, 3)).sum().backward()
    scale_gradients(layer.parameters(), 0.5)
    assert layer.bias.grad.tolist() == [0.5, 0.5]


def test_float32_and_bfloat16_have_no_loss_scale() -> None:
    for dtype in (torch.float32, torch.bfloat16):
        scaler = LossScaler.for_dtype(dtype)
        scaler.update(overflow=False)
        assert (scaler.scale, scaler.dynamic) == (1.0, False)


def test_the_scale_halves_after_the_second_overflow_and_doubles_after_a_thousand_good_steps() -> None:
    scaler = LossScaler.for_dtype(torch.float16)
    assert scaler.scale == 4294967296  # v1's native_amp_init_scale
    scaler.update(overflow=True)
    assert scaler.scale == 2.0**32
    scaler.update(overflow=True)
    assert scaler.scale == 2.0**31 and scaler.skipped_in_a_row == 2
    for _ in range(1000):
        scaler.update(overflow=False)
    assert scaler.scale == 2.0**32 and scaler.skipped_in_a_row == 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_resumed_run_goes_on_with_its_loss_scale(dtype: torch.dtype) -> None:
    def module() -> LanguageModule:
        made = LanguageModule(nn.Linear(1, 1), objective=None, seq_length=8)
        made.recipe = Recipe(AdamW(), lambda step: 1e-3, scaler=LossScaler.for_dtype(dtype))
        return made

    before, after = module(), module()
    for overflow in (True, True, True, False):
        before.recipe.scaler.update(overflow)
    saved: dict = {}
    before.on_save_checkpoint(saved)
    after.on_load_checkpoint(saved)
    assert after.recipe.scaler == before.recipe.scaler
    assert after.recipe.scaler.scale == (2.0**30 if dtype == torch.float16 else 1.0)


def test_a_scale_of_another_dtype_is_not_taken_over() -> None:
    module = LanguageModule(nn.Linear(1, 1), objective=None, seq_length=8)
    module.recipe = Recipe(AdamW(), lambda step: 1e-3)
    module.on_load_checkpoint({"consumed_samples": 5, "scaler": {"scale": 2.0**20, "dynamic": True}})
    assert (module.recipe.scaler, module.consumed_samples) == (LossScaler(), 5)
