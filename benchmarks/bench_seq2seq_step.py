"""One training step on CPU against Hugging Face encoder-decoders of the same size, both sides in one run.

Float32, AdamW, dropout off, real tokens of both sides counted:

- molecules: MegaMolBART's small shape (6+6 layers, 512 hidden, 8 heads, 523 pieces) against BART; sources and targets
  of about 40 tokens with a deviation of 8, 32 molecules a step;
- proteins: 4+4 layers of 256 hidden in T5's form (relative positions, RMSNorm, no biases) against T5; source lengths
  as UniRef50 has them (log-normal, mu 5.45, sigma 0.75, cut at 512), spans of 15 % asked for, 8 proteins a step.

Hugging Face pads to the longest, we pack. Steps of the two sides alternate; medians are printed, and the ratio ours /
theirs in tokens a second.

    python benchmarks/bench_seq2seq_step.py [--steps 7] [--threads 2] [--small]
"""

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version

import numpy as np
import torch
import transformers

from bionemo_core.data.batches.batch import Seq2SeqBatch
from bionemo_core.data.batches.rows import RowShape, collate_pairs
from bionemo_core.nn.layers import transformer_config
from bionemo_core.nn.seq2seq import Seq2SeqLM, Seq2SeqOptions, StackOptions
from bionemo_core.parallel.groups import start_groups
from bionemo_core.protocols import Seq2SeqExample

PAD = 0


def examples(lengths: Sequence[tuple[int, int]], vocab_size: int) -> list[Seq2SeqExample]:
    """Random tokens of these lengths of source and target."""
    draw = np.random.default_rng(1)

    def ids(length: int) -> np.ndarray:
        return draw.integers(5, vocab_size, length).astype(np.int32)

    return [Seq2SeqExample(ids(s), ids(t), ids(t), np.ones(t, dtype=bool)) for s, t in lengths]


def laid(made: list[Seq2SeqExample], *, packed: bool) -> Seq2SeqBatch:
    """All examples in one packed row, or padded to the longest."""
    longest = max(max(len(one.source), len(one.labels)) for one in made)
    shape = RowShape(longest, len(made), PAD, packed, target_length=longest)
    return Seq2SeqBatch.of(collate_pairs(made, len(made), shape))


def molecules(small: bool) -> tuple[Seq2SeqLM, torch.nn.Module, list[Seq2SeqExample]]:
    """Our network, theirs, and the examples."""
    layers, hidden, count = (2, 64, 8) if small else (6, 512, 32)
    config = transformer_config(num_layers=layers, hidden_size=hidden, num_attention_heads=8, activation="gelu_tanh")
    options = Seq2SeqOptions(512, 512, share_decoder_tokens_head_embeddings=False, tokens_head_bias=False)
    ours = Seq2SeqLM(config, config, 523, options, groups=start_groups())
    theirs = transformers.BartForConditionalGeneration(
        transformers.BartConfig(
            vocab_size=523,
            d_model=hidden,
            encoder_layers=layers,
            decoder_layers=layers,
            encoder_attention_heads=8,
            decoder_attention_heads=8,
            encoder_ffn_dim=4 * hidden,
            decoder_ffn_dim=4 * hidden,
            max_position_embeddings=512,
            dropout=0.0,
            pad_token_id=PAD,
            attn_implementation="sdpa",
        )
    )
    lengths = np.clip(np.random.default_rng(2).normal(40, 8, count), 10, 90).astype(int)
    return ours, theirs, examples([(length, length + 1) for length in lengths], 523)


def proteins(small: bool) -> tuple[Seq2SeqLM, torch.nn.Module, list[Seq2SeqExample]]:
    """Our network, theirs, and the examples."""
    layers, hidden, count = (2, 64, 4) if small else (4, 256, 8)
    config = transformer_config(
        num_layers=layers,
        hidden_size=hidden,
        num_attention_heads=4,
        activation="relu",
        normalization="rmsnorm",
        bias=False,
        softmax_scale=1.0,
        layernorm_epsilon=1e-6,
    )
    stack = StackOptions(position_embedding_type="relative")
    options = Seq2SeqOptions(512, 256, stack, tokens_head_bias=False, scale_tied_head=True)
    ours = Seq2SeqLM(config, config, 126, options, groups=start_groups())
    theirs = transformers.T5ForConditionalGeneration(
        transformers.T5Config(
            vocab_size=126,
            d_model=hidden,
            d_kv=hidden // 4,
            d_ff=4 * hidden,
            num_layers=layers,
            num_heads=4,
            dropout_rate=0.0,
            pad_token_id=PAD,
            decoder_start_token_id=PAD,
            attn_implementation="sdpa",
        )
    )
    lengths = np.clip(np.random.default_rng(2).lognormal(5.45, 0.75, count), 20, 510).astype(int)
    return ours, theirs, examples([(length, 1 + 2 * round(length * 0.15)) for length in lengths], 126)


def compare(name: str, ours: Seq2SeqLM, theirs: torch.nn.Module, made: list[Seq2SeqExample], steps: int) -> None:
    """Print both sides' medians and the ratio."""
    packed, padded = laid(made, packed=True), laid(made, packed=False)
    inputs = {
        "input_ids": padded.source.tokens,
        "attention_mask": padded.source.padding_mask.long(),
        "decoder_input_ids": padded.target.tokens,
        "labels": padded.target.labels.masked_fill(~padded.target.loss_mask, -100),
    }
    optimizers = [torch.optim.AdamW(model.train().parameters(), lr=1e-4, fused=True) for model in (ours, theirs)]

    def our_step() -> None:
        optimizers[0].zero_grad()
        (ours(packed) / packed.num_loss_tokens).backward()
        optimizers[0].step()

    def their_step() -> None:
        optimizers[1].zero_grad()
        theirs(**inputs).loss.backward()
        optimizers[1].step()

    times: dict[Callable[[], None], list[float]] = {our_step: [], their_step: []}
    for index in range(steps + 2):
        for step in (our_step, their_step):
            started = time.perf_counter()
            step()
            if index >= 2:
                times[step].append(time.perf_counter() - started)
    medians = [statistics.median(times[step]) for step in (our_step, their_step)]
    pairwise = statistics.median(b / a for a, b in zip(times[our_step], times[their_step], strict=True))
    parameters = [sum(p.numel() for p in model.parameters()) / 1e6 for model in (ours, theirs)]
    print(
        f"{name:>9}: {len(made)} sequences a step, {parameters[0]:.1f}M against {parameters[1]:.1f}M parameters: "
        f"bionemo-run {packed.num_tokens / medians[0]:,.0f}, transformers {packed.num_tokens / medians[1]:,.0f} real "
        f"tokens/s ({len(made) / medians[0]:,.1f} and {len(made) / medians[1]:,.1f} sequences/s), "
        f"ratio {medians[1] / medians[0]:.2f} (median of pairs {pairwise:.2f})",
        flush=True,
    )


def main() -> None:
    """Print both cases."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--small", action="store_true", help="tiny networks, to see that it runs")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    print(
        f"torch {torch.__version__}, megatron-core {version('megatron-core')}, "
        f"transformers {transformers.__version__}; float32, {arguments.threads} threads"
    )
    for name, case in {"molecules": molecules, "proteins": proteins}.items():
        torch.manual_seed(0)
        compare(name, *case(arguments.small), arguments.steps)


if __name__ == "__main__":
    main()
