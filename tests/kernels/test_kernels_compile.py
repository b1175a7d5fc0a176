"""Every kernel compiles for GPUs in all variants that are launched; no GPU is needed."""

import itertools
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from triton import compile as compile_kernel
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from bionemo_core.nn.kernels.decode_attention import _KEYS_PER_TILE, _WARPS
from bionemo_core.nn.kernels.decode_attention_kernel import attend
from bionemo_core.nn.kernels.short_attention import HEAD_WIDTHS, MAX_LENGTH, _launches
from bionemo_core.nn.kernels.short_attention_kernel import backward, forward

TARGETS = {name: GPUTarget("cuda", number, 32) for name, number in (("A100", 80), ("H100", 90))}
BOUNDS = {"query_bounds": "*i32", "key_bounds": "*i32", "seed": "*i64", "scale": "fp32", "dropout": "fp32"}


def assert_compiles(kernel: Any, types: dict[str, str], constants: dict[str, Any], target: GPUTarget) -> None:
    """Check that a kernel compiles; `types` has the types of arguments that are neither strides nor sizes."""
    options = {name: constants.pop(name) for name in ("num_warps",) if name in constants}
    names = kernel.arg_names
    signature = {name: "constexpr" if name in constants else types.get(name, "i32") for name in names}
    assert set(types) <= set(names)
    kernel_code = compile_kernel(ASTSource(kernel, signature, constants), target=target, options=options)
    assert kernel_code.asm["ptx"]


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("dtype", ["bf16", "fp16", "fp32"])
@pytest.mark.parametrize(("appends", "visible", "bias"), [(1, 0, 0), (1, 0, 1), (0, 0, 0), (0, 1, 0)])
def test_decode_attention(target: str, dtype: str, appends: int, visible: int, bias: int) -> None:
    pointer = f"*{dtype}"
    types = dict.fromkeys(("query", "keys", "values", "new_key", "new_value", "out"), pointer)
    types |= {"new_place": "*i64", "visible": "*u8", "bias": pointer, "scale": "fp32"}
    constants = {"HEADS": 8, "WIDTH": 40, "WIDTH_POWER": 64, "AT_ONCE": _KEYS_PER_TILE, "num_warps": _WARPS}
    constants |= {"APPENDS": bool(appends), "HAS_VISIBLE": bool(visible), "HAS_BIAS": bool(bias)}
    assert_compiles(attend, types, constants, TARGETS[target])


def launches() -> Iterator[Any]:
    """Yield the constants of launches: all for the widest heads, the largest tiles for the others."""
    for width, causal, dropout in itertools.product(HEAD_WIDTHS, (False, True), (0.0, 0.1)):
        of_width = list(_launches(torch.empty(1, 8, width), MAX_LENGTH, MAX_LENGTH, causal, dropout))
        for constants in of_width if width == max(HEAD_WIDTHS) else of_width[-1:]:
            # CI compiles every tile with both and with neither; `nox -s kernels -- -m slow` with one of the two.
            yield pytest.param(constants, marks=() if causal == (dropout > 0) else pytest.mark.slow)


@pytest.mark.parametrize("kernel", [forward, backward], ids=["forward", "backward"])
@pytest.mark.parametrize(
    "constants", list(launches()), ids=lambda constants: "-".join(str(int(x)) for x in constants.values())
)
def test_short_attention(kernel: Any, constants: dict[str, Any]) -> None:
    tensors = ("q", "k", "v", "out", "d_out", "d_q", "d_k", "d_v")
    dtype = "*fp16" if constants["CAUSAL"] else "*bf16"
    types = {name: dtype for name in tensors if name in kernel.arg_names} | BOUNDS
    assert_compiles(kernel, types, dict(constants), TARGETS["H100"])
