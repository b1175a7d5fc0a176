"""What runs on a GPU alone, against float32 on the CPU: packed attention in 16 bit, and decoding in static shapes.

Each line names a case and its largest errors, relative to the largest value of the reference; bfloat16 has 8 bits of
mantissa, so that a few hundredths are its rounding. Exits with status 1 if any error is larger.

    python benchmarks/check_gpu_kernels.py
"""

import sys

import torch

from bionemo_core.data.batches.batch import Seq2SeqBatch, TokenBatch
from bionemo_core.inference.cuda_graphs import CudaGraphDecoder
from bionemo_core.nn.attention import AttnMaskType, SdpaCoreAttention, packed_params
from bionemo_core.nn.kernels.short_attention import short_attention
from bionemo_core.nn.layers import transformer_config
from bionemo_core.nn.relative import PackedBias
from bionemo_core.nn.seq2seq import Seq2SeqLM, Seq2SeqOptions, StackOptions
from bionemo_core.parallel.groups import start_groups

TOLERANCE = 0.05
HEADS, WIDTH, VOCAB = 8, 64, 523
QUERIES = (37, 1, 120, 64, 30, 0)
"""Query tokens of each segment; the last is one of no padding, as static shapes have them."""
KEYS = (51, 90, 3, 64, 0, 0)
"""Key tokens of the same segments in cross attention; the fifth finds nothing to see."""

worst = 0.0


def report(case: str, got: list[torch.Tensor], expected: list[torch.Tensor]) -> None:
    """Print the errors of a case, and remember the largest."""
    global worst
    errors = [
        float((g.detach().cpu().float() - e.detach()).abs().max() / e.detach().abs().max())
        for g, e in zip(got, expected, strict=True)
    ]
    worst = max(worst, *errors)
    print(f"{case:>60}: {', '.join(f'{error:.1e}' for error in errors)}", flush=True)


def bounds(lengths: tuple[int, ...], device: str) -> torch.Tensor:
    """The cumulative lengths."""
    return torch.tensor([0, *lengths], device=device).cumsum(0).to(torch.int32)


def attention(causal: bool, cross: bool, dropout: float, relative: bool, compiled: bool, times: int = 1) -> None:
    """One case of packed attention, forward and backward, of segments `times` as long."""
    torch.manual_seed(0)
    config = transformer_config(num_layers=1, hidden_size=HEADS * WIDTH, num_attention_heads=HEADS)
    queries = tuple(times * n for n in QUERIES)
    keys = tuple(times * n for n in KEYS) if cross else queries
    tensors = [torch.randn(sum(n), 1, HEADS, WIDTH) for n in (queries, keys, keys)]
    by_distance = torch.randn(HEADS, 2 * max(queries) - 1)
    weights = torch.randn(sum(queries), 1, HEADS * WIDTH)
    kind = AttnMaskType.causal if causal else AttnMaskType.padding
    results = []
    for device, dtype in (("cpu", torch.float32), ("cuda", torch.bfloat16)):
        # So little dropout that nothing is dropped, yet the kernels that can are taken.
        core = SdpaCoreAttention(config, 1, kind, "self", attention_dropout=dropout if device == "cuda" else 0.0)
        inputs = [x.bfloat16().to(device, dtype).requires_grad_() for x in (*tensors, by_distance)]
        qkv, table = inputs[:3], inputs[3]
        params = packed_params(bounds(queries, device), max(queries), bounds(keys, device), max(keys))
        bias = None
        if relative:
            segments = torch.repeat_interleave(torch.arange(len(queries)), torch.tensor(queries)).to(device)
            bias = PackedBias(table, causal, segments)
            bias.prepare()
        run = torch.compile(core, dynamic=False) if compiled and device == "cuda" else core
        out = run(*qkv, None, attention_bias=bias, packed_seq_params=params)
        wanted = inputs if relative else qkv
        results.append([out, *torch.autograd.grad((out * weights.to(out)).sum(), wanted)])
    words = [name for name, on in (("causal", causal), ("cross", cross), ("relative", relative)) if on]
    words += [f"dropout {dropout:g}", "compiled" if compiled else "eager", f"up to {max(*queries, *keys)} tokens"]
    report(f"attention, {' '.join(words)}", results[1], results[0])


def dropped(share: float = 0.3) -> None:
    """The share of probabilities that short attention drops, and whether the same seed drops the same."""
    lengths, places = (64,) * 512, 64 * 512
    query = torch.zeros(places, HEADS, WIDTH, dtype=torch.bfloat16, device="cuda")
    value, ends = torch.ones_like(query), bounds(lengths, "cuda")
    runs = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        options = {"causal": False, "dropout": share, "scale": None}
        runs.append(short_attention(query, query, value, ends, ends, 64, 64, **options))
    same, other = (bool((runs[0] == one).all()) for one in runs[1:])
    mean = runs[0].float().mean()
    deviation = runs[0][..., 0].float().std()  # of a mean of 64 draws that are 0 or 1 / (1 - share)
    expected = torch.tensor([1.0, (share / (1 - share) / 64) ** 0.5, 1.0, 0.0])
    got = torch.tensor([float(mean), float(deviation), float(same), float(other)])
    report(f"dropout {share}: mean, deviation, same and other seed", [got], [expected])


def rows(length: int, count: int) -> TokenBatch:
    """Sequences of random tokens in padded rows, each shorter than the one before."""
    lengths = [length - 2 * row for row in range(count)]
    real = torch.arange(length) < torch.tensor(lengths)[:, None]
    tokens = torch.randint(5, VOCAB, (count, length)) * real
    places = torch.arange(length).expand(count, length)
    segments = torch.arange(count)[:, None].expand(count, length)
    total = sum(lengths)
    return TokenBatch(
        tokens, tokens, real, places, real, segments, None, lengths, length, total, total, count, real.numel()
    )


@torch.no_grad()
def decoding(name: str, stack: StackOptions, **options: object) -> None:
    """Steps on the GPU, plain, recorded, and recorded with compiled layers, against the whole prefix on the CPU."""
    config = transformer_config(num_layers=3, hidden_size=256, num_attention_heads=4, init_method_std=0.1)
    torch.manual_seed(1)
    model = Seq2SeqLM(config, config, VOCAB, Seq2SeqOptions(64, 64, stack, **options), groups=start_groups()).eval()
    batch = Seq2SeqBatch(rows(40, 8), rows(24, 8))
    expected = model.decoder_logits(model.encode(batch.source), batch.target)[:, :8, :VOCAB]
    on_gpu = batch.to("cuda")
    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        moved = model.to("cuda", dtype)
        memory = moved.encode(on_gpu.source)
        for kind in ("eager", "recorded", "compiled")[: 1 if dtype == torch.float64 else 3]:
            if kind == "compiled":
                moved.compile_decoding()
            steps = moved if kind == "eager" else CudaGraphDecoder(moved, min_rows=1)
            state = steps.start(memory, 24)
            got = [steps.step(on_gpu.target.tokens[:, place], state).clone() for place in range(8)]
            report(f"decoding, {name}, {dtype}, {kind}", [torch.stack(got, dim=1)], [expected])
        model.to("cpu", torch.float32)
        torch.compiler.reset()


def main() -> int:
    """Run every case."""
    if not torch.cuda.is_available():
        raise SystemExit("This compares a GPU with a CPU, and torch finds no GPU here.")
    for compiled in (False, True):
        for dropout, times in ((0.0, 1), (1e-9, 1), (0.0, 3), (1e-9, 3)):
            attention(False, False, dropout, False, compiled, times)
            attention(True, False, dropout, False, compiled, times)
            attention(False, True, dropout, False, compiled, times)
        for causal in (False, True):
            attention(causal, False, 0.0, True, compiled)
    dropped()
    decoding("learned positions", StackOptions())
    decoding("relative positions", StackOptions(position_embedding_type="relative"))
    decoding("rotary positions", StackOptions(position_embedding_type="rope"))
    decoding("a perceiver", StackOptions(), encoder_arch="perceiver", hidden_steps=2)
    print(f"largest error {worst:.1e}, tolerance {TOLERANCE}")
    return int(worst > TOLERANCE)


if __name__ == "__main__":
    sys.exit(main())
