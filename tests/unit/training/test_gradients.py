"""Clipping and the loss scale follow v1's rules."""

import pytest
import torch
from torch import nn

from bionemo_core.training.gradients import LossScaler, clip_factor, scale_gradients


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
