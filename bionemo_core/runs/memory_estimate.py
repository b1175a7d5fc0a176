"""A lower bound of the memory that a training needs, so that absurd sizes are refused before anything is built."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

import torch

from bionemo_core.config.batch_plan import BatchPlan
from bionemo_core.config.schema import RunSpec
from bionemo_core.errors import ConfigError
from bionemo_core.machine import GIB
from bionemo_core.plurals import format_count
from bionemo_core.runs.device import Device
from bionemo_core.training.optim import ADAM_STATE, OptimizerState

WORKER_BYTES = 16 * 1024**2
"""Bytes of a loader process that it does not share, without the records that it reads."""

RANK_BYTES = 96 * 1024**2
"""Bytes of a rank that it does not share, before it has a model: the libraries that it has imported."""

PACKED_BYTES, UNPACKED_BYTES = 256, 32
"""Bytes of a sequence while its window is packed (position, pass, record, length, its pack), and without packing."""

_SIZES = ("num_layers", "hidden_size", "num_attention_heads")
_FEWEST_TOKENS = 3


class Need(NamedTuple):
    """One part of the memory that a process needs at least."""

    what: str
    arithmetic: str
    num_bytes: float
    keys: str


def refuse_absurd(spec: RunSpec, plan: BatchPlan, device: Device, optimizer: OptimizerState = ADAM_STATE) -> None:
    """Check that the lower bounds fit into the memory of the device and of the machine.

    Raises:
        ConfigError: one does not; the message has the arithmetic.
    """
    host, processes = host_bytes(), spec.trainer.devices
    own = device_bytes(device, processes)
    where = "a GPU" if device.name == "cuda" else f"each of {processes} processes" if processes > 1 else "this machine"
    ranks = Need("ranks", f"{processes:,} x {RANK_BYTES // 1024**2} MiB", processes * RANK_BYTES, "trainer.devices")
    _refuse(ranks, host, "this machine")
    for need in device_needs(spec, plan, device.dtype.itemsize, optimizer):
        _refuse(need, own, where, whole=host)
    for need in host_needs(spec, plan):
        share = f"each of {processes} processes" if processes > 1 else "this machine"
        _refuse(need, host / processes, share, whole=host)


def device_needs(
    spec: RunSpec, plan: BatchPlan, bytes_per_number: int, optimizer: OptimizerState = ADAM_STATE
) -> list[Need]:
    """Return what the device of a rank must hold: the state of the model, and the inputs of its layers.

    Only models with the keys of a transformer are known well enough; for others the list is empty.
    """
    sizes = spec.model.params
    if not all(isinstance(sizes.get(name), int) for name in _SIZES):
        return []
    layers, hidden, heads = (sizes[name] for name in _SIZES)
    attention = heads * sizes["kv_channels"] if sizes.get("kv_channels") else hidden
    inner = sizes.get("ffn_hidden_size") or hidden
    ranks = plan.tensor_parallel_size * plan.data_parallel_size * plan.pipeline_parallel_size
    stacks = [(layers, inner)]
    if "num_decoder_layers" in sizes:
        stacks.append((sizes["num_decoder_layers"] or layers, sizes.get("decoder_ffn_hidden_size") or inner))
    terms = [
        f"{format_count(number, 'layer')} x (4 x {hidden:,} x {attention:,} + 2 x {hidden:,} x {width:,})"
        for number, width in stacks
    ]
    per_parameter = 8 + optimizer.bytes_per_parameter
    state = Need(
        optimizer.with_weights,
        f"{per_parameter:g} bytes x ({' + '.join(terms)}) / {format_count(ranks, 'rank')}",
        per_parameter * sum(number * (4 * hidden * attention + 2 * hidden * width) for number, width in stacks) / ranks,
        "model.num_layers, model.hidden_size or model.ffn_hidden_size",
    )
    rows, tokens = plan.micro_batch_size, _tokens_per_row(spec)
    layers //= plan.pipeline_parallel_size
    inputs = Need(
        "the inputs of the layers of one micro batch",
        f"{bytes_per_number} bytes x {format_count(layers, 'layer')} x {format_count(rows, 'row')} x "
        f"{format_count(tokens, 'token')} x {hidden:,}",
        bytes_per_number * layers * rows * tokens * hidden,
        "batch.micro_batch_size or batch.seq_length",
    )
    return [state, inputs]


def host_needs(spec: RunSpec, plan: BatchPlan) -> list[Need]:
    """Return what the memory of the machine must hold for a rank: loader processes, a window of packs, token ids."""
    tokens, workers = _tokens_per_row(spec), spec.batch.num_workers
    rows = plan.micro_batch_size * plan.accumulate_grad_batches
    per_sequence = PACKED_BYTES if spec.batch.packing else UNPACKED_BYTES
    return [
        Need(
            "loader processes",
            f"{workers:,} x {WORKER_BYTES // 1024**2} MiB",
            workers * WORKER_BYTES,
            "batch.num_workers",
        ),
        Need(
            "the sequences that are packed together",
            f"{spec.batch.pack_window:,} x {per_sequence} bytes",
            spec.batch.pack_window * per_sequence,
            "batch.pack_window",
        ),
        Need(
            "the token ids of a step",
            f"8 bytes x {format_count(rows, 'row')} x {format_count(tokens, 'token')}",
            8 * rows * tokens,
            "batch.micro_batch_size, batch.accumulate_grad_batches or batch.global_batch_size",
        ),
    ]


def device_bytes(device: Device, processes: int) -> float:
    """Return the memory that one rank can use: of its GPU, or its share of this machine's."""
    if device.name == "cuda":
        return torch.cuda.get_device_properties(0).total_memory
    return host_bytes() / processes


def host_bytes() -> float:
    """Return the memory of this machine in bytes, or the limit of the control group that this process is in."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        return min(total, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    except (OSError, ValueError):  # no control groups here, or no limit, which is written as a word
        return total


def _tokens_per_row(spec: RunSpec) -> int:
    """Return the fewest tokens that a row takes; without packing, rows may be as short as their sequences."""
    length = spec.batch.seq_length or spec.model.params.get("seq_length")
    if not isinstance(length, int) or (spec.batch.dynamic_padding and not spec.batch.packing):
        return _FEWEST_TOKENS
    return length


def _refuse(need: Need, available: float, where: str, whole: float = 0.0) -> None:
    if need.num_bytes > available:
        fewer = " or trainer.devices" if need.num_bytes <= whole else ""  # then the number of shares is to blame
        raise ConfigError(
            f"this run needs at least {need.num_bytes / GIB:,.1f} GiB for {need.what} ({need.arithmetic}), and {where} "
            f"has {available / GIB:,.1f} GiB. Lower {need.keys}{fewer}."
        )
