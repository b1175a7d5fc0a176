"""Attention of packed rows by the package `flash-attn-4`, if it is installed: faster than torch's on Hopper and later.

The package compiles its kernels when they are first called. They are kept on disk, so that later runs find them.

Shape letters: T tokens of a packed row, N heads of this rank, D head width.
"""

from __future__ import annotations

import functools
import logging
import os
from importlib import import_module
from typing import Any

import torch
from packaging.specifiers import SpecifierSet
from torch import Tensor

from bionemo_core.machine import has_package, package_version

log = logging.getLogger("bionemo")

MODULE = "flash_attn.cute"
"""What the package installs; FlashAttention 2 installs another `flash_attn` beside it."""
VERSIONS = SpecifierSet(">=4.0.0b36,<4.1", prereleases=True)
"""As in the extra `flash`: the functions that are called here are not promised to stay as they are."""
_SMALLEST_CAPABILITY = 9
"""Hopper: for earlier cards torch's own kernels are as good."""
_WIDEST_HEAD = 128


def is_supported(query: Tensor) -> bool:
    """Return whether the package is installed and has kernels for this row, [T, N, D], on its device."""
    half = query.dtype in (torch.float16, torch.bfloat16)
    width = query.shape[-1]
    return query.is_cuda and half and width % 8 == 0 and width <= _WIDEST_HEAD and _is_available()


@torch.compiler.assume_constant_result
def _is_available() -> bool:
    return _kernels() is not None


@functools.cache
def _kernels() -> Any:
    """Import the package, which takes three seconds; None without it, or where it cannot serve."""
    if not has_package(MODULE) or torch.cuda.get_device_capability()[0] < _SMALLEST_CAPABILITY:
        return None
    version = package_version(MODULE)
    if version is None or version not in VERSIONS:
        log.warning("flash-attn-4 %s is not used: versions %s are. pip install 'bionemo-run[flash]'", version, VERSIONS)
        return None
    os.environ.setdefault("FLASH_ATTENTION_CUTE_DSL_CACHE_ENABLED", "1")  # read by the import
    try:
        found = import_module(f"{MODULE}.interface")
    except ImportError as error:
        log.warning("flash-attn-4 %s is not used, because it cannot be imported: %s", version, error)
        return None
    log.info("Attention of packed rows: flash-attn-4 %s.", version)
    return found


def flash_attention_4(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    query_bounds: Tensor,
    key_bounds: Tensor,
    max_queries: int,
    max_keys: int,
    *,
    causal: bool,
    scale: float | None,
) -> Tensor:
    """Return the attention output, [T, N, D], of a packed row whose n-th sequence attends to the n-th keys' sequence.

    Args:
        query: shape [T, N, D], D contiguous.
        key: shape [keys, N, D], D contiguous.
        value: same as `key`.
        query_bounds: cumulative lengths of the queries' sequences, int32[sequences + 1].
        key_bounds: cumulative lengths of the keys' sequences, same shape.
        max_queries: upper bound of the queries' lengths.
        max_keys: upper bound of the keys' lengths.
        causal: whether a position attends only to itself and earlier positions.
        scale: factor on the scores; 1 / sqrt(D) by default.
    """
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    return _forward(query, key, value, query_bounds, key_bounds, max_queries, max_keys, causal, scale)[0]


# Registered as torch operators, so that layers that use them can be compiled.
@torch.library.custom_op("bionemo::flash_attention_4", mutates_args=())
def _forward(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    query_bounds: Tensor,
    key_bounds: Tensor,
    max_queries: int,
    max_keys: int,
    causal: bool,
    scale: float,
) -> tuple[Tensor, Tensor]:
    """Return the output, and the logarithm of the sum of the exponentials of each query's scores, [N, T]."""
    found = _kernels()._flash_attn_fwd(
        query,
        key,
        value,
        cu_seqlens_q=query_bounds,
        cu_seqlens_k=key_bounds,
        max_seqlen_q=max_queries,
        max_seqlen_k=max_keys,
        softmax_scale=scale,
        causal=causal,
        return_lse=True,
    )
    return found[0], found[1]


@torch.library.custom_op("bionemo::flash_attention_4_backward", mutates_args=())
def _backward(
    d_out: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    out: Tensor,
    log_sums: Tensor,
    query_bounds: Tensor,
    key_bounds: Tensor,
    max_queries: int,
    max_keys: int,
    causal: bool,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    found = _kernels()._flash_attn_bwd(
        query,
        key,
        value,
        out,
        d_out,
        log_sums,
        softmax_scale=scale,
        causal=causal,
        cu_seqlens_q=query_bounds,
        cu_seqlens_k=key_bounds,
        max_seqlen_q=max_queries,
        max_seqlen_k=max_keys,
        deterministic=torch.are_deterministic_algorithms_enabled(),
    )
    return found[0], found[1], found[2]


@_forward.register_fake
def _fake_forward(query: Tensor, *_: object) -> tuple[Tensor, Tensor]:
    tokens, heads, _width = query.shape
    return query.new_empty(query.shape), query.new_empty((heads, tokens), dtype=torch.float32)


@_backward.register_fake
def _fake_backward(
    d_out: Tensor, query: Tensor, key: Tensor, value: Tensor, *_: object
) -> tuple[Tensor, Tensor, Tensor]:
    grads = [x.new_empty(x.shape) for x in (query, key, value)]
    return grads[0], grads[1], grads[2]


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(*inputs[:3], *output, *inputs[3:5])
    ctx.options = inputs[5:]


def _run_backward(ctx: Any, d_out: Tensor, _d_log_sums: Tensor) -> tuple[Tensor | None, ...]:
    return *_backward(d_out.contiguous(), *ctx.saved_tensors, *ctx.options), *([None] * 6)


_forward.register_autograd(_run_backward, setup_context=_setup_context)
