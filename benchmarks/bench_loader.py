"""Tokens per second that one loader process feeds, masked and packed, beside a naive padded loader.

    python benchmarks/bench_loader.py [FASTA]

Both sides see the same sequences and are interleaved; medians of the rounds. The naive side is what a first training
script does: encode letter by letter through a dictionary, mask with torch, pad to the longest of the batch.
"""

import argparse
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

from bionemo_core.data.loader import train_loader
from bionemo_core.data.masking import MaskedLanguageObjective
from bionemo_core.data.prepare import Rules, prepare
from bionemo_core.data.readers import FastaSource
from bionemo_core.data.store import PreparedStore
from bionemo_core.data.tokenizer import CharacterTokenizer
from bionemo_core.protocols import BuildContext

SAMPLE = Path(__file__).parents[1] / "bionemo_core/data/sample/uniprot_sample_512.fasta"
PIECES = ["<unk>", "<s>", "</s>", "<pad>", "<mask>", *"LASGVERTDIPKNFQYHMCWXBZUO"]
SEQ_LENGTH, MICRO_BATCH, STEPS, ROUNDS = 1024, 8, 150, 5


def ours(store: PreparedStore, tokenizer: CharacterTokenizer, workers: int, packing: bool, first: int) -> int:
    """Real tokens of some steps of the core's loader."""
    objective = MaskedLanguageObjective(
        mask_id=tokenizer.mask_id, special_ids=tokenizer.special_ids, vocab_size=tokenizer.vocab_size
    )
    loader = train_loader(
        store,
        tokenizer,
        objective,
        seq_length=SEQ_LENGTH,
        micro_batch_size=MICRO_BATCH,
        global_batch_size=MICRO_BATCH,
        packing=packing,
        seed=first,
        last_step=STEPS if packing else 3 * STEPS,
        num_workers=workers,
    )
    return sum(step.num_tokens for step in loader)


def naive(store: PreparedStore, tokenizer: CharacterTokenizer, first: int) -> int:
    """Real tokens of some batches of a plain padded loader."""
    id_of = {piece: i for i, piece in enumerate(tokenizer.pieces)}
    generator = torch.Generator().manual_seed(first)
    order = torch.randperm(len(store), generator=generator).tolist()
    total = 0
    for begin in range(0, 3 * STEPS * MICRO_BATCH, MICRO_BATCH):
        rows = []
        for index in order[begin % len(order) :][:MICRO_BATCH]:
            ids = [tokenizer.bos_id, *(id_of.get(letter, 0) for letter in store[index].decode()), tokenizer.eos_id]
            rows.append(torch.tensor(ids[:SEQ_LENGTH]))
        tokens = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=tokenizer.pad_id)
        real = tokens != tokenizer.pad_id
        chosen = (torch.rand(tokens.shape, generator=generator) < 0.15) & real
        fate = torch.rand(tokens.shape, generator=generator)
        masked = torch.where(chosen & (fate < 0.8), tokenizer.mask_id, tokens)
        other = torch.randint(5, tokenizer.vocab_size, tokens.shape, generator=generator)
        torch.where(chosen & (fate > 0.9), other, masked)
        total += int(real.sum())
    return total


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("fasta", nargs="?", type=Path, default=SAMPLE)
    path = parser.parse_args().fasta
    torch.set_num_threads(1)
    tokenizer = CharacterTokenizer(PIECES, pad_id=3, bos_id=1, eos_id=2, unk_id=0, mask_id=4)
    with TemporaryDirectory() as home:
        store = prepare(FastaSource(path), Rules.of(tokenizer), BuildContext(home=home))
        sides: dict[str, Callable[[int], int]] = {
            "packed, main process": lambda r: ours(store, tokenizer, 0, True, r),
            "packed, one worker": lambda r: ours(store, tokenizer, 1, True, r),
            "padded, main process": lambda r: ours(store, tokenizer, 0, False, r),
            "naive padded": lambda r: naive(store, tokenizer, r),
        }
        rates: dict[str, list[float]] = {name: [] for name in sides}
        for number in range(ROUNDS + 1):
            for name, side in sides.items():
                begin = time.perf_counter()
                tokens = side(number)
                if number:  # the first round warms up
                    rates[name].append(tokens / (time.perf_counter() - begin))
    print(f"{path.name}: {len(store)} sequences; Python {platform.python_version()}, numpy {np.__version__}, ", end="")
    print(f"torch {torch.__version__}; median of {ROUNDS} rounds")
    reference = statistics.median(rates["naive padded"])
    for name, values in rates.items():
        median = statistics.median(values)
        print(f"{name:22} {median / 1e6:6.2f} million tokens/s   {median / reference:5.1f} x naive")


if __name__ == "__main__":
    main()
