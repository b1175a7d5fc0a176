"""A set of reactions, made from molecules by templates, for where no table of reactions is at hand.

A template is a reaction that chemists use to join two pieces, written twice as SMARTS: backwards, how a product is
taken apart, and forwards, how its reactants react. The ten are among those that medicinal chemists use most (Roughley
and Jordan 2011); each of them joins two molecules by one bond that is not part of a ring.

A molecule is the product of at most one reaction, so that there is one right answer. It is that of the first template,
in the order of `TEMPLATES`, from the least to the most frequent, for which

- the product can be taken apart in exactly one way, and
- the reactants, put together by the same template, give this product and no other: there is no second group that
  would react too.

The reactions are structures only; they have no reagents, no catalysts and no yields. More reactions to train on come
from the reactants of the training split, put together anew (`recombined`); the same two rules hold for them.

    python benchmarks/reaction_templates.py zinc_20k.smi.gz reactions.csv [--recombined 100000]

The table has the columns `id`, `template`, `split` and `reaction` (reactants>>product, canonical, no atom maps), and is
read by `data=pairs data.reaction_column=reaction data.split_column=split data.id_column=id`.
"""

import argparse
import csv
import os
import random
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import cached_property
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

from rdkit import Chem, rdBase
from rdkit.Chem import rdChemReactions

from bionemo_core.data.readers import SmilesSource
from bionemo_molbart.molecules import canonical, parsed

AMINE = "[N;X3;H1,H2;!$(N[#6]=[O,S,N]);!$(N[S,P]=O);!$(N~[#7,#8]):2]"
"""An amine that reacts: no amide, no sulfonamide, no hydrazine or hydroxylamine."""
FIELDS = "id", "template", "split", "reaction"
MOST_ATOMS = 38
"""Heavy atoms of a recombined product; the largest molecule of ZINC's drug-like part has as many."""
PART = 500
"""Molecules, or attempts of one seed, that a process takes at a time."""


class Template:
    """One reaction of two molecules, in both directions."""

    def __init__(self, name: str, backward: str, forward: str) -> None:
        self.name, self._smarts = name, (backward, forward)

    @cached_property
    def _reactions(self) -> list[rdChemReactions.ChemicalReaction]:
        return [rdChemReactions.ReactionFromSmarts(text) for text in self._smarts]

    def cuts(self, product: Chem.Mol) -> set[tuple[str, ...]]:
        """All pairs of reactants, canonical, that the product can be taken apart into."""
        return outcomes(self._reactions[0], (product,))

    def products(self, reactants: Sequence[str]) -> set[str]:
        """All canonical products of two reactants, in the order of the template."""
        molecules = [parsed(one) for one in reactants]
        if len(molecules) != 2 or None in molecules:
            return set()
        return {made for (made,) in outcomes(self._reactions[1], tuple(molecules))}


def outcomes(reaction: rdChemReactions.ChemicalReaction, molecules: tuple[Chem.Mol, ...]) -> set[tuple[str, ...]]:
    """The different results of a reaction, as canonical SMILES; those that are no molecules are left out."""
    found = set()
    with rdBase.BlockLogs():
        for result in reaction.RunReactants(molecules):
            # RDKit sanitises no result; reading its SMILES does, and refuses what is none.
            made = [parsed(Chem.MolToSmiles(one)) for one in result]
            if None not in made:
                found.add(tuple(canonical(one) for one in made))
    return found


TEMPLATES = (
    Template(
        "thioether formation",
        "[c:1][S;X2:2]-!@[C;X4;H2:3]>>[c:1][SH:2].[C:3]Br",
        "[c:1][SH:2].[C;X4;H2:3]Br>>[c:1][S:2][C:3]",
    ),
    Template(
        "reductive amination",
        "[#6;!$(C=O):4][C;X4;H2:1]-!@[N;X3;!$(N[!#6]);!$(N[#6;!X4]):2]>>[#6:4][C:1]=O.[N:2]",
        f"[#6:4][C;H1:1]=O.{AMINE}>>[#6:4][C:1][N:2]",
    ),
    Template(
        "azole N-alkylation",
        "[n;r5:1]-!@[C;X4;H2:2]>>[nH:1].[C:2]Br",
        "[nH:1].[C;X4;H2:2]Br>>[n;H0:1][C:2]",
    ),
    Template(
        "sulfonamide formation",
        "[#6:3][S:1](=[O:4])(=[O:5])-!@[N;X3;!H2;!$(N[#6]=[O,S,N]);!$(N~[#7,#8]);!$(N(S=O)S=O):2]"
        ">>[#6:3][S:1](=[O:4])(=[O:5])Cl.[N:2]",
        f"[#6:3][S:1](=[O:4])(=[O:5])Cl.{AMINE}>>[#6:3][S:1](=[O:4])(=[O:5])[N:2]",
    ),
    # The bromide is on the ring that is no benzene, and the boronic acid on the benzene.
    Template(
        "Suzuki coupling",
        "[c;!$(c1ccccc1):1]-!@[c;$(c1ccccc1):2]>>[c:1]Br.[c:2]B(O)O",
        "[c:1]Br.[c:2]B(O)O>>[c:1]-[c:2]",
    ),
    Template(
        "urea formation",
        "[N;X3;H1;!$(N[!#6]):1]-!@[C:3](=[O:4])-!@[N;X3;!H2;!$(N[!#6]);!$(N(C=O)C=[O,N,S]):2]"
        ">>[N;H0:1]=[C:3]=[O:4].[N:2]",
        f"[N:1]=[C:3]=[O:4].{AMINE}>>[NH:1][C:3](=[O:4])[N:2]",
    ),
    Template(
        "Williamson ether synthesis",
        "[c:1][O;X2:2]-!@[C;X4;H2:3]>>[c:1][OH:2].[C:3]Br",
        "[c:1][OH:2].[C;X4;H2:3]Br>>[c:1][O:2][C:3]",
    ),
    Template(
        "esterification",
        "[#6:5][C:1](=[O:2])-!@[O;X2;!$(O(C=O)C=O):3]-[C;X4:4]>>[#6:5][C:1](=[O:2])O.[OH:3][C:4]",
        "[#6:5][C:1](=[O:2])[OH].[O;H1:3]-[C;X4:4]>>[#6:5][C:1](=[O:2])[O:3][C:4]",
    ),
    Template(
        "Buchwald-Hartwig amination",
        "[c:1]-!@[N;X3;$(N([CX4])[CX4]),$([NH][CX4]):2]>>[c:1]Br.[N:2]",
        f"[c:1]Br.{AMINE}>>[c:1][N:2]",
    ),
    Template(
        "amide coupling",
        "[#6:5][C:1](=[O:3])-!@[N;X3;!H2;!$(N(C=O)[#6]=[O,S,N]);!$(N[S,P]=O);!$(N~[#7,#8]):2]"
        ">>[#6:5][C:1](=[O:3])O.[N:2]",
        f"[#6:5][C:1](=[O:3])[OH].{AMINE}>>[#6:5][C:1](=[O:3])[N:2]",
    ),
)


class Reaction(NamedTuple):
    """How a product is made."""

    template: str
    reactants: tuple[str, ...]
    """Canonical, in the order of the template."""
    product: str
    """Canonical."""

    @property
    def text(self) -> str:
        """Reaction SMILES; the reactants stand in the order of their own canonical form."""
        return f"{'.'.join(sorted(self.reactants))}>>{self.product}"


def reaction_of(product: str) -> Reaction | None:
    """The reaction that makes a molecule, by the two rules above; None if there is none."""
    molecule = parsed(product)
    if molecule is None:
        return None
    for template in TEMPLATES:
        cuts = template.cuts(molecule)
        if len(cuts) == 1:
            (reactants,) = cuts
            if template.products(reactants) == {product}:
                return Reaction(template.name, reactants, product)
    return None


def reactions_of(products: Sequence[str]) -> list[Reaction]:
    """The reactions of those molecules that have one."""
    return [found for found in map(reaction_of, products) if found is not None]


def joined(template: Template, reactants: tuple[str, str]) -> Reaction | None:
    """The reaction of two molecules, if the two rules hold for it too and the product is not too large."""
    products = template.products(reactants)
    if len(products) != 1:
        return None
    (product,) = products
    molecule = parsed(product)
    if molecule is None or molecule.GetNumHeavyAtoms() > MOST_ATOMS:
        return None
    made = reaction_of(product)
    return made if made is not None and made.text == Reaction(template.name, reactants, product).text else None


Reactants = Mapping[str, tuple[Sequence[str], Sequence[str]]]
"""By the name of a template: first and second reactants, one of each for every reaction."""


def reactants_of(reactions: Sequence[Reaction]) -> Reactants:
    """The reactants of each template."""
    sides: dict[str, tuple[list[str], list[str]]] = defaultdict(lambda: ([], []))
    for reaction in reactions:
        for side, text in zip(sides[reaction.template], reaction.reactants, strict=True):
            side.append(text)
    return dict(sides)


def recombined(reactants: Reactants, number: int, seed: int) -> list[Reaction]:
    """The reactions of `number` attempts; each takes a template as often as it occurs, and two of its reactants."""
    chance, found = random.Random(seed), []
    by_name = {template.name: template for template in TEMPLATES}
    names = sorted(reactants)
    weights = [len(reactants[name][0]) for name in names]
    for name in chance.choices(names, weights, k=number):
        first, second = reactants[name]
        made = joined(by_name[name], (chance.choice(first), chance.choice(second)))
        found += [made] if made is not None else []
    return found


class Splits(NamedTuple):
    """Reactions whose products are all different; a product that is held out is no reactant to train on either."""

    train: list[Reaction]
    val: list[Reaction]
    test: list[Reaction]

    def without_leaks(self) -> "Splits":
        """The same without those training reactions that show a held-out product."""
        held_out = {reaction.product for reaction in (*self.val, *self.test)}
        return self._replace(train=[one for one in self.train if held_out.isdisjoint((one.product, *one.reactants))])


def split_by_product(reactions: Sequence[Reaction], val: int, test: int, seed: int) -> Splits:
    """Draw the held-out reactions; each product is in one split.

    Raises:
        SystemExit: nothing would be left to train on.
    """
    own = list({reaction.product: reaction for reaction in reactions}.values())
    if len(own) <= val + test:
        raise SystemExit(f"{len(own)} reactions were found, too few to hold {val + test} out. Give more molecules.")
    random.Random(seed).shuffle(own)
    return Splits(own[val + test :], own[test : val + test], own[:test]).without_leaks()


@contextmanager
def several(processes: int) -> Iterator[Callable[..., Iterable[list[Reaction]]]]:
    """Yield a `map` over so many processes; over this one if it is one."""
    if processes == 1:
        yield map
        return
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        yield pool.map


def add_recombined(
    splits: Splits, number: int, seed: int, apply: Callable[..., Iterable[list[Reaction]]] = map
) -> Splits:
    """The same with so many attempts at more training reactions; none has a product that is there already."""
    reactants, parts = reactants_of(splits.train), -(-number // PART)
    numbers = [min(PART, number - start) for start in range(0, number, PART)]
    made = apply(recombined, [reactants] * parts, numbers, range(seed, seed + parts))
    by_product = {reaction.product: reaction for part in made for reaction in part}
    by_product |= {reaction.product: reaction for reaction in splits.train}
    return splits._replace(train=list(by_product.values())).without_leaks()


def write_table(splits: Splits, path: Path) -> None:
    """Write the reactions as a table."""
    with path.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(FIELDS)
        number = 0
        for split, reactions in splits._asdict().items():
            for reaction in reactions:
                writer.writerow((f"r{number}", reaction.template, split, reaction.text))
                number += 1


def molecules_of(path: Path) -> Iterator[str]:
    """The different canonical SMILES of a file of single molecules."""
    forms = (parsed(record.sequence.decode()) for record in SmilesSource(path).records(path))
    yield from dict.fromkeys(canonical(one) for one in forms if one is not None)


def make_reactions(arguments: argparse.Namespace, table: Path) -> Splits:
    """Write the table of reactions; say how many there are of each template."""
    started = time.perf_counter()
    products = [text for text in molecules_of(arguments.smiles) if "." not in text]
    parts = [products[start : start + PART] for start in range(0, len(products), PART)]
    with several(arguments.processes) as apply:
        reactions = [reaction for part in apply(reactions_of, parts) for reaction in part]
        splits = split_by_product(reactions, arguments.val, arguments.test, arguments.seed)
        splits = add_recombined(splits, arguments.recombined, arguments.seed, apply)
    write_table(splits, table)
    print(f"{len(products):,} molecules, {len(reactions):,} of them the product of a reaction")
    print("reactions: " + ", ".join(f"{split} {len(part):,}" for split, part in splits._asdict().items()))
    print(template_counts(splits))
    print(f"{time.perf_counter() - started:.0f} s, RDKit {rdBase.rdkitVersion}", flush=True)
    return splits


def template_counts(splits: Splits) -> str:
    """How many reactions of each template there are, in Markdown."""
    counts = [Counter(reaction.template for reaction in part) for part in splits]
    lines = ["| template | train | val | test |", "|---|---|---|---|"]
    lines += [f"| {one.name} | " + " | ".join(f"{count[one.name]:,}" for count in counts) + " |" for one in TEMPLATES]
    return "\n".join(lines)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what describes the set."""
    parser.add_argument("smiles", type=Path, help="molecules, one SMILES a line")
    parser.add_argument("--recombined", type=int, default=0, help="attempts at more training reactions")
    parser.add_argument("--val", type=int, default=300, help="reactions to validate on")
    parser.add_argument("--test", type=int, default=1000, help="reactions to test on")
    parser.add_argument("--seed", type=int, default=1234)
    parser.add_argument("--processes", type=int, default=len(os.sched_getaffinity(0)))


def sides(reactions: Collection[Reaction]) -> list[str]:
    """The different molecules of some reactions."""
    return list(dict.fromkeys(text for one in reactions for text in (one.product, *one.reactants)))


def main() -> None:
    """Write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    parser.add_argument("table", type=Path, help="where to write the reactions")
    arguments = parser.parse_args()
    make_reactions(arguments, arguments.table)


if __name__ == "__main__":
    main()
