"""Passes in CUDA graphs give the numbers of eager ones. A stand-in replaces the graph, so that a CPU can run this; see
`benchmarks/check_gpu_passes.py` for real ones."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from bionemo_core.data.batches.batch import Seq2SeqBatch
from bionemo_core.data.batches.rows import RowShape, collate_pairs
from bionemo_core.nn.attention import SdpaCoreAttention
from bionemo_core.nn.cuda_graph_safe import cuda_graph_safe, is_cuda_graph_safe
from bionemo_core.nn.embedding import EmbeddingOptions
from bionemo_core.nn.encoder import EncoderLM
from bionemo_core.nn.layers import transformer_config
from bionemo_core.nn.seq2seq import Seq2SeqLM, Seq2SeqOptions, StackOptions
from bionemo_core.parallel.groups import start_groups
from bionemo_core.parallel.sharding import shard
from bionemo_core.parallel.sharding_choice import Sharding
from bionemo_core.protocols import Seq2SeqExample
from bionemo_core.training.cuda_graphs import (
    MAX_GRAPHS,
    MAX_SYNCING_PASSES,
    WARMUP_PASSES,
    CudaGraphPasses,
    _SyncDetector,
    make_pass_runner,
    may_be_captured,
)
from bionemo_core.training.losses import run_pass

VOCAB = 40


class FakeCapture:
    """Captures nothing: its graph calls the function again, with the gradients there were, and keeps no new tensor."""

    def __init__(self, network: nn.Module) -> None:
        self.parameters, self.num_captured = list(network.parameters()), 0

    def __call__(self, step: Callable[[], None]) -> "FakeGraph":
        before = [None if one.grad is None else (one.grad, one.grad.clone()) for one in self.parameters]
        with torch.random.fork_rng():
            step()
        for pair in filter(None, before):
            pair[0].copy_(pair[1])
        self.num_captured += 1
        return FakeGraph(self.parameters, step, [pair and pair[0] for pair in before])


class FakeGraph:
    def __init__(self, parameters: Sequence[nn.Parameter], step: Callable[[], None], before: Sequence) -> None:
        self.parameters, self.step, self.before = parameters, step, before
        self.after = [parameter.grad for parameter in parameters]
        self.values = self.done().values

    def done(self):
        (captured,) = [cell.cell_contents for cell in self.step.__closure__ if hasattr(cell.cell_contents, "_result")]
        return captured._result

    def replay(self) -> None:
        for parameter, gradient in zip(self.parameters, self.before, strict=True):
            parameter.grad = gradient
        self.step()
        assert all(one.grad is gradient for one, gradient in zip(self.parameters, self.after, strict=True))
        self.values.copy_(self.done().values)


def network(positions: str = "learned_absolute", **options: object) -> Seq2SeqLM:
    config = transformer_config(num_layers=1, hidden_size=32, num_attention_heads=4, hidden_dropout=0.1)
    torch.manual_seed(1)
    stack = StackOptions(position_embedding_type=positions)
    return Seq2SeqLM(config, config, VOCAB, Seq2SeqOptions(32, 32, stack, **options), groups=start_groups())


def in_16_bit(network: nn.Module) -> nn.Module:
    """The network with 16-bit copies of its weights, as it is trained."""
    shard(network, start_groups(), torch.bfloat16, torch.device("cpu"))
    return network


def batch(seed: int, count: int = 3) -> Seq2SeqBatch:
    draw, examples = np.random.default_rng(seed), []
    for length in draw.integers(3, 9, count):
        ids = draw.integers(5, VOCAB, length).astype(np.int32)
        examples.append(Seq2SeqExample(ids, ids, ids, np.ones(length, dtype=bool)))
    shape = RowShape(32, count, 0, static_shapes=True, target_length=32)
    return Seq2SeqBatch.of(collate_pairs(examples, count, shape))


def replaced(batch: Seq2SeqBatch, **values: object) -> Seq2SeqBatch:
    """The batch with other numbers on both sides."""
    return Seq2SeqBatch(replace(batch.source, **values), replace(batch.target, **values))


def step(run: CudaGraphPasses, micro_batch: Seq2SeqBatch) -> None:
    """Run the only pass of an optimizer step."""
    run.network.zero_grad(set_to_none=True)
    run(micro_batch, 1.0, 1.0)


def trained(network: nn.Module, run: Callable, steps: Sequence[Sequence[Seq2SeqBatch]]) -> list[torch.Tensor]:
    """Values and gradients of optimizer steps, each of some micro batches."""
    optimizer, seen = torch.optim.AdamW(network.parameters(), lr=1e-2, fused=True), []
    for number, micro_batches in enumerate(steps):
        optimizer.zero_grad(set_to_none=True)
        for index, micro_batch in enumerate(micro_batches):
            torch.manual_seed(100 * number + index)
            seen.append(run(micro_batch, 0.5 + number, 1.0).values.clone())
        seen += [parameter.grad.clone() for parameter in network.parameters() if parameter.grad is not None]
        optimizer.step()
    return seen


def test_numbers_are_those_of_eager_passes() -> None:
    ours, theirs = in_16_bit(network()), in_16_bit(network())
    capture = FakeCapture(ours)
    graphed = CudaGraphPasses(ours, start_groups(), capture=capture)
    draws = iter(range(100))
    steps = [[batch(next(draws), count) for count in counts] for counts in ((3,), (3, 3), (3, 1, 3), (3, 3), (1, 3, 3))]
    expected = trained(theirs, lambda *given: run_pass(theirs, *given), steps)
    got = trained(ours, graphed, steps)
    assert len(got) == len(expected)
    assert all(torch.equal(a, b) for a, b in zip(got, expected, strict=True))
    assert capture.num_captured == 2  # one that sets gradients and one that adds; the other shape came too rarely


def test_all_graphs_share_one_set_of_gradients() -> None:
    ours = in_16_bit(network())
    capture = FakeCapture(ours)
    graphed = CudaGraphPasses(ours, start_groups(), capture=capture)
    places = []
    for _ in range(WARMUP_PASSES + 2):
        for counts in ((3,), (4, 4), (3, 4)):
            ours.zero_grad(set_to_none=True)
            for count in counts:
                graphed(batch(count, count), 1.0, 1.0)
            places.append([one.grad.data_ptr() for one in ours.parameters() if one.grad is not None])
    assert capture.num_captured == 3  # the first pass of each shape, and a second pass of one of them
    assert places[-1] and places[-1] == places[-2] == places[-3]


def test_only_16_bit_passes_are_captured() -> None:
    made = network()
    assert not may_be_captured(made)
    assert may_be_captured(in_16_bit(made))


def test_recurring_shapes_are_captured_up_to_a_limit() -> None:
    ours = in_16_bit(network())
    capture = FakeCapture(ours)
    graphed = CudaGraphPasses(ours, start_groups(), capture=capture)
    for number in range(WARMUP_PASSES + 2):
        step(graphed, batch(number))
        assert capture.num_captured == max(0, min(1, number + 1 - WARMUP_PASSES))
    for count in range(4, 4 + MAX_GRAPHS):
        for _ in range(WARMUP_PASSES + 1):
            step(graphed, batch(0, count))
    assert capture.num_captured == MAX_GRAPHS


def test_a_bound_of_lengths_is_part_of_the_shape() -> None:
    ours = in_16_bit(network())
    capture = FakeCapture(ours)
    graphed = CudaGraphPasses(ours, start_groups(), capture=capture)
    for number in range(WARMUP_PASSES + 1):
        for packed in (batch(number, 4), replaced(batch(number, 4), max_seqlen=16)):
            step(graphed, packed)
    assert capture.num_captured == 2


def test_passes_that_synchronise_are_not_captured() -> None:
    class Waits:
        looks, always = 0, ()

        def __enter__(self):
            Waits.looks += 1
            self.any = Waits.looks in Waits.always
            return self

        def __exit__(self, *_):
            pass

    for always, looks, found in (((), 1, 1), ((1,), 2, 1), (range(100), MAX_SYNCING_PASSES, 0)):
        Waits.looks, Waits.always = 0, always
        ours = in_16_bit(network())
        capture = FakeCapture(ours)
        graphed = CudaGraphPasses(ours, start_groups(), capture=capture)
        graphed._make_detector = Waits
        for number in range(WARMUP_PASSES + 6):
            step(graphed, batch(number))
        assert (Waits.looks, capture.num_captured) == (looks, found)


def test_synchronising_is_detected_by_torchs_own_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    modes = []
    monkeypatch.setattr(torch.cuda, "get_sync_debug_mode", lambda: 0)
    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", modes.append)
    with _SyncDetector() as waits:
        pass
    assert not waits.any
    with pytest.warns(UserWarning, match="of something else"), _SyncDetector() as waits:
        warnings.warn("called a synchronizing CUDA operation (Triggered internally at Stream.cpp)", stacklevel=1)
        warnings.warn("of something else", stacklevel=1)
    assert waits.any
    assert modes == ["warn", 0] * 2


def test_padded_batches_are_not_captured() -> None:
    ours = in_16_bit(network())
    capture = FakeCapture(ours)
    graphed = CudaGraphPasses(ours, start_groups(), capture=capture)
    ids = np.arange(5, 12, dtype=np.int32)
    shape = RowShape(32, 2, 0, packing=False, static_shapes=True, target_length=32)
    padded = Seq2SeqBatch.of(collate_pairs([Seq2SeqExample(ids, ids, ids, np.ones(7, dtype=bool))] * 2, 2, shape))
    for _ in range(WARMUP_PASSES + 2):
        step(graphed, padded)
    assert capture.num_captured == 0


def test_an_overridden_forward_is_not_marked_safe() -> None:
    class Own(Seq2SeqLM):
        def forward(self, batch):
            return super().forward(batch)

    class Promised(Own):
        @cuda_graph_safe
        def forward(self, batch):
            return super().forward(batch)

    made = network()

    class OwnEncoding(Seq2SeqLM):
        def encode(self, source):
            return super().encode(source)

    assert is_cuda_graph_safe(made)
    assert not is_cuda_graph_safe(network("relative"))
    for kind, promised in ((Own, False), (Promised, True), (OwnEncoding, False)):
        own = network()
        own.__class__ = kind
        assert is_cuda_graph_safe(own) is promised


def test_hooks_are_called() -> None:
    for hook in ("register_forward_hook", "register_forward_pre_hook", "register_full_backward_hook"):
        made = network()
        getattr(made.layers[0], hook)(lambda *_: None)
        assert not is_cuda_graph_safe(made)
    assert is_cuda_graph_safe(in_16_bit(network()))  # 16-bit copies are gathered by a hook that is captured


@pytest.mark.parametrize("positions", ["learned_absolute", "rope"])
def test_numbers_of_a_packed_batch_play_no_part(positions: str) -> None:
    made, packed = network(positions).eval(), batch(0)
    numbers = {"num_tokens": 1, "num_loss_tokens": 2, "num_sequences": 1, "budget": 3, "lengths": [1]}
    assert torch.equal(made(packed), made(replaced(packed, **numbers)))


def encoder(dropout: float = 0.0) -> EncoderLM:
    config = transformer_config(num_layers=1, hidden_size=16, num_attention_heads=2, hidden_dropout=dropout)
    return EncoderLM(config, VOCAB, EmbeddingOptions(None), rotary=True, groups=start_groups())


def test_sharded_weights_are_not_captured() -> None:
    whole, sharded = in_16_bit(encoder()), encoder()
    shard(sharded, start_groups(), torch.bfloat16, torch.device("cpu"), Sharding("full", 1))
    assert may_be_captured(whole)
    assert not may_be_captured(sharded)


@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_dropout_from_a_stream_of_its_rank_is_not_captured(dropout: float) -> None:
    split_heads, split_tokens = in_16_bit(encoder(dropout)), in_16_bit(encoder(dropout))
    assert may_be_captured(split_heads)
    split_heads.layers[0].self_attention.core_attention = SdpaCoreAttention(
        split_heads.config, 1, None, "self", attention_dropout=dropout, pg_collection=TwoRanks()
    )
    split_tokens.split_sequences()
    assert may_be_captured(split_heads) is may_be_captured(split_tokens) is (dropout == 0)


class TwoRanks:
    """A collection of groups whose tensor-parallel group has two ranks."""

    class tp:  # noqa: N801
        @staticmethod
        def size() -> int:
            return 2


def test_a_cpu_captures_nothing() -> None:
    made = network()
    assert not isinstance(make_pass_runner(made, start_groups(), use_graphs=True), CudaGraphPasses)


def test_a_failed_capture_names_the_setting() -> None:
    from bionemo_core.errors import ConfigError

    def refuse(step: Callable[[], None]) -> None:
        try:
            raise RuntimeError("operation not permitted when stream is capturing\nmore")
        except RuntimeError:  # ending a failed capture raises another error, which hides the first
            raise RuntimeError("operation failed due to a previous error during capture")  # noqa: B904

    graphed = CudaGraphPasses(in_16_bit(network()), start_groups(), capture=refuse)
    for number in range(WARMUP_PASSES):
        step(graphed, batch(number))
    with pytest.raises(ConfigError, match=r"not permitted when stream is capturing\. Set trainer.cuda_graphs=false"):
        step(graphed, batch(9))
