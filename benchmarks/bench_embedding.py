"""Embedding against Hugging Face's ESM-2 of the same size, all sides in one run.

Lengths are log-normal as UniRef50 has them (mu 5.45, sigma 0.75, cut at 1,024; mean 301). Three sides, float32 on a
CPU, bfloat16 weights on a GPU:

- ours: `bionemo_core.inference.embedding`, packed; on a GPU layers are compiled, as `task=embed` has them;
- padded: Hugging Face, batches of 16 (on a GPU 32) in the order of the file, padded to the longest of each;
- sorted: Hugging Face, the same after sorting all sequences by length.

Every side takes text and gives the mean over residues, so that tokenising and pooling count too. The sides alternate;
medians are printed in real tokens a second.

    python benchmarks/bench_embedding.py [--sequences 64] [--rounds 3] [--threads 2] [--model 8m]
    python benchmarks/bench_embedding.py --device cuda --model 650m --sequences 1500 --rounds 2 [--sides ours]
"""

import argparse
import statistics
import time
from collections.abc import Callable
from importlib.metadata import version

import numpy as np
import torch
import transformers

from bionemo_core.inference.embedding import Embedder, EmbeddingSettings
from bionemo_core.parallel.compiled_layers import compile_layers
from bionemo_core.protocols import BuildContext
from bionemo_esm import presets
from bionemo_esm.tokenizer import esm2_tokenizer

RESIDUES = list("LAGVSERTIDPKQNFYMHWC")
SIDES = ("ours", "padded", "sorted")
SIZES = {"8m": (6, 320, 20), "35m": (12, 480, 20), "150m": (30, 640, 20), "650m": (33, 1280, 20)}


def proteins(count: int, seed: int = 2) -> list[str]:
    """Random residues with the lengths of UniRef50."""
    draw = np.random.default_rng(seed)
    lengths = np.clip(draw.lognormal(5.45, 0.75, size=count), 10, 1024).astype(int) - 2
    return ["".join(draw.choice(RESIDUES, size=length)) for length in lengths]


def hugging_face(layers: int, hidden: int, heads: int) -> torch.nn.Module:
    """Their encoder with random weights."""
    config = transformers.EsmConfig(
        vocab_size=33,
        mask_token_id=32,
        pad_token_id=1,
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=4 * hidden,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        max_position_embeddings=1026,
        position_embedding_type="rotary",
        token_dropout=True,
        attn_implementation="sdpa",
    )
    return transformers.EsmForMaskedLM(config).eval()


@torch.inference_mode()
def their_embeddings(model: torch.nn.Module, sequences: list[str], by_length: bool, rows: int) -> np.ndarray:
    """The mean over residues by their network, batches of `rows` padded to their longest."""
    tokenizer, device = esm2_tokenizer(), model.device
    order = sorted(range(len(sequences)), key=lambda i: len(sequences[i])) if by_length else range(len(sequences))
    order = list(order)
    result: list[np.ndarray | None] = [None] * len(sequences)
    for start in range(0, len(order), rows):
        chosen = order[start : start + rows]
        longest = max(len(sequences[i]) for i in chosen) + 2
        tokens = torch.full((len(chosen), longest), tokenizer.pad_id)
        residues = torch.zeros((len(chosen), longest))
        for row, i in enumerate(chosen):
            length = len(sequences[i])
            tokens[row, 0] = tokenizer.bos_id
            tokens[row, 1 : length + 1] = torch.from_numpy(tokenizer.encode(sequences[i]))
            tokens[row, length + 1] = tokenizer.eos_id
            residues[row, 1 : length + 1] = 1
        tokens, residues = tokens.to(device), residues.to(device)
        hidden = model.esm(tokens, attention_mask=(tokens != tokenizer.pad_id).long()).last_hidden_state
        means = ((hidden * residues[..., None]).sum(1) / residues.sum(1, keepdim=True)).float().cpu()
        for row, i in enumerate(chosen):
            result[i] = means[row].numpy()
    return np.stack(result)


def main() -> None:
    """Print the medians of the sides, and the two ratios of all three."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sequences", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--model", choices=sorted(SIZES), default="8m")
    parser.add_argument("--sides", default=",".join(SIDES), help="the sides to run; default: all, for the ratios")
    arguments = parser.parse_args()
    chosen = arguments.sides.split(",")
    if not set(chosen) <= set(SIDES):
        parser.error(f"--sides: choose some of {', '.join(SIDES)}")
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    on_gpu = arguments.device == "cuda"
    dtype, rows = (torch.bfloat16, 32) if on_gpu else (torch.float32, 16)
    layers, hidden, heads = SIZES[arguments.model]
    tokenizer = esm2_tokenizer()
    shape = {"num_layers": layers, "hidden_size": hidden, "num_attention_heads": heads}
    module = presets.esm2(**shape, tokenizer=tokenizer, context=BuildContext()).to(arguments.device, dtype).eval()
    settings = EmbeddingSettings()
    if on_gpu:
        settings = EmbeddingSettings(tokens_per_batch=65_536, static_shapes=True)
        compile_layers(module.network)
    embedder = Embedder(module, tokenizer, settings)
    theirs = hugging_face(layers, hidden, heads).to(arguments.device, dtype)
    sequences = proteins(arguments.sequences)
    tokens = sum(map(len, sequences)) + 2 * len(sequences)
    sides: dict[str, Callable[[], object]] = {
        "ours": lambda: embedder.run(sequences),
        "padded": lambda: their_embeddings(theirs, sequences, False, rows),
        "sorted": lambda: their_embeddings(theirs, sequences, True, rows),
    }
    sides = {name: sides[name] for name in chosen}
    times: dict[str, list[float]] = {name: [] for name in sides}
    for index in range(arguments.rounds + 1):
        for name, side in sides.items():
            started = time.perf_counter()
            side()
            if index:
                times[name].append(time.perf_counter() - started)
    rates = {name: tokens / statistics.median(seconds) for name, seconds in times.items()}
    print(
        f"torch {torch.__version__}, megatron-core {version('megatron-core')}, transformers "
        f"{transformers.__version__}; ESM-2 {arguments.model} shape, {dtype}, "
        f"{torch.cuda.get_device_name() if on_gpu else f'CPU, {arguments.threads} threads'}, "
        f"{len(sequences)} sequences, {tokens:,} real tokens"
    )
    print("real tokens/s: " + ", ".join(f"{name} {rate:,.0f}" for name, rate in rates.items()))
    if len(rates) == len(SIDES):
        print(
            f"ratios: ours / padded {rates['ours'] / rates['padded']:.2f}, "
            f"ours / sorted {rates['ours'] / rates['sorted']:.2f}"
        )


if __name__ == "__main__":
    main()
