"""More molecules to train on, made of pieces of those that there are.

Splits the molecules as `data=smiles data.val_size=500 data.test_size=1500` does, cuts each one of the training split at
each of its BRICS bonds (Degen et al. 2008) in two, and joins halves of different molecules that were cut from
counterparts. A new molecule is about as large as the one that gave its first half. None is made of a molecule of the
other splits; one that happens to be among them is left out.

    python benchmarks/recombine_molecules.py zinc_20k.smi.gz OUT_FOLDER [--number 500000]
    bionemo-run model=molmim_70m data=smiles data.path=OUT_FOLDER/train.smi.gz data.val_path=OUT_FOLDER/val.smi.gz \
        data.test_path=OUT_FOLDER/test.smi.gz

`train.smi.gz` holds the molecules of the training split and then the new ones, all canonical and each once.
"""

import argparse
import gzip
import os
import random
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import NamedTuple

from rdkit import Chem, rdBase
from rdkit.Chem import BRICS

from bionemo_core.protocols import BuildContext, RecordDataset
from bionemo_molbart.molecules import canonical, parsed
from bionemo_molbart.sources import smiles
from bionemo_molbart.tokenizer import molbart_tokenizer

PART = 2000
"""Attempts of one seed."""
TRIES = 16
LARGER_OR_SMALLER = 2
"""Heavy atoms by which a new molecule may differ from the one that gave its first half."""


class Half(NamedTuple):
    """One side of a molecule that was cut; a dummy atom stands where the other side was."""

    molecule: Chem.Mol
    num_atoms: int
    """Heavy atoms, without the dummy."""


class Cut(NamedTuple):
    """A half, and where the halves are that could be its other side."""

    half: Half
    counterparts: tuple[str, str]
    size: int
    """Heavy atoms of the molecule that was cut."""


Halves = Mapping[tuple[str, str], Sequence[Half]]


def halves_of(molecule: Chem.Mol) -> Iterator[tuple[tuple[str, str], Half]]:
    """The two halves of each cut at a BRICS bond, by (own environment, the other one)."""
    for (begin, end), (of_begin, of_end) in BRICS.FindBRICSBonds(molecule):
        bond = molecule.GetBondBetweenAtoms(begin, end).GetIdx()
        in_two = Chem.FragmentOnBonds(molecule, [bond], dummyLabels=[(0, 0)])
        both, places = Chem.GetMolFrags(in_two, asMols=True, sanitizeFrags=False), Chem.GetMolFrags(in_two)
        for half, atoms in zip(both, places, strict=True):
            own, other = (of_begin, of_end) if begin in atoms else (of_end, of_begin)
            yield (own, other), Half(half, half.GetNumAtoms() - 1)


def joined(first: Chem.Mol, second: Chem.Mol) -> str | None:
    """The canonical SMILES of two halves with a bond in place of their dummies, or None where that is no molecule."""
    both = Chem.RWMol(Chem.CombineMols(first, second))
    dummies = [atom for atom in both.GetAtoms() if atom.GetAtomicNum() == 0]
    ends = [dummy.GetNeighbors()[0].GetIdx() for dummy in dummies]
    both.AddBond(*ends, dummies[0].GetBonds()[0].GetBondType())
    for dummy in sorted((dummy.GetIdx() for dummy in dummies), reverse=True):
        both.RemoveAtom(dummy)
    with rdBase.BlockLogs():
        made = parsed(Chem.MolToSmiles(both))
    return None if made is None else canonical(made)


def recombined(cuts: Sequence[Cut], halves: Halves, number: int, seed: int) -> list[str]:
    """The SMILES of `number` attempts at a new molecule; some fail, some give the same."""
    chance, found = random.Random(seed), []
    for _ in range(number):
        cut = chance.choice(cuts)
        for _ in range(TRIES):
            other = chance.choice(halves[cut.counterparts])
            if abs(cut.half.num_atoms + other.num_atoms - cut.size) <= LARGER_OR_SMALLER:
                made = joined(cut.half.molecule, other.molecule)
                found += [made] if made is not None and "." not in made else []
                break
    return found


def cut_all(texts: Sequence[str]) -> tuple[list[Cut], Halves]:
    """All halves of these molecules: as beginnings, and by their environments."""
    halves: dict[tuple[str, str], list[Half]] = defaultdict(list)
    cuts = []
    for text in texts:
        molecule = Chem.MolFromSmiles(text)
        for (own, other), half in halves_of(molecule):
            halves[own, other].append(half)
            cuts.append(Cut(half, (other, own), molecule.GetNumHeavyAtoms()))
    return cuts, halves


_cut: tuple[list[Cut], Halves]
"""What a process cut when it started."""


def start(texts: Sequence[str]) -> None:
    """Cut all molecules, once a process."""
    global _cut
    _cut = cut_all(texts)


def part_of(number: int, seed: int) -> list[str]:
    """The molecules of some attempts; what they are does not depend on the process."""
    return recombined(*_cut, number, seed)


def texts_of(records: RecordDataset) -> list[str]:
    """The SMILES of a split."""
    return [bytes(records[row]).decode() for row in range(len(records))]


def main() -> None:
    """Write the three splits."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("smiles", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--number", type=int, default=500_000, help="new molecules to try to make")
    parser.add_argument("--seed", type=int, default=1234)
    parser.add_argument("--processes", type=int, default=len(os.sched_getaffinity(0)))
    arguments, started = parser.parse_args(), time.perf_counter()

    splits = smiles(
        path=str(arguments.smiles), val_size=500, test_size=1500, tokenizer=molbart_tokenizer(), context=BuildContext()
    )
    assert splits.val is not None
    assert splits.test is not None
    own = {"train": texts_of(splits.train), "val": texts_of(splits.val), "test": texts_of(splits.test)}

    parts = -(-arguments.number // PART)
    with ProcessPoolExecutor(arguments.processes, initializer=start, initargs=(own["train"],)) as pool:
        seeds = range(arguments.seed, arguments.seed + parts)
        made = [text for part in pool.map(part_of, [PART] * parts, seeds) for text in part]
    held_out = {*own["val"], *own["test"]}
    different = dict.fromkeys(own["train"]) | dict.fromkeys(text for text in made if text not in held_out)

    arguments.out.mkdir(parents=True, exist_ok=True)
    for split, texts in {**own, "train": list(different)}.items():
        with gzip.open(arguments.out / f"{split}.smi.gz", "wt") as stream:
            stream.writelines(f"{text}\n" for text in texts)
    dropped = sum(text in held_out for text in made)
    print(f"{len(own['train']):,} molecules to train on, {PART * parts:,} attempts at new ones: {len(made):,} made,")
    print(f"{len(different) - len(set(own['train'])):,} of them new and different; {dropped:,} held out ones left out")
    print(f"{time.perf_counter() - started:.0f} s, RDKit {rdBase.rdkitVersion}, {arguments.processes} processes")


if __name__ == "__main__":
    main()
