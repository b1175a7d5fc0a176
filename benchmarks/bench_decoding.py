"""Greedy decoding with a key-value cache against Hugging Face's `generate` for a model of the same size, in one run.

Both sides have random weights: an encoder-decoder of 6 + 6 layers, 512 hidden, 8 heads, vocabulary 523 (MegaMolBART's
shape), sources of 40 tokens, 48 tokens decoded for every row: the end token is never taken, so that neither side can
stop early. Counted are molecules a second, encoding included. Runs of the two sides alternate; medians are printed.

On a GPU both compute in bfloat16; a third side replays our steps as CUDA graphs, a fourth replays them with compiled
layers. The time to record and to compile is printed apart.

    python benchmarks/bench_decoding.py [--rows 64] [--runs 3] [--threads 2]
    python benchmarks/bench_decoding.py --device cuda --rows 4096 --runs 5 [--latents 1]
"""

import argparse
import statistics
import time
from collections.abc import Callable
from importlib.metadata import version

import torch
import transformers

from bionemo_core.data.batches.batch import TokenBatch
from bionemo_core.inference.cuda_graphs import CudaGraphDecoder
from bionemo_core.inference.decoding import greedy
from bionemo_core.inference.sampling import source_batch
from bionemo_core.nn.layers import transformer_config
from bionemo_core.nn.seq2seq import Seq2SeqLM, Seq2SeqOptions
from bionemo_core.parallel.groups import start_groups

LAYERS, HIDDEN, HEADS, VOCABULARY, POSITIONS = 6, 512, 8, 523, 128
SOURCE, STEPS = 40, 48


class NoEnd:
    """Special tokens of which the end is never decoded."""

    pad_id, bos_id, eos_id = 0, 2, -1


def our_network(latents: int) -> Seq2SeqLM:
    """The core's network of that shape; with `latents` a perceiver encodes, as MolMIM's does."""
    config = transformer_config(num_layers=LAYERS, hidden_size=HIDDEN, num_attention_heads=HEADS)
    options = Seq2SeqOptions(
        max_source_positions=POSITIONS,
        max_target_positions=POSITIONS,
        encoder_arch="perceiver" if latents else "transformer",
        hidden_steps=latents or 1,
        share_decoder_tokens_head_embeddings=False,
    )
    torch.manual_seed(0)
    return Seq2SeqLM(config, config, VOCABULARY, options, groups=start_groups()).eval()


def their_network() -> transformers.BartForConditionalGeneration:
    """Hugging Face's BART of that shape."""
    config = transformers.BartConfig(
        vocab_size=VOCABULARY,
        d_model=HIDDEN,
        encoder_layers=LAYERS,
        decoder_layers=LAYERS,
        encoder_attention_heads=HEADS,
        decoder_attention_heads=HEADS,
        encoder_ffn_dim=4 * HIDDEN,
        decoder_ffn_dim=4 * HIDDEN,
        max_position_embeddings=POSITIONS,
        pad_token_id=0,
        bos_token_id=2,
        eos_token_id=None,
        decoder_start_token_id=2,
        forced_eos_token_id=None,
        attn_implementation="sdpa",
    )
    torch.manual_seed(0)
    return transformers.BartForConditionalGeneration(config).eval()


def timed(run: Callable[[], torch.Tensor], device: torch.device) -> float:
    """Seconds of one run."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    started = time.perf_counter()
    shape = run().shape
    if device.type == "cuda":
        torch.cuda.synchronize()
    assert shape[1] >= STEPS, shape
    return time.perf_counter() - started


@torch.no_grad()
def main() -> None:
    """Print both sides."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--latents", type=int, default=0)
    parser.add_argument("--profile", action="store_true", help="on a GPU: the kernels that take longest, compiled")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    device = torch.device(arguments.device)
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    ours, theirs = (network.to(device, dtype) for network in (our_network(arguments.latents), their_network()))
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(5, VOCABULARY, (arguments.rows, SOURCE), generator=generator)
    source: TokenBatch = source_batch(list(ids.int().numpy()), 0, SOURCE).to(device)
    tokens = ids.to(device)
    recorded = CudaGraphDecoder(ours, min_rows=1)
    sides: dict[str, Callable[[], torch.Tensor]] = {
        "bionemo-run": lambda: greedy(ours, ours.encode(source), NoEnd, max_length=STEPS),
        "transformers": lambda: theirs.generate(
            tokens,
            attention_mask=torch.ones_like(tokens),
            max_new_tokens=STEPS,
            min_new_tokens=STEPS,
            num_beams=1,
            do_sample=False,
            use_cache=True,
        ),
    }
    if device.type == "cuda":
        compiled = our_network(arguments.latents).to(device, dtype)
        compiled.load_state_dict(ours.state_dict())
        compiled.compile_decoding()
        both = CudaGraphDecoder(compiled, min_rows=1)
        sides["bionemo-run, recorded"] = lambda: greedy(recorded, ours.encode(source), NoEnd, max_length=STEPS)
        sides["bionemo-run, compiled"] = lambda: greedy(both, ours.encode(source), NoEnd, max_length=STEPS)
    name = torch.cuda.get_device_name() if device.type == "cuda" else f"CPU, {arguments.threads} threads"
    print(
        f"torch {torch.__version__}, megatron-core {version('megatron-core')}, transformers "
        f"{transformers.__version__}; {name}, {dtype}, {arguments.rows} rows of {SOURCE} tokens, {STEPS} steps, "
        f"{'perceiver' if arguments.latents else 'transformer'} encoder"
    )
    for side, run in sides.items():
        print(f"{side:>22}: first run {timed(run, device):.3f} s")
    times: dict[str, list[float]] = {side: [] for side in sides}
    for _ in range(arguments.runs):
        for side, run in sides.items():
            times[side].append(timed(run, device))
    rates = {side: arguments.rows / statistics.median(taken) for side, taken in times.items()}
    for side, rate in rates.items():
        print(f"{side:>22}: {rate:,.0f} molecules/s, {rate / rates['transformers']:.2f} of transformers", flush=True)
    if arguments.profile:
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as seen:
            sides["bionemo-run, compiled"]()
            torch.cuda.synchronize()
        print(seen.key_averages().table(sort_by="cuda_time_total", row_limit=22, max_name_column_width=90))


if __name__ == "__main__":
    main()
