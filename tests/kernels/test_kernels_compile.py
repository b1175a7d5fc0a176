"""Every kernel compiles for GPUs, in the variants that are launched; no GPU is needed."""

import itertools
from typing import Any

import pytest
import torch
from triton import compile as compiled
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from bionemo_core.nn.decode_attention import _KEYS_AT_ONCE, _WARPS
from bionemo_core.nn.decode_attention_kernel import attend
from bionemo_core.nn.short_attention import LONGEST, WIDTHS, _launches
from bionemo_core.nn.short_attention_kernel import backward, forward

TARGETS = {name: GPUTarget("cuda", number, 32) for name, number in (("A100", 80), ("H100", 90))}
BOUNDS = {"query_bounds": "*i32", "key_bounds": "*i32", "seed": "*i64", "scale": "fp32", "dropout": "fp32"}


def assert_compiles(kernel: Any, types: dict[str, str], constants: dict[str, Any], target: GPUTarget) -> None:
    """`types` are those of arguments that are neither strides nor sizes."""
    options = {name: constants.pop(name) for name in ("num_warps",) if name in constants}
    names = kernel.arg_names
    signature = {name: "constexpr" if name in constants else types.get(name, "i32") for name in names}
    assert set(types) <= set(names)
    made = compiled(ASTSource(kernel, signature, constants), target=target, options=options)
    assert made.asm["ptx"]


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("dtype", ["bf16", "fp16", "fp32"])
@pytest.mark.parametrize(("appends", "visible", "bias"), [(1, 0, 0), (1, 0, 1), (0, 0, 0), (0, 1, 0)])
def test_one_query(target: str, dtype: str, appends: int, visible: int, bias: int) -> None:
    pointer = f"*{dtype}"
    types = dict.fromkeys(("query", "keys", "values", "new_key", "new_value", "out"), pointer)
    types |= {"new_place": "*i64", "visible": "*u8", "bias": pointer, "scale": "fp32"}
    constants = {"HEADS": 8, "WIDTH": 40, "WIDTH_POWER": 64, "AT_ONCE": _KEYS_AT_ONCE, "num_warps": _WARPS}
    constants |= {"APPENDS": bool(appends), "HAS_VISIBLE": bool(visible), "HAS_BIAS": bool(bias)}
    assert_compiles(attend, types, constants, TARGETS[target])


def launches() -> list[dict[str, Any]]:
    """The constants of each launch: of the widest heads all, of others the largest tiles."""
    found = []
    for width, causal, dropout in itertools.product(WIDTHS, (False, True), (0.0, 0.1)):
        made = list(_launches(torch.empty(1, 8, width), LONGEST, LONGEST, causal, dropout))
        found += made if width == max(WIDTHS) else made[-1:]
    return found


@pytest.mark.parametrize("kernel", [forward, backward], ids=["forward", "backward"])
@pytest.mark.parametrize("constants", launches(), ids=lambda one: "-".join(str(int(x)) for x in one.values()))
def test_short_attention(kernel: Any, constants: dict[str, Any]) -> None:
    tensors = ("q", "k", "v", "out", "d_out", "d_q", "d_k", "d_v")
    dtype = "*fp16" if constants["CAUSAL"] else "*bf16"
    types = {name: dtype for name in tensors if name in kernel.arg_names} | BOUNDS
    assert_compiles(kernel, types, dict(constants), TARGETS["H100"])
