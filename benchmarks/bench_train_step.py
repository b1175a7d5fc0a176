"""One training step on CPU against Hugging Face's ESM-2 of the same size, both sides in one run.

Two cases, float32, AdamW, masked tokens drawn by our loader:

- full-length: 4 sequences of 512 tokens; rows that need no padding on either side;
- UniRef-like: lengths log-normal (mu 5.45, sigma 0.75, cut at 1,024; mean 301), 16 sequences a step. Hugging Face
  pads them to the longest, we pack them. Counted are real tokens.

Steps of the two sides alternate; medians are printed, and the ratio ours / theirs in tokens a second.

    python benchmarks/bench_train_step.py [--steps 7] [--threads 2]
"""

import argparse
import statistics
import time
from collections.abc import Callable
from importlib.metadata import version

import numpy as np
import torch
import transformers

from bionemo_core.data.batches.batch import TokenBatch
from bionemo_core.data.batches.loader import add_bos_eos
from bionemo_core.data.batches.rng import RecordRng
from bionemo_core.data.batches.rows import RowShape, collate
from bionemo_core.protocols import BuildContext, Example
from bionemo_esm import presets
from bionemo_esm.tokenizer import esm2_tokenizer

RESIDUES = "LAGVSERTIDPKQNFYMHWC"
SHAPE = {"num_layers": 6, "hidden_size": 320, "num_attention_heads": 20}
TOKENIZER = esm2_tokenizer()


def proteins(lengths: np.ndarray, seed: int) -> list[str]:
    """Random residues of these lengths in tokens, BOS and EOS included."""
    draw = np.random.default_rng(seed)
    return ["".join(draw.choice(list(RESIDUES), size=length - 2)) for length in lengths]


def uniref_like(count: int, seed: int) -> np.ndarray:
    """Lengths as UniRef50 has them, in tokens."""
    lengths = np.random.default_rng(seed).lognormal(5.45, 0.75, size=count)
    return np.clip(lengths, 10, 1024).astype(int)


def examples(sequences: list[str], objective, seq_length: int) -> list[Example]:
    """The masked examples that a loader would make."""
    return [
        objective.example(add_bos_eos(TOKENIZER, sequence, seq_length), RecordRng(0, 0, index, "benchmark"))
        for index, sequence in enumerate(sequences)
    ]


def laid(made: list[Example], packing: bool, seq_length: int = 1024) -> TokenBatch:
    """All examples in one packed row, or padded to the longest."""
    shape = RowShape(seq_length, len(made), TOKENIZER.pad_id, packing=packing)
    return TokenBatch.of(collate(made, len(made), shape))


def sides(sequences: list[str]) -> tuple[Callable[[], None], Callable[[], None], int]:
    """Our step, their step, and the real tokens of each."""
    torch.manual_seed(0)
    module = presets.esm2(**SHAPE, tokenizer=TOKENIZER, context=BuildContext())
    config = transformers.EsmConfig(
        vocab_size=33,
        mask_token_id=32,
        pad_token_id=1,
        hidden_size=SHAPE["hidden_size"],
        num_hidden_layers=SHAPE["num_layers"],
        num_attention_heads=SHAPE["num_attention_heads"],
        intermediate_size=4 * SHAPE["hidden_size"],
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        max_position_embeddings=1026,
        position_embedding_type="rotary",
        token_dropout=True,
        attn_implementation="sdpa",
    )
    theirs = transformers.EsmForMaskedLM(config).train()
    ours = module.network.train()
    made = examples(sequences, module.objective, 1024)
    packed, padded = laid(made, packing=True), laid(made, packing=False)
    labels = padded.labels.masked_fill(~padded.loss_mask, -100)
    attention_mask = padded.padding_mask.long()
    optimizers = [torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True) for model in (ours, theirs)]

    def our_step() -> None:
        optimizers[0].zero_grad()
        (ours(packed) / packed.num_loss_tokens).backward()
        optimizers[0].step()

    def their_step() -> None:
        optimizers[1].zero_grad()
        theirs(input_ids=padded.tokens, attention_mask=attention_mask, labels=labels).loss.backward()
        optimizers[1].step()

    return our_step, their_step, packed.num_tokens


def compare(name: str, sequences: list[str], steps: int) -> None:
    """Print both sides' medians and the ratio."""
    our_step, their_step, tokens = sides(sequences)
    times: dict[Callable[[], None], list[float]] = {our_step: [], their_step: []}
    for index in range(steps + 2):
        for step in (our_step, their_step):
            started = time.perf_counter()
            step()
            if index >= 2:
                times[step].append(time.perf_counter() - started)
    ours, theirs = (tokens / statistics.median(times[step]) for step in (our_step, their_step))
    pairwise = statistics.median(b / a for a, b in zip(times[our_step], times[their_step], strict=True))
    print(
        f"{name:>12}: bionemo-run {ours:,.0f}, transformers {theirs:,.0f} real tokens/s, "
        f"ratio {ours / theirs:.2f} (median of pairs {pairwise:.2f})",
        flush=True,
    )


def main() -> None:
    """Print both cases."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    print(
        f"torch {torch.__version__}, megatron-core {version('megatron-core')}, "
        f"transformers {transformers.__version__}; ESM-2 8M shape, float32, {arguments.threads} threads"
    )
    compare("full-length", proteins(np.full(4, 512), seed=1), arguments.steps)
    compare("UniRef-like", proteins(uniref_like(16, seed=2), seed=3), arguments.steps)


if __name__ == "__main__":
    main()
