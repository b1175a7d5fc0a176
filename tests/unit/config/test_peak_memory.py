"""The expected memory of a step: against the bytes that forward passes keep, and what it advises."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch.profiler import profile

from bionemo_core.builtin import load_registry
from bionemo_core.config.batch_plan import batch_plan
from bionemo_core.config.recompute_options import Recompute
from bionemo_core.config.schema import RunSpec
from bionemo_core.machine import GIB
from bionemo_core.protocols import BuildContext, Example, Seq2SeqExample
from bionemo_core.runs import memory_estimate
from bionemo_core.runs.device import Device
from bionemo_core.runs.peak_memory import estimate_peak, ways_to_fit
from bionemo_core.training.optim import AdamW, measure_state

pytest.importorskip("bionemo_t5")

ROWS, LENGTH = 4, 96
SIZES = ("model.num_layers=4", "model.hidden_size=96", "model.num_attention_heads=6", "model.ffn_hidden_size=320")
BATCH = (f"batch.micro_batch_size={ROWS}", f"batch.seq_length={LENGTH}", "batch.packing=false")
FULL = "trainer.activations_checkpoint_granularity=full"
RUNS = {
    "esm2": ("model=esm2_8m",),
    "esm2-dropout": ("model=esm2_8m", "model.hidden_dropout=0.1", "model.attention_dropout=0.1"),
    "esm2-gated": ("model=esm2_8m", "model.activation=swiglu"),
    "esm2-full": ("model=esm2_8m", FULL),
    "esm1nv-selective": ("model=esm1nv_tiny", FULL.replace("full", "selective")),
    "t5": ("model=prott5nv_tiny", "model.hidden_dropout=0", "model.attention_dropout=0"),
    "t5-dropout": ("model=prott5nv_tiny",),
    "t5-relative": ("model=prott5nv_tiny", "model.position_embedding_type=relative"),
    "t5-deep-decoder": ("model=prott5nv_tiny", "model.num_decoder_layers=8"),
    "t5-block": ("model=prott5nv_tiny", FULL, "trainer.activations_checkpoint_method=block"),
}


def spec_for(spec_of, *typed: str) -> RunSpec:
    lengths = (f"model.seq_length_dec={LENGTH}", f"model.seq_length={LENGTH}") if "model=prott5nv_tiny" in typed else ()
    return spec_of(*typed, *SIZES, *BATCH, *lengths)


def kept(network, batch) -> int:
    """The bytes that a forward pass allocates and that its loss keeps for the backward pass."""
    network(batch)
    with profile(profile_memory=True) as trace:
        loss = network(batch)
    assert loss.requires_grad
    return sum(event.self_cpu_memory_usage for event in trace.events())


def full_batch(pairs: bool):
    from bionemo_core.data.batches.batch import micro_batch_of
    from bionemo_core.data.batches.rows import RowShape, collate, collate_pairs

    draw = np.random.default_rng(0)
    shape = RowShape(LENGTH, ROWS, 0, packing=False, target_length=LENGTH)
    ids = [draw.integers(5, 24, LENGTH).astype(np.int32) for _ in range(ROWS)]
    if pairs:
        every = np.ones(LENGTH, dtype=bool)
        return micro_batch_of(collate_pairs([Seq2SeqExample(x, x, x, every) for x in ids], ROWS, shape))
    masks = [draw.random(LENGTH) < 0.15 for _ in ids]
    return micro_batch_of(collate([Example(x, x, mask) for x, mask in zip(ids, masks, strict=True)], ROWS, shape))


@pytest.mark.parametrize("name", RUNS)
def test_the_estimate_is_what_a_forward_pass_keeps(name: str, spec_of) -> None:
    from bionemo_core.parallel.recompute import recompute_layers

    spec = spec_for(spec_of, *RUNS[name])
    registry, context = load_registry(), BuildContext(seed=1)
    tokenizer = registry.build(spec.tokenizer, context=context)
    network = registry.build(spec.model, tokenizer=tokenizer, context=context).network.train()
    recompute = Recompute.of(spec.trainer)
    recompute_layers(network, recompute)
    rotary = getattr(network, "rotary", None) is not None
    plan, device = batch_plan(spec), Device("cpu", "32")
    parameters = sum(parameter.numel() for parameter in network.parameters())
    peak = estimate_peak(spec, plan, device, parameters, network.vocab_size, rotary=rotary)
    assert peak is not None
    expected = kept(network, full_batch(name.startswith("t5")))
    assert peak.kept == pytest.approx(expected, rel=0.2)


def test_a_recomputation_takes_less_and_half_precision_too(spec_of) -> None:
    def total(*typed: str, precision: str = "32") -> float:
        spec = spec_of("model=esm2_650m", "batch.micro_batch_size=16", *typed)
        return estimate_peak(spec, batch_plan(spec), Device("gpu", precision), 652_000_000, 33).total

    assert total(FULL, precision="bf16-mixed") < 0.6 * total(precision="bf16-mixed") < 0.6 * total()


def test_gradients_of_graphs_and_of_several_micro_batches_are_there_before_the_last_pass(spec_of) -> None:
    def state(*typed: str, graphs: bool = False) -> tuple[float, float]:
        spec = spec_of("model=esm2_650m", *typed)
        peak = estimate_peak(spec, batch_plan(spec), Device("gpu", "bf16-mixed"), 1000, 33, graphs=graphs)
        return peak.state, peak.after

    plain, one_more = state(), 4.0 * 1000
    accumulated = state("batch.accumulate_grad_batches=2")
    assert state(graphs=True) == accumulated == (plain[0] + one_more, plain[1])
    assert state("batch.accumulate_grad_batches=2", graphs=True) == accumulated


@pytest.mark.parametrize(("reduce_dtype", "whole"), [("float32", 4.0), ("bfloat16", 2.0)])
def test_ranks_that_share_weights_add_up_whole_gradients_if_these_have_room(spec_of, reduce_dtype, whole) -> None:
    spec = spec_of("model=esm2_3b", "batch.accumulate_grad_batches=2", f"parallel.reduce_dtype={reduce_dtype}")
    facts = spec, batch_plan(spec), Device("gpu", "bf16-mixed"), 1000, 33
    whole_kept, shares_kept = (estimate_peak(*facts, shards=4, whole_gradients=kept) for kept in (True, False))
    assert whole_kept.state == pytest.approx(1000 * (12 / 4 + 2 + whole))
    assert shares_kept.state == pytest.approx(1000 * (12 / 4 + 2 + 4 / 4))


def test_what_would_fit_is_said_and_fits(spec_of) -> None:
    spec = spec_of("model=esm2_3b", "batch.micro_batch_size=32")
    plan, device = batch_plan(spec), Device("gpu", "bf16-mixed")
    ways = ways_to_fit(spec, plan, device, 2_840_000_000, 33, 1, 80 * GIB)
    assert ways
    for way in ways:
        typed = way.partition(",")[0].split()
        changed = spec_of("model=esm2_3b", *(() if "batch.micro" in way else ("batch.micro_batch_size=32",)), *typed)
        changed_plan = replace(batch_plan(changed), global_batch_size=plan.global_batch_size)
        assert estimate_peak(changed, changed_plan, device, 2_840_000_000, 33).total <= 80 * GIB, way
    assert ways_to_fit(spec, plan, device, 2_840_000_000, 33, 1, 1 * GIB) == []


def test_an_early_stage_keeps_its_layers_of_several_micro_batches(spec_of) -> None:
    def kept_of(stages: int, micro_batches: int) -> float:
        layout = (f"trainer.devices={stages}", f"parallel.pipeline_model_parallel_size={stages}")
        spec = spec_for(spec_of, "model=esm2_8m", *layout, f"batch.accumulate_grad_batches={micro_batches}")
        peak = estimate_peak(spec, batch_plan(spec), Device("cpu", "32"), 10**6, 33)
        assert peak is not None
        return peak.kept

    # Four layers and the head, then one layer and the head, then one layer of four micro batches.
    whole, last, first = kept_of(1, 8), kept_of(4, 1), kept_of(4, 8)
    assert first == pytest.approx((whole - last) / 3 * 4)


class Built:
    """Settings of an optimizer of torch."""

    lr = 1e-3

    def __init__(self, kind: Any, **options: Any) -> None:
        self.kind, self.options = kind, options

    def build(self, named_parameters: Any) -> torch.optim.Optimizer:
        return self.kind([parameter for _, parameter in named_parameters], lr=1e-3, **self.options)


class Picky(Built):
    """An optimizer that a small matrix is not enough for."""

    def build(self, named_parameters: Any) -> torch.optim.Optimizer:
        raise KeyError("embedding.word_embeddings.weight")


@pytest.mark.parametrize(
    ("optim", "name", "words", "num_bytes"),
    [
        (AdamW(), "adamw", "weights, gradients and Adam", 8),
        (Built(torch.optim.SGD), "sgd", "weights and gradients", 0),
        (Built(torch.optim.SGD, momentum=0.9), "sgd", "weights, gradients and sgd", 4),
        (Built(torch.optim.Adafactor), "adafactor", "weights, gradients and adafactor", 2 * 64 * 4 / 64**2),
        (Picky(torch.optim.SGD), "picky", "weights, gradients and Adam", 8),
    ],
)
def test_the_memory_of_an_optimizer_is_what_it_keeps(spec_of, optim, name, words, num_bytes) -> None:
    before = torch.get_rng_state()
    kept = measure_state(optim, name)
    assert (kept.with_weights, kept.bytes_per_parameter) == (words, num_bytes)
    assert torch.equal(torch.get_rng_state(), before)
    spec = spec_of("model=esm2_3b")
    plan, device, parameters = batch_plan(spec), Device("cpu", "32"), 2_840_000_000
    adam, own = (
        estimate_peak(spec, plan, device, parameters, 33, optimizer=state)
        for state in (measure_state(AdamW(), ""), kept)
    )
    assert adam.after - own.after == pytest.approx((8 - num_bytes) * parameters)
    assert adam.state - own.state == pytest.approx((8 - num_bytes) * parameters)
    need = memory_estimate.device_needs(spec, plan, 4, kept)[0]
    assert need.what == words
    assert need.arithmetic.startswith(f"{8 + num_bytes:g} bytes x ")
