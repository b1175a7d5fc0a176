"""Recomputed activations: the same losses and gradients, in less memory."""

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.profiler import profile

from bionemo_core.config.recompute_options import Recompute
from bionemo_core.config.schema import Trainer
from bionemo_core.data.batches.batch import Seq2SeqBatch, micro_batch_of
from bionemo_core.data.batches.rows import RowShape, collate, collate_pairs
from bionemo_core.errors import ConfigError
from bionemo_core.nn.embedding import EmbeddingOptions
from bionemo_core.nn.encoder import EncoderLM
from bionemo_core.nn.layers import transformer_config
from bionemo_core.nn.seq2seq import Seq2SeqLM, Seq2SeqOptions, StackOptions
from bionemo_core.parallel import dropout, recompute
from bionemo_core.parallel.compiled_layers import compile_layers
from bionemo_core.parallel.groups import start_groups
from bionemo_core.parallel.half_weights import HalfWeights
from bionemo_core.parallel.recompute import is_recomputed, recompute_layers
from bionemo_core.parallel.strategy import MegatronStrategy
from bionemo_core.protocols import Example, Seq2SeqExample

VOCAB, LENGTHS, LAYERS = 30, (23, 9, 17, 15), 3
FULL, SELECTIVE, FIRST_TWO = Recompute("full"), Recompute("selective"), Recompute("full", "block", 2)


def sizes(**changes: Any) -> Any:
    known = {"num_layers": LAYERS, "hidden_size": 32, "num_attention_heads": 4}
    return transformer_config(**known, hidden_dropout=0.1, attention_dropout=0.1, **changes)


def encoder() -> nn.Module:
    embedding = EmbeddingOptions(None, token_dropout_mask_id=4, dropout=0.1)
    return EncoderLM(sizes(), VOCAB, embedding, rotary=True, groups=start_groups())


def seq2seq(config: Any, positions: str = "learned_absolute", arch: str = "transformer") -> nn.Module:
    stack = StackOptions("pre_ln", positions, relative_attention_num_buckets=8, relative_attention_max_distance=10)
    options = Seq2SeqOptions(64, 64, stack, encoder_arch=arch, hidden_steps=3)
    return Seq2SeqLM(config, config, VOCAB, options, groups=start_groups())


FAMILIES: dict[str, Callable[[], nn.Module]] = {
    "esm": encoder,
    "t5": lambda: seq2seq(sizes(activation="geglu", normalization="rmsnorm", bias=False), "relative"),
    "bart": lambda: seq2seq(sizes()),
    "perceiver": lambda: seq2seq(sizes(), arch="perceiver"),
}


def make(family: str) -> nn.Module:
    torch.manual_seed(3)
    return FAMILIES[family]().train()


def batch_for(network: nn.Module, *, packed: bool, lengths: tuple[int, ...] = LENGTHS) -> Any:
    draw = np.random.default_rng(5)
    rows = 1 if packed else len(lengths)
    shape = RowShape(sum(lengths) if packed else max(lengths), rows, 0, packing=packed, target_length=sum(lengths))
    ids = [draw.integers(5, VOCAB, length).astype(np.int32) for length in lengths]
    mask = [draw.random(length) < 0.7 for length in lengths]
    if isinstance(network, EncoderLM):
        return micro_batch_of(collate([Example(*one) for one in zip(ids, ids, mask, strict=True)], rows, shape))
    pairs = [Seq2SeqExample(x, x, x, loss) for x, loss in zip(ids, mask, strict=True)]
    return Seq2SeqBatch.of(collate_pairs(pairs, rows, shape))


def gradients(network: nn.Module, batch: Any, backward_seed: int = 0) -> dict[str, torch.Tensor]:
    """The loss and the gradients of a pass; other random numbers are drawn before the backward pass."""
    network.zero_grad()
    dropout.seed_micro_batch(7, 0, 0, 0)
    loss = network(batch)
    torch.manual_seed(backward_seed)
    loss.backward()
    return {"loss": loss.detach()} | {name: p.grad.clone() for name, p in network.named_parameters()}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("options", [FULL, SELECTIVE, FIRST_TWO], ids=["full", "selective", "block"])
@pytest.mark.parametrize("packed", [True, False], ids=["packed", "padded"])
def test_losses_and_gradients_are_the_same_bit_for_bit(family: str, options: Recompute, packed: bool) -> None:
    network = make(family)
    batch = batch_for(network, packed=packed)
    expected = gradients(network, batch)
    recompute_layers(network, options)
    got = gradients(network, batch, backward_seed=99)
    assert [name for name in expected if not torch.equal(got[name], expected[name])] == []


def test_this_comparison_notices_other_dropout(monkeypatch: pytest.MonkeyPatch) -> None:
    from torch.utils.checkpoint import checkpoint

    network = make("esm")
    expected = gradients(network, batch_for(network, packed=True))
    monkeypatch.setattr(
        "bionemo_core.parallel.recompute.checkpoint",
        lambda *args, **options: checkpoint(*args, preserve_rng_state=False, **options),
    )
    recompute_layers(network, FULL)
    got = gradients(network, batch_for(network, packed=True), backward_seed=99)
    assert torch.equal(got["loss"], expected["loss"])
    assert any(not torch.equal(got[name], expected[name]) for name in expected)


def test_a_tensor_parallel_rank_draws_the_same_again() -> None:
    network = make("esm")
    for layer in network.layers:
        layer.self_attention.core_attention.split_over_ranks = True
    batch = batch_for(network, packed=True)
    expected = gradients(network, batch)
    for options in (FULL, SELECTIVE):
        recompute_layers(network, options)
        got = gradients(network, batch)
        assert [name for name in expected if not torch.equal(got[name], expected[name])] == []


def test_16_bit_weights_are_there_when_a_layer_is_recomputed() -> None:
    network = make("esm")
    HalfWeights(network, torch.bfloat16)
    batch = batch_for(network, packed=True)
    expected = gradients(network, batch)
    recompute_layers(network, FULL)
    got = gradients(network, batch)
    assert [name for name in expected if not torch.equal(got[name], expected[name])] == []


def bytes_kept(network: nn.Module, batch: Any) -> int:
    """The bytes that a forward pass allocates and that its loss keeps for the backward pass."""
    network(batch)  # tables that are made once
    with profile(profile_memory=True) as trace:
        loss = network(batch)
    kept = sum(event.self_cpu_memory_usage for event in trace.events())
    assert loss.requires_grad
    return kept


@pytest.mark.parametrize("family", ["esm", "t5"])
def test_less_is_kept(family: str) -> None:
    network = make(family)
    batch = batch_for(network, packed=False, lengths=(64,) * 8)
    kept = {"none": bytes_kept(network, batch)}
    for options in (SELECTIVE, FIRST_TWO, FULL):
        changed = make(family)
        recompute_layers(changed, options)
        kept[options.method or options.granularity] = bytes_kept(changed, batch)
    assert kept["full"] < kept["block"] < kept["none"]
    assert kept["selective"] < 0.9 * kept["none"]
    assert kept["full"] < 0.25 * kept["none"]


def test_block_counts_the_layers_of_each_stack() -> None:
    network = make("bart")
    recompute_layers(network, FIRST_TWO)
    chosen = [is_recomputed(layer) for layer in network.layers]
    assert chosen == [True, True, False] * 2


@pytest.mark.filterwarnings("ignore:The .grad attribute:UserWarning")
def test_compiled_layers_are_recomputed_with_the_same_dropout(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[Any] = []

    def compile_without_inductor(function: Any, **options: Any) -> Any:
        compiled.append(getattr(function, "__func__", function))
        return real_compile(function, backend="aot_eager", **options)

    real_compile = torch.compile
    monkeypatch.setattr(torch, "compile", compile_without_inductor)
    torch._dynamo.reset()
    recompute._compiled.cache_clear()
    plain, network = make("esm"), make("esm")
    compile_layers(plain)
    batch = batch_for(plain, packed=False)
    expected = gradients(plain, batch)
    recompute_layers(network, FIRST_TWO, compiled=True)
    compile_layers(network)
    assert [layer._compiled_call_impl is not None for layer in network.layers] == [False, False, True]
    got = gradients(network, batch, backward_seed=99)
    recompute._compiled.cache_clear()
    assert compiled[-1] is type(network.layers[0]).forward, "the whole layer is compiled, inside of its checkpoint"
    assert [name for name in expected if not torch.equal(got[name], expected[name])] == []


def test_a_deep_copy_recomputes_its_own_layers() -> None:
    network = nn.Module()
    network.layers = nn.ModuleList([nn.Linear(2, 2)])
    recompute_layers(network, FULL)
    copied = copy.deepcopy(network)
    assert copied.layers[0].forward.__self__ is copied.layers[0]


def test_evaluation_does_not_go_through_a_checkpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    network = make("esm").eval()
    recompute_layers(network, FULL)
    monkeypatch.setattr("bionemo_core.parallel.recompute.checkpoint", None)
    with torch.no_grad():
        network(batch_for(network, packed=True))


def test_a_network_without_layers_is_refused() -> None:
    with pytest.raises(ConfigError, match="Linear has no `layers`"):
        recompute_layers(nn.Linear(2, 2), FULL)


def test_cuda_graphs_are_off() -> None:
    graphs = {"dtype": torch.bfloat16, "compile_layers": True, "use_cuda_graphs": True}
    assert MegatronStrategy(**graphs).uses_cuda_graphs
    assert not MegatronStrategy(**graphs, recompute=SELECTIVE).uses_cuda_graphs


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"granularity": "all"}, "choose one of none, selective, full"),
        ({"granularity": "full", "method": "most"}, "choose one of uniform, block"),
        ({"method": "block"}, "granularity=none recomputes none"),
        ({"granularity": "full", "num_layers": 4}, "only .*_method=block counts layers"),
    ],
)
def test_contradictions_are_refused(changes: dict[str, Any], words: str) -> None:
    trainer = replace(Trainer(), **{f"activations_checkpoint_{key}": value for key, value in changes.items()})
    with pytest.raises(ConfigError, match=words):
        Recompute.of(trainer)
