"""Tokens per second that one loader process feeds, beside a naive padded loader of the same records.

    python benchmarks/bench_loader.py [FASTA]

Proteins are masked and packed; molecules, where bionemo-molbart is installed, are spelt at random, span-masked and
packed for an encoder and a decoder. Both sides see the same records and are interleaved; medians of the rounds. Time
is that of this process alone (`time.process_time`), so that other work on the machine does not count; with a worker it
is what is left for the process that trains. The naive side is what a first training script does: encode piece by piece
through a dictionary, mask with torch or in a loop, pad to the longest of the batch.
"""

import argparse
import platform
import statistics
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence

from bionemo_core.builtin import load_registry
from bionemo_core.config.schema import Choice
from bionemo_core.data.batches.loader import LoaderSettings, train_loader
from bionemo_core.data.batches.masking import MaskedLanguageObjective
from bionemo_core.data.batches.order import SampleOrder
from bionemo_core.data.batches.packing import RowLengths, packs
from bionemo_core.data.readers import FastaSource
from bionemo_core.data.store.prepare import prepare
from bionemo_core.data.store.residue_filter import ResidueFilter
from bionemo_core.data.tokenizer import CharacterTokenizer
from bionemo_core.protocols import BuildContext

SAMPLE = Path(__file__).parents[1] / "bionemo_core/data/sample/uniprot_sample_512.fasta"
PIECES = ["<unk>", "<s>", "</s>", "<pad>", "<mask>", *"LASGVERTDIPKNFQYHMCWXBZUO"]
MICRO_BATCH, ROUNDS = 8, 5

Side = Callable[[int], int]
"""Feeds some steps, seeded by the number of the round, and says how many real tokens they held."""


def ours(parts: tuple[Any, ...], seq_length: int, steps: int, *, packing: bool = True, num_workers: int = 0) -> Side:
    """The core's loader."""

    def side(number: int) -> int:
        loader = train_loader(
            *parts,
            LoaderSettings(
                seq_length=seq_length,
                micro_batch_size=MICRO_BATCH,
                global_batch_size=MICRO_BATCH,
                packing=packing,
                seed=number,
                num_workers=num_workers,
            ),
            last_step=steps,
        )
        return sum(step.num_tokens for step in loader)

    return side


def shuffled(records: Any, number: int, batches: int) -> list[list[Any]]:
    """Batches of records in an order of this round's."""
    order = np.random.default_rng(number).permutation(len(records)).tolist()
    chosen = [order[i % len(order)] for i in range(batches * MICRO_BATCH)]
    return [[records[i] for i in chosen[begin : begin + MICRO_BATCH]] for begin in range(0, len(chosen), MICRO_BATCH)]


def naive_proteins(records: Any, tokenizer: CharacterTokenizer, seq_length: int, batches: int) -> Side:
    """Encode letter by letter, pad, mask the batch with torch."""
    id_of = {piece: i for i, piece in enumerate(tokenizer.pieces)}

    def side(number: int) -> int:
        total = 0
        for batch in shuffled(records, number, batches):
            rows = []
            for record in batch:
                ids = [tokenizer.bos_id, *(id_of.get(letter, 0) for letter in record.decode()), tokenizer.eos_id]
                rows.append(torch.tensor(ids[:seq_length]))
            tokens = pad_sequence(rows, batch_first=True, padding_value=tokenizer.pad_id)
            real = tokens != tokenizer.pad_id
            chosen = (torch.rand(tokens.shape) < 0.15) & real
            fate = torch.rand(tokens.shape)
            masked = torch.where(chosen & (fate < 0.8), tokenizer.mask_id, tokens)
            torch.where(chosen & (fate > 0.9), torch.randint(5, tokenizer.vocab_size, tokens.shape), masked)
            total += int(real.sum())
        return total

    return side


def naive_molecules(records: Any, tokenizer: Any, batches: int) -> Side:
    """Spell at random by RDKit, cut by v1's expression, mask spans in a loop, pad both sides."""
    from rdkit import Chem

    from bionemo_molbart.tokenizer import smiles_tokens

    id_of = {piece.encode(): i for i, piece in enumerate(tokenizer.pieces)}

    def side(number: int) -> int:
        random, total = np.random.default_rng(number), 0
        for batch in shuffled(records, number, batches):
            sources, targets = [], []
            for record in batch:
                spelt = Chem.MolToSmiles(Chem.MolFromSmiles(record.decode()), doRandom=True).encode()
                ids = [id_of.get(piece, tokenizer.unk_id) for piece in smiles_tokens(spelt)]
                masked, place = [], 0
                while place < len(ids):
                    if random.random() < 0.1:
                        masked.append(tokenizer.mask_id)
                        place += int(random.poisson(3))
                    if place < len(ids):
                        masked.append(ids[place])
                    place += 1
                sources.append(torch.tensor(masked))
                targets.append(torch.tensor([tokenizer.bos_id, *ids, tokenizer.eos_id]))
                total += len(masked) + len(ids) + 1
            for rows in (sources, targets):
                pad_sequence(rows, batch_first=True, padding_value=tokenizer.pad_id)
        return total

    return side


def measured(title: str, sides: dict[str, Side], reference: str) -> None:
    """Time the sides in turns and print their medians."""
    rates: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(ROUNDS + 1):
        for name, side in sides.items():
            begin = time.process_time()
            tokens = side(number)
            if number:  # the first round warms up
                rates[name].append(tokens / (time.process_time() - begin))
    medians = {name: statistics.median(values) for name, values in rates.items()}
    print(title)
    for name, median in medians.items():
        print(f"  {name:32} {median / 1e6:6.2f} million tokens/s   {median / medians[reference]:5.1f} x {reference}")


def planning(lengths: Any, seq_length: int) -> None:
    """Print how full packs are and how fast they are planned."""
    laid = RowLengths(lengths, (seq_length,), lambda lengths: (np.minimum(lengths + 2, seq_length),))
    begin = time.process_time()
    made = list(packs(SampleOrder(len(lengths), 0), laid, 4096, stop=10 * 4096))
    took = time.process_time() - begin
    filled = sum(int(pack.sizes.sum()) for pack in made) / (len(made) * seq_length)
    print(f"  packs of {seq_length}: {filled:.1%} full, planned at {10 * 4096 / took / 1e3:.0f} thousand sequences/s")


def proteins(path: Path, home: str) -> None:
    """Masked proteins."""
    tokenizer = CharacterTokenizer(PIECES, pad_id=3, bos_id=1, eos_id=2, unk_id=0, mask_id=4)
    objective = MaskedLanguageObjective(
        mask_id=tokenizer.mask_id, special_ids=tokenizer.special_ids, vocab_size=tokenizer.vocab_size
    )
    store = prepare(FastaSource(path), ResidueFilter.of(tokenizer), BuildContext(home=home))
    parts = store, tokenizer, objective
    sides = {
        "packed": ours(parts, 1024, 150),
        "packed, left with one worker": ours(parts, 1024, 150, num_workers=1),
        "padded": ours(parts, 1024, 450, packing=False),
        "naive": naive_proteins(store, tokenizer, 1024, 450),
    }
    measured(f"Proteins of {path.name}, {len(store)} sequences, masked", sides, "naive")
    planning(store.lengths, 1024)


def molecules(home: str) -> None:
    """Randomised, span-masked molecules for an encoder and a decoder."""
    if find_spec("bionemo_molbart") is None:
        print("Molecules: bionemo-molbart is not installed, so its objective is not measured.")
        return
    from bionemo_molbart.augment import MODES
    from bionemo_molbart.objective import MoleculeObjective
    from bionemo_molbart.spans import SpanMasking

    context, registry = BuildContext(home=home), load_registry()
    tokenizer = registry.build(Choice("tokenizer", "smiles"), context=context)
    records = registry.build(Choice("data", "sample_molecules"), tokenizer=tokenizer, context=context).train
    masking = SpanMasking(tokenizer.mask_id)
    spelt_anew = MoleculeObjective(tokenizer, MODES["equivariant"], seq_length=512, masking=masking)
    as_stored = MoleculeObjective(tokenizer, MODES["canonicalized"], seq_length=512, masking=masking)
    sides = {
        "packed, spelt at random": ours((records, tokenizer, spelt_anew), 512, 15),
        "packed, spelling as stored": ours((records, tokenizer, as_stored), 512, 15),
        "naive, spelt at random": naive_molecules(records, tokenizer, 120),
    }
    measured(f"Molecules, {len(records)} of the NCI, span-masked, source and target", sides, "naive, spelt at random")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("fasta", nargs="?", type=Path, default=SAMPLE)
    path = parser.parse_args().fasta
    torch.set_num_threads(1)
    print(f"Python {platform.python_version()}, numpy {np.__version__}, torch {torch.__version__}, ", end="")
    print(f"one thread; median of {ROUNDS} rounds, time of this process")
    with TemporaryDirectory() as home:
        proteins(path, home)
        molecules(home)


if __name__ == "__main__":
    main()
