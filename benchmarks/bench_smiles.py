"""Molecules per second that one process feeds to a sequence-to-sequence model, beside a naive loader; and each stage.

    python benchmarks/bench_smiles.py [SMILES_FILE]

Both sides see the same molecules, randomise and mask them, and are interleaved; medians of the rounds. Ours has parsed
none of them before a round, as with millions of molecules; with `data.parsed` they are stored as parsed. The naive side
is what a first training script does: parse with RDKit, write a random SMILES, cut it by the expression, look tokens
up in a dictionary, mask token by token, pad to the longest of the batch.
"""

import argparse
import platform
import random
import re
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from rdkit import Chem, RDConfig, rdBase

from bionemo_core.data.batches.loader import LoaderSettings, train_loader
from bionemo_core.data.batches.rng import RecordRng
from bionemo_core.data.readers import SmilesSource
from bionemo_core.data.store.prepare import prepare
from bionemo_core.data.store.record_store import PreparedStore
from bionemo_core.protocols import BuildContext
from bionemo_molbart.augment import find_spelling
from bionemo_molbart.molecules import _remembered as remembered
from bionemo_molbart.molecules import parsed, randomised
from bionemo_molbart.objective import MoleculeObjective
from bionemo_molbart.rules import MoleculeFilter, MoleculeOptions
from bionemo_molbart.spans import SpanMasking
from bionemo_molbart.tokenizer import EXPRESSION, SmilesTokenizer, molbart_tokenizer

SAMPLE = Path(RDConfig.RDDataDir) / "NCI" / "first_5K.smi"
SEQ_LENGTH, MICRO_BATCH, ROUNDS = 128, 32, 5


def objective(tokenizer: SmilesTokenizer, mode: str, masked: bool) -> MoleculeObjective:
    """What makes the examples of a model."""
    masking = SpanMasking(tokenizer.mask_id) if masked else None
    return MoleculeObjective(tokenizer, find_spelling(mode), seq_length=SEQ_LENGTH, masking=masking)


def ours(store: PreparedStore, tokenizer: SmilesTokenizer, made: MoleculeObjective, steps: int, seed: int) -> int:
    """Molecules of some steps of the core's loader in this process."""
    loader = train_loader(
        store,
        tokenizer,
        made,
        LoaderSettings(seq_length=SEQ_LENGTH, micro_batch_size=MICRO_BATCH, global_batch_size=MICRO_BATCH, seed=seed),
        last_step=steps,
    )
    return sum(step.num_sequences for step in loader)


def naive(store: PreparedStore, tokenizer: SmilesTokenizer, num_molecules: int, seed: int) -> int:
    """Molecules of a plain padded loader with the same augmentation and masks."""
    id_of = {piece: i for i, piece in enumerate(tokenizer.pieces)}
    pattern, chance = re.compile(f"({EXPRESSION}|.)"), random.Random(seed)
    for begin in range(0, num_molecules, MICRO_BATCH):
        rows, answers = [], []
        for number in range(begin, min(begin + MICRO_BATCH, num_molecules)):
            molecule = Chem.MolFromSmiles(store[number % len(store)].decode())
            text = Chem.MolToSmiles(molecule, doRandom=True)
            ids = [id_of.get(token, tokenizer.unk_id) for token in pattern.findall(text)]
            source, place = [], 0
            while place < len(ids):
                if chance.random() < 0.1:
                    source.append(tokenizer.mask_id)
                    place += int(np.random.poisson(3.0))
                if place < len(ids):
                    source.append(ids[place])
                place += 1
            rows.append(torch.tensor(source))
            answers.append(torch.tensor([tokenizer.bos_id, *ids, tokenizer.eos_id]))
        for one in (rows, answers):
            torch.nn.utils.rnn.pad_sequence(one, batch_first=True, padding_value=tokenizer.pad_id)
    return num_molecules


def stages(store: PreparedStore, tokenizer: SmilesTokenizer) -> dict[str, float]:
    """Microseconds a molecule of each stage."""
    texts = [store[i].decode() for i in range(min(len(store), 2000))]
    molecules = [parsed(text) for text in texts]
    ids = [tokenizer.encode(text) for text in texts]
    masking = SpanMasking(tokenizer.mask_id)
    work: dict[str, Callable[[], object]] = {
        "parse": lambda: [parsed(text) for text in texts],
        "random SMILES": lambda: [randomised(molecule, seed) for seed, molecule in enumerate(molecules)],
        "tokens": lambda: [tokenizer.encode(text) for text in texts],
        "span masks": lambda: [masking(one, RecordRng(0, 0, i, "masking")) for i, one in enumerate(ids)],
    }
    times = {}
    for name, stage in work.items():
        begin = time.perf_counter()
        stage()
        times[name] = (time.perf_counter() - begin) / len(texts) * 1e6
    return times


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("smiles", nargs="?", type=Path, default=SAMPLE)
    parser.add_argument("--steps", type=int, default=20)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    tokenizer = molbart_tokenizer()
    megamolbart, molmim = objective(tokenizer, "equivariant", True), objective(tokenizer, "canonicalized", False)
    with TemporaryDirectory() as home:
        store, with_molecules = (
            prepare(
                SmilesSource(arguments.smiles),
                MoleculeFilter(tokenizer, MoleculeOptions(max_length=SEQ_LENGTH - 2, parsed=with_parsed)),
                BuildContext(home=home),
            )
            for with_parsed in (False, True)
        )

        def new_to_us(number: int) -> int:
            remembered.cache_clear()
            return ours(store, tokenizer, megamolbart, arguments.steps, number)

        sides: dict[str, Callable[[int], int]] = {
            "random, masked, packed": new_to_us,
            "the same, data.parsed": lambda r: ours(with_molecules, tokenizer, megamolbart, arguments.steps, r),
            "canonical, packed": lambda r: ours(store, tokenizer, molmim, 4 * arguments.steps, r),
            "naive random, masked": lambda r: naive(store, tokenizer, 80 * arguments.steps, r),
        }
        rates: dict[str, list[float]] = {name: [] for name in sides}
        for number in range(ROUNDS + 1):
            for name, side in sides.items():
                begin = time.perf_counter()
                molecules = side(number)
                if number:  # the first round warms up
                    rates[name].append(molecules / (time.perf_counter() - begin))
        times = stages(store, tokenizer)
    print(f"{arguments.smiles.name}: {len(store)} molecules, {store.lengths.mean():.1f} tokens; ", end="")
    print(f"Python {platform.python_version()}, RDKit {rdBase.rdkitVersion}; one process, median of {ROUNDS} rounds")
    reference = statistics.median(rates["naive random, masked"])
    for name, values in rates.items():
        median = statistics.median(values)
        print(f"{name:24} {median:9,.0f} molecules/s   {median / reference:5.1f} x naive")
    print(f"random spellings drawn again: {megamolbart.redrawn}, molecules that kept their own: {megamolbart.kept}")
    print("  ".join(f"{name} {value:.0f} us" for name, value in times.items()))


if __name__ == "__main__":
    main()
