"""An estimate of the most memory that a training step takes on a device: state of the model, and activations.

It counts what autograd keeps of each layer, as `bionemo_core.nn` computes it, compiled or not. `memory_estimate` has
the lower bound that refuses a run; this is the expected value, which the plan prints.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from bionemo_core.config.batch_plan import BatchPlan
from bionemo_core.config.recompute_options import Recompute
from bionemo_core.config.schema import RunSpec
from bionemo_core.parallel.pipeline.stages import split_layers
from bionemo_core.parallel.sharding_choice import holds_whole_gradients
from bionemo_core.runs.device import Device
from bionemo_core.training.optim import ADAM_STATE, OptimizerState

_GATED = ("geglu", "geglu_tanh", "swiglu", "reglu")
_CUDA_WORKSPACE = 64 * 1024**2
"""Bytes that matrix products reserve on a GPU."""


@dataclass(frozen=True)
class Stack:
    """Transformer layers of one kind, and the tokens that pass through them."""

    layers: int
    hidden: int
    heads: int
    head_width: int
    inner: int
    """Width inside the MLP."""
    gated: bool
    hidden_dropout: float
    attention_dropout: float
    positions: str
    """rope, relative or another."""
    tokens: int
    """Tokens of a micro batch."""
    row_length: int
    """Tokens that attend to each other, at most."""
    memory_tokens: int = 0
    """Tokens of the encoder that the layers attend to; 0 without cross attention."""


@dataclass(frozen=True)
class Conditions:
    """How the layers are computed."""

    number_bytes: int
    """Bytes of an activation."""
    cpu: bool
    tensor_ranks: int
    recompute: Recompute


def kept_bytes(stack: Stack, on: Conditions) -> float:
    """Return the bytes that the layers of a stack keep for the backward pass."""
    whole, few = _layer_bytes(stack, on), _input_bytes(stack, on)
    selective = whole - _attention_only_bytes(stack, on)
    if on.recompute.granularity == "full":
        number = min(on.recompute.num_layers, stack.layers) if on.recompute.method == "block" else stack.layers
        return number * few + (stack.layers - number) * whole
    return stack.layers * (selective if on.recompute.granularity == "selective" else whole)


def passing_bytes(stack: Stack, on: Conditions) -> float:
    """Return the bytes that one layer takes for a while: its recomputed activations, and gradients of them."""
    gradients = on.number_bytes * stack.tokens * (2 * stack.hidden + 2 * stack.inner / on.tensor_ranks)
    if on.recompute.granularity == "full":
        return gradients + _layer_bytes(stack, on)
    return gradients + (_attention_only_bytes(stack, on) if on.recompute.any else 0.0)


def _input_bytes(stack: Stack, on: Conditions) -> float:
    return on.number_bytes * stack.tokens * stack.hidden


def _layer_bytes(stack: Stack, on: Conditions) -> float:
    attention = stack.heads * stack.head_width
    numbers = 4.0 * stack.hidden  # the residual sums and the outputs of the norms, twice
    numbers += (4 if stack.gated else 2) * stack.inner / on.tensor_ranks
    numbers += 4 * attention / on.tensor_ranks  # queries, keys, values, output
    if stack.positions == "rope" and on.cpu:
        # rotated queries and keys beside the projections; sine and cosine for each. Compiled code fuses them.
        numbers += 2 * attention / on.tensor_ranks + 4 * stack.head_width
    per_memory_token = 0.0
    if stack.memory_tokens:
        numbers += 2 * stack.hidden + 2 * attention / on.tensor_ranks
        per_memory_token = 2 * attention / on.tensor_ranks
    total = on.number_bytes * (stack.tokens * numbers + stack.memory_tokens * per_memory_token)
    return total + _mask_bytes(stack, on) + _attention_only_bytes(stack, on)


def _mask_bytes(stack: Stack, on: Conditions) -> float:
    """Return the bytes of the masks of hidden dropout; on a CPU torch keeps them as numbers."""
    if not stack.hidden_dropout:
        return 0.0
    parts = 3 if stack.memory_tokens else 2
    return parts * stack.tokens * stack.hidden * (on.number_bytes if on.cpu else 1)


def _attention_only_bytes(stack: Stack, on: Conditions) -> float:
    """Return the bytes that attention itself keeps besides its inputs and output: scores, without a fused kernel."""
    if not on.cpu:
        return 0.0
    attention = stack.heads * stack.head_width
    self_scores = 3.0 if stack.attention_dropout else 1.5 if stack.positions == "relative" else 0.0
    cross_scores = 3.0 if stack.attention_dropout and stack.memory_tokens else 0.0
    scores = (self_scores + cross_scores) * stack.heads * stack.row_length
    copies = (int(self_scores > 0 and stack.positions != "rope") + int(cross_scores > 0)) * 2 * attention
    return on.number_bytes * stack.tokens * (scores + copies) / on.tensor_ranks


@dataclass(frozen=True)
class Peak:
    """The estimate for one rank, in bytes."""

    state: float
    """Weights, gradients and optimizer, as they are when activations take the most."""
    activations: float
    after: float
    """Weights, gradients and optimizer at the end of a backward pass, when no activation is left."""
    kept: float
    """The part of the activations that a forward pass keeps; the rest a backward pass takes for a while."""

    @property
    def total(self) -> float:
        return max(self.state + self.activations, self.after)


def estimate_peak(
    spec: RunSpec,
    plan: BatchPlan,
    device: Device,
    parameters: int,
    vocab_size: int,
    *,
    shards: int | None = None,
    rotary: bool = False,
    optimizer: OptimizerState = ADAM_STATE,
    graphs: bool = False,
    whole_gradients: bool = True,
) -> Peak | None:
    """Return the estimate of a run; None for a model whose sizes are not those of a transformer.

    Args:
        spec: the run.
        plan: its batch sizes.
        device: where it runs.
        parameters: parameters of the model, or of a pipeline's largest stage, on all tensor-parallel ranks.
        vocab_size: tokens of the vocabulary.
        shards: ranks that share one copy of weights, gradients and optimizer; None: all data-parallel ranks.
        rotary: as for `stacks_of`.
        optimizer: what the optimizer keeps.
        graphs: whether passes are CUDA graphs, whose gradients have their memory during the whole run.
        whole_gradients: whether ranks that share weights add up whole gradients until the last micro batch of a step.
    """
    stacks = stacks_of(spec, plan, rotary=rotary)
    if not stacks:
        return None
    on = Conditions(device.dtype.itemsize, device.name == "cpu", plan.tensor_parallel_size, Recompute.of(spec.trainer))
    columns = _loss_share(spec, on) * -(-vocab_size // 128) * 128 * stacks[-1].tokens / on.tensor_ranks
    passing = max(*(passing_bytes(stack, on) for stack in stacks), (on.number_bytes + 2 * 4) * columns)
    end = _end_bytes(stacks, on, columns, _loss_share(spec, on))
    kept = _kept_bytes_of_stage(stacks, plan, on, end)
    activations = kept + passing + (0 if on.cpu else _CUDA_WORKSPACE)
    own, shards = parameters / plan.tensor_parallel_size, shards or plan.data_parallel_size
    moments = optimizer.bytes_per_parameter
    early = 4.0 / shards if graphs or plan.accumulate_grad_batches > 1 else 0.0
    if early and shards > 1 and whole_gradients:
        early = 2.0 if spec.parallel.reduce_dtype == "bfloat16" else 4.0
    state, after = _state_bytes(own, shards, on.number_bytes, moments, early)
    return Peak(state, activations, after, kept)


def _kept_bytes_of_stage(stacks: list[Stack], plan: BatchPlan, on: Conditions, end: float) -> float:
    """Return the most bytes that a stage keeps; without a pipeline all layers are one stage.

    A stage keeps the activations of several micro batches, the more the earlier it is, and the last one has the head,
    which keeps `end`.
    """
    count = plan.pipeline_parallel_size
    if count == 1:
        return sum(kept_bytes(stack, on) for stack in stacks) + end
    kept = [
        min(count - stage, plan.accumulate_grad_batches) * kept_bytes(replace(stacks[0], layers=len(layers)), on)
        for stage, layers in enumerate(split_layers(stacks[0].layers, count))
    ]
    return max(*kept[:-1], kept[-1] + end)


def stacks_of(spec: RunSpec, plan: BatchPlan, *, rotary: bool = False) -> list[Stack]:
    """Return the stacks of the model, the encoder first; none if it is not a transformer with the usual keys.

    `rotary` says that its encoder rotates queries and keys, where no key of the model says so.
    """
    sizes = spec.model.params
    length = spec.batch.seq_length or sizes.get("seq_length")
    needed = ("num_layers", "hidden_size", "num_attention_heads")
    if not all(isinstance(sizes.get(name), int) for name in needed) or not isinstance(length, int):
        return []
    if sizes.get("encoder_arch", "transformer") != "transformer" or "hidden_steps" in sizes:
        return []  # a perceiver's latents are counted in sequences, and a plan does not know their number
    encoder = _stack(sizes, plan.micro_batch_size, length, rotary)
    if "num_decoder_layers" not in sizes:
        return [encoder]
    own = {name.removeprefix("decoder_"): value for name, value in sizes.items() if name.startswith("decoder_")}
    own["num_layers"] = sizes["num_decoder_layers"]
    target = sizes.get("seq_length_dec") or length
    own = {name: value for name, value in own.items() if value is not None}
    decoder = _stack({**sizes, **own}, plan.micro_batch_size, target, rotary)
    return [encoder, replace(decoder, memory_tokens=encoder.tokens)]


def _stack(sizes: dict[str, Any], rows: int, length: int, rotary: bool) -> Stack:
    hidden, heads = sizes["hidden_size"], sizes["num_attention_heads"]
    return Stack(
        layers=sizes["num_layers"],
        hidden=hidden,
        heads=heads,
        head_width=sizes.get("kv_channels") or hidden // heads,
        inner=sizes.get("ffn_hidden_size") or 4 * hidden,
        gated=sizes.get("activation") in _GATED,
        hidden_dropout=sizes.get("hidden_dropout") or 0.0,
        attention_dropout=sizes.get("attention_dropout") or 0.0,
        positions="rope" if rotary else sizes.get("position_embedding_type", ""),
        tokens=rows * length,
        row_length=length,
    )


def _loss_share(spec: RunSpec, on: Conditions) -> float:
    """Return the share of tokens that reach the head: on a GPU all, on a CPU those with a label."""
    share = spec.model.params.get("modify_percent")
    return share if on.cpu and isinstance(share, float) else 1.0


def _end_bytes(stacks: list[Stack], on: Conditions, columns: float, share: float) -> float:
    """Return the bytes that final norms, head and loss keep; `columns` are logits, which are kept in float32."""
    norms = sum(2 * on.number_bytes * stack.tokens * stack.hidden for stack in stacks)
    return norms + share * 3 * on.number_bytes * stacks[-1].tokens * stacks[-1].hidden + 4 * columns


def _state_bytes(
    parameters: float, shards: int, number_bytes: int, moments: float, early_gradients: float
) -> tuple[float, float]:
    """Return the bytes of the state before and after the last backward pass of a step.

    In float32: weights (4), the optimizer's `moments` (of Adam 8), gradients (4; before the last backward pass
    `early_gradients`, of each parameter). In 16 bit copies of weights (2) and gradients (2) are added; with several
    shards the copies are whole and the rest is sharded.
    """
    gathered = number_bytes * parameters if number_bytes < 4 or shards > 1 else 0.0
    before = ((4.0 + moments) / shards + early_gradients) * parameters + gathered
    half_gradients = number_bytes * parameters if number_bytes < 4 and shards == 1 else 0.0
    return before, (8.0 + moments) * parameters / shards + gathered + half_gradients


def ways_to_fit(
    spec: RunSpec,
    plan: BatchPlan,
    device: Device,
    parameters: int,
    vocab_size: int,
    shards: int,
    available: float,
    optimizer: OptimizerState = ADAM_STATE,
) -> list[str]:
    """Return settings that would each make the run fit into `available` bytes, as they are typed."""

    def fits(spec: RunSpec, plan: BatchPlan, shards: int = shards) -> bool:
        whole = holds_whole_gradients(4 * parameters / plan.tensor_parallel_size, available)
        peak = estimate_peak(
            spec, plan, device, parameters, vocab_size, shards=shards, optimizer=optimizer, whole_gradients=whole
        )
        return peak is not None and peak.total <= available

    ways = []
    full = replace(
        spec,
        trainer=replace(
            spec.trainer, activations_checkpoint_granularity="full", activations_checkpoint_method=None,
            activations_checkpoint_num_layers=1,
        ),
    )  # fmt: skip
    rows = plan.micro_batch_size
    smaller = next((n for n in range(rows - 1, 0, -1) if rows % n == 0 and fits(spec, _with_rows(plan, n))), None)
    if smaller:
        accumulate = _with_rows(plan, smaller).accumulate_grad_batches
        ways.append(f"batch.micro_batch_size={smaller} batch.accumulate_grad_batches={accumulate}")
    if fits(full, plan):
        ways.append("trainer.activations_checkpoint_granularity=full")
    sharded = (n for n in (2, 4, 8, 16, 32, 64) if fits(spec, plan, n))
    devices = next(sharded, None)
    if devices and plan.data_parallel_size == 1:
        ranks = devices * plan.tensor_parallel_size * plan.pipeline_parallel_size
        ways.append(f"trainer.devices={ranks}, which shards weights and optimizer")
    if not ways and fits(full, _with_rows(plan, 1)):
        ways.append(
            "trainer.activations_checkpoint_granularity=full batch.micro_batch_size=1 "
            f"batch.accumulate_grad_batches={rows * plan.accumulate_grad_batches}"
        )
    return ways


def _with_rows(plan: BatchPlan, rows: int) -> BatchPlan:
    accumulate = plan.accumulate_grad_batches * plan.micro_batch_size // rows
    return replace(plan, micro_batch_size=rows, accumulate_grad_batches=accumulate)
