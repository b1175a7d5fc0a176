"""Linear layers that multiply in 8-bit floating point, by torchao.

Inputs, weights and gradients are scaled by their largest value and rounded to 8 bits just before each product; sums,
the layers between and the parameters keep their precision. Embeddings and output heads are left alone.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from bionemo_core.errors import ConfigError
from bionemo_core.machine import has_package

if TYPE_CHECKING:
    from torchao.float8 import Float8LinearConfig

MULTIPLE = 16
"""Both sizes of a weight must be multiples of this, for the GPU's 8-bit matrix products."""


class Float8Product:
    """A linear layer's product in float8, in place of `torch.nn.functional.linear`."""

    def __init__(self, config: Float8LinearConfig) -> None:
        from torchao.float8.float8_linear import matmul_with_hp_or_float8_args
        from torchao.float8.float8_training_tensor import LinearMMConfig, ScaledMMConfig

        products = (config.gemm_config_output, config.gemm_config_grad_input, config.gemm_config_grad_weight)
        self._config = config
        self._products = LinearMMConfig(
            *(ScaledMMConfig(config.emulate, one.use_fast_accum, False, config.pad_inner_dim) for one in products)
        )
        self._multiply = matmul_with_hp_or_float8_args.apply

    def __call__(self, input_: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """Return `input_` times the transpose of `weight`, plus `bias`; [..., in] and [out, in] give [..., out]."""
        output: Tensor = self._multiply(input_, weight.t(), self._products, self._config)
        return output if bias is None else output + bias


def use_float8(network: nn.Module, recipe: str, device: torch.device) -> None:
    """Change the linear layers in the network's `layers` in place so that they multiply in float8.

    A linear layer of the core has an attribute `float8`, and gets its product there; a `torch.nn.Linear` is replaced.
    On a CPU the products are emulated: rounded in the same way, and slow.

    Args:
        recipe: rowwise, a scale for each row; or tensorwise, one for a tensor, which is faster and less exact.

    Raises:
        ConfigError: the network has no such linear layers, or one whose sizes are no multiples of 16.
    """
    from torch._inductor import config as compiler

    config = _config(recipe, emulate=device.type != "cuda")
    # Padded strides of intermediate results gave gradients that were not finite, where 3 x hidden_size is above 1,024
    # and no multiple of 64 (ESM-2 35M on an H200, torch 2.11).
    compiler.comprehensive_padding = False  # type: ignore[attr-defined]
    product, changed = Float8Product(config), 0
    for layer in getattr(network, "layers", ()):
        for name, module in layer.named_modules():
            if hasattr(type(module), "float8"):
                _check_sizes(name, module.weight)
                module.float8 = product
                changed += 1
        changed += _replace_linears(layer, config)
    if not changed:
        raise ConfigError(
            f"trainer.precision=fp8-mixed: {type(network).__name__} has no linear layers in its `layers`. "
            "Use trainer.precision=bf16-mixed."
        )


def _replace_linears(layer: nn.Module, config: Float8LinearConfig) -> int:
    from torchao.float8 import convert_to_float8_training

    chosen = [name for name, module in layer.named_modules() if type(module) is nn.Linear]
    for name in chosen:
        _check_sizes(name, layer.get_submodule(name).weight)
    # Called for a layer without any, too: it also makes the compiler avoid a known error of Triton (torchao #4652).
    convert_to_float8_training(layer, module_filter_fn=lambda _, name: name in chosen, config=config)
    return len(chosen)


def check_float8(recipe: str, *, on_gpu: bool) -> None:
    """Check that this machine can multiply in float8.

    Raises:
        ConfigError: torchao is not installed, or the GPU has no 8-bit products.
    """
    if not has_package("torchao"):
        raise ConfigError(
            "trainer.precision=fp8-mixed needs torchao. Run `pip install 'bionemo-run[fp8]'`, or use "
            "trainer.precision=bf16-mixed."
        )
    if not on_gpu:
        return
    needed, found = (9, 0) if recipe == "rowwise" else (8, 9), torch.cuda.get_device_capability()
    if found < needed:
        raise ConfigError(
            f"trainer.precision=fp8-mixed, trainer.fp8_recipe={recipe}: {torch.cuda.get_device_name()} has compute "
            f"capability {found[0]}.{found[1]}, expected {needed[0]}.{needed[1]} or later. Use "
            f"{'trainer.fp8_recipe=tensorwise or ' * (found >= (8, 9))}trainer.precision=bf16-mixed."
        )


def _check_sizes(name: str, weight: Any) -> None:
    if any(size % MULTIPLE for size in weight.shape):
        raise ConfigError(
            f"trainer.precision=fp8-mixed: the weight of {name} is {' x '.join(map(str, weight.shape))}, expected "
            f"multiples of {MULTIPLE}. Change model.hidden_size or model.ffn_hidden_size, or use "
            "trainer.precision=bf16-mixed."
        )


def _config(recipe: str, *, emulate: bool) -> Float8LinearConfig:
    with _quiet_import():
        from torchao.float8 import Float8LinearConfig
    # The number of tokens is the inner size of the product that gives a weight's gradient; it need not be a multiple.
    return dataclasses.replace(Float8LinearConfig.from_recipe_name(recipe), pad_inner_dim=True, emulate=emulate)


@contextmanager
def _quiet_import() -> Iterator[None]:
    """Keep torchao from warning of its own source, and of its compiled extensions, of which training needs none."""
    os.environ.setdefault("TORCHAO_FORCE_SKIP_LOADING_SO_FILES", "1")
    loggers = [logging.getLogger(name) for name in ("torchao", "torch.utils._pytree")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
