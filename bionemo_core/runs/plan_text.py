"""The plan of a run, printed before it starts."""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from bionemo_core.data.batches.cuts import count_cuts
from bionemo_core.machine import GIB, MIB
from bionemo_core.nn.cuda_graph_safe import is_cuda_graph_safe
from bionemo_core.parallel.pipeline.schedule import idle_share
from bionemo_core.parallel.sharding_choice import Sharding
from bionemo_core.plurals import format_count
from bionemo_core.runs.memory_estimate import device_bytes
from bionemo_core.runs.peak_memory import estimate_peak, ways_to_fit
from bionemo_core.training.cuda_graphs import MAX_MEMORY_SHARE
from bionemo_core.training.optim import ADAM_STATE, OptimizerState

if TYPE_CHECKING:
    from bionemo_core.checkpoint.load import CheckpointReader
    from bionemo_core.config.batch_plan import BatchPlan
    from bionemo_core.config.schema import RunSpec
    from bionemo_core.parallel.pipeline.stages import StagePlan
    from bionemo_core.protocols import DataSplits
    from bionemo_core.runs.device import Device
    from bionemo_core.runs.hooks import Built

UNSHARDED = Sharding("none", 1)


def plan_text(
    parts: Built,
    plan: BatchPlan,
    *,
    read: Sequence[str],
    rate: str,
    sharding: Sharding = UNSHARDED,
    stages: StagePlan | None = None,
    optimizer: OptimizerState = ADAM_STATE,
    graphs: bool = False,
) -> str:
    """Return the values that are derived from the configuration of a run, as aligned lines.

    Args:
        parts: the run.
        plan: its batch sizes.
        read: a line with the counts of each file.
        rate: what the learning rate does over the run.
        sharding: how data-parallel ranks share the weights.
        stages: how the stages of a pipeline share the layers; None: there is one stage.
        optimizer: what the optimizer keeps.
        graphs: whether passes run as CUDA graphs where that is possible.
    """
    spec, splits, device = parts.spec, parts.splits, parts.device
    module: Any = parts.module
    parameters = sum(p.numel() for p in module.parameters()) * plan.tensor_parallel_size
    own = max(stages.parameters) * plan.tensor_parallel_size if stages else parameters
    seq_length: int = spec.batch.seq_length or getattr(module, "seq_length", None) or 0
    row, size, total = _batch_words(spec, module, splits, seq_length, plan.global_batch_size)
    lines = [
        ("model", f"{spec.model.name} of {spec.model.distribution}, {parameters / 1e6:,.1f}M parameters"),
        ("tokenizer", f"{spec.tokenizer.name}"),
        ("data", _data_line(spec, splits)),
        *(("", line) for line in read),
        *(("cut", line) for line in cut_lines(spec, splits, getattr(module, "objective", None), seq_length)),
        ("layout", _layout_line(plan, device)),
        *((("stages", _stages_line(stages, plan)),) if stages else ()),
        *((("sharding", _sharding_line(sharding, plan)),) if sharding.reason else ()),
        (
            "batch",
            f"{format_count(plan.global_batch_size, row)} {size} = "
            f"{plan.micro_batch_size} micro x {plan.accumulate_grad_batches} accumulated x "
            f"{format_count(plan.data_parallel_size, 'rank')}{total}",
        ),
        *_training_lines(spec, _memory_lines(spec, plan, module, device, own, sharding, optimizer, graphs), rate),
        ("folder", str(parts.folder.path)),
    ]
    return "\n".join(f"{name:>10}  {text}" for name, text in lines)


def _batch_words(
    spec: RunSpec, module: Any, splits: DataSplits, seq_length: int, global_batch_size: int
) -> tuple[str, str, str]:
    """Return the word for a row of a batch, and texts about their size and about all tokens of a step."""
    objective, pairs = getattr(module, "objective", None), bool(getattr(splits.train, "seconds", ()))
    row = "pack" if spec.batch.packing else "pair" if pairs else "sequence"
    if getattr(objective, "one_state_per_sequence", False):
        return row, "a step, from cached states of the encoder", ""
    sides = [seq_length, *([objective.target_length] if pairs and objective is not None else [])]
    size = f"of up to {' and '.join(map(str, sides))} tokens a step"
    return row, size, f"; up to {global_batch_size * sum(sides):,} tokens"


def _memory_lines(
    spec: RunSpec,
    plan: BatchPlan,
    module: Any,
    device: Device,
    parameters: int,
    sharding: Sharding,
    optimizer: OptimizerState,
    graphs: bool,
) -> list[tuple[str, str]]:
    """Return the expected memory of a rank; if the device has less, also what would make the run fit."""
    network = getattr(module, "network", None)
    vocab_size = getattr(network, "vocab_size", None)
    available = device_bytes(device, spec.trainer.devices)
    peak = None
    trains_all = all(parameter.requires_grad for parameter in module.parameters())
    if network is not None and isinstance(vocab_size, int) and trains_all:
        estimate = partial(
            estimate_peak, spec, plan, device, parameters, vocab_size,
            shards=sharding.shard_size, rotary=getattr(network, "rotary", None) is not None, optimizer=optimizer,
            whole_gradients=not sharding.reduces_each_pass,
        )  # fmt: skip
        peak = estimate()
        may_replay = graphs and spec.batch.packing and sharding.shard_size == 1 and is_cuda_graph_safe(network)
        if peak is not None and may_replay and peak.total <= MAX_MEMORY_SHARE * available:
            peak = estimate(graphs=True)
    state = f"{_size(state_bytes(parameters, plan, sharding, optimizer))} a rank for {optimizer.with_weights}"
    if peak is None:
        return [("memory", f"about {state}")]
    lines = [("memory", f"about {_size(peak.total)} at the peak of a step with a full batch; {state}")]
    if peak.total > available:
        ways = ways_to_fit(spec, plan, device, parameters, vocab_size or 0, sharding.shard_size, available, optimizer)
        advice = f"; it would fit with {', or '.join(ways)}" if ways else "; use a smaller model or more devices"
        lines.append(("", f"this is unlikely to fit: the device has {_size(available)}{advice}"))
    return lines


def state_bytes(
    parameters: int, plan: BatchPlan, sharding: Sharding = UNSHARDED, optimizer: OptimizerState = ADAM_STATE
) -> float:
    """Return the bytes a rank needs besides activations: weights and gradients in float32, and the optimizer's state.

    What the optimizer keeps is known by `training.optim.measure_state`.
    """
    own = parameters / (plan.tensor_parallel_size * sharding.shard_size)
    return (8.0 + optimizer.bytes_per_parameter) * own


def _layout_line(plan: BatchPlan, device: Device) -> str:
    sizes = {"data": plan.data_parallel_size, "tensor": plan.tensor_parallel_size}
    sizes |= {"pipeline": plan.pipeline_parallel_size} if plan.pipeline_parallel_size > 1 else {}
    listed = ", ".join(f"{name} {size}" for name, size in sizes.items())
    recipe = f" ({device.fp8_recipe}{', emulated' * (device.name == 'cpu')})" if device.fp8_recipe else ""
    return f"{math.prod(sizes.values())} x {device.name} ({listed}), precision {device.precision}{recipe}"


def _stages_line(stages: StagePlan, plan: BatchPlan) -> str:
    layers = ", ".join(
        f"{part[0] + 1} to {part[-1] + 1}" if len(part) > 1 else f"{part[0] + 1}" for part in stages.layers
    )
    number = plan.accumulate_grad_batches
    idle = idle_share(plan.pipeline_parallel_size, number)
    return (
        f"layers {layers}; each stage is idle for {idle:.0%} of a step of "
        f"{format_count(number, 'micro batch', 'micro batches')} (batch.accumulate_grad_batches), for less with more"
    )


def _sharding_line(sharding: Sharding, plan: BatchPlan) -> str:
    shared = {
        "full": f"over all {plan.data_parallel_size} data-parallel ranks",
        "hybrid": f"over groups of {sharding.shard_size} of the {plan.data_parallel_size} data-parallel ranks",
        "none": f"none, each of the {plan.data_parallel_size} data-parallel ranks has all weights",
    }[sharding.strategy]
    return f"{shared}: {sharding.reason}"


def _training_lines(spec: RunSpec, memory: list[tuple[str, str]], rate: str) -> list[tuple[str, str]]:
    """Return the lines about memory, steps and rate; of a run that only tests, one line that says so."""
    if not spec.task.params.get("do_training", True):
        return [("steps", "none: task.do_training=false only tests")]
    return [
        *memory,
        ("steps", f"{spec.trainer.max_steps:,}, validation every {spec.trainer.val_check_interval:,}"),
        ("rate", rate),
    ]


def _size(num_bytes: float) -> str:
    return f"{num_bytes / GIB:,.2f} GiB" if num_bytes >= GIB else f"{num_bytes / MIB:,.0f} MiB"


def _data_line(spec: RunSpec, splits: DataSplits) -> str:
    counts = [("train", splits.train), ("val", splits.val), ("test", splits.test)]
    sizes = ", ".join(f"{len(part):,} {name}" for name, part in counts if part is not None)
    note = " (the bundled sample; use your own with data=fasta data.path=...)" if spec.data.name == "sample" else ""
    return f"{spec.data.name}: {sizes}{note}"


def cut_lines(spec: RunSpec, splits: DataSplits, objective: Any, seq_length: int) -> list[str]:
    """Return a line for each split with sequences that the objective cuts, and one that says how to avoid it."""
    lines, room = [], 0
    for name, part in (("train", splits.train), ("val", splits.val), ("test", splits.test)):
        cuts = count_cuts(part, objective, seq_length) if part is not None and objective is not None else None
        if cuts is not None and cuts.text:
            lines.append(f"{name}: {cuts.text}")
            room = cuts.least_room if hasattr(objective, "record_example") else cuts.room - 1  # with EOS
    if lines and "on_long" in spec.data.params:
        lines.append(f"to read them whole: data.on_long=window data.max_length={room}")
    elif lines and "max_length" in spec.data.params:
        lines.append(f"to leave them out: data.max_length={room}")
    return lines


def print_resume(reader: CheckpointReader, changes: Iterable[Any], jump: str) -> None:
    """Print where a run resumes, which settings changed since its last session, and a `jump` of the learning rate."""
    seen = format_count(reader.consumed_samples, "sequence")
    lines = [f"{'resume':>10}  step {reader.step:,}, {seen} seen, from {reader.folder}"]
    lines += [f"{'changed':>10}  {change.key}: {change.old} -> {change.new}" for change in changes]
    lines += [f"{'rate':>10}  {jump}"] if jump else []
    print("\n".join(lines), flush=True)


def quieten_libraries() -> None:
    """Silence messages that are not about the user's run: Lightning's hints, advertisements and deprecations."""
    for name in ("pytorch_lightning", "lightning_fabric", "lightning"):
        logging.getLogger(name).setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", message=r".*LeafSpec.*")
    warnings.filterwarnings("ignore", message=r".*does not have many workers.*")
    warnings.filterwarnings("ignore", message=r".*number of training batches.*")
    warnings.filterwarnings("ignore", message=r".*have no `val_dataloader`.*")  # the plan says how many records it has
