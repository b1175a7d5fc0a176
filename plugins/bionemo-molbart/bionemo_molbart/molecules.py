"""All calls of RDKit: molecules from SMILES and back, fragments, properties, random spellings."""

from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

from rdkit import Chem, rdBase
from rdkit.Chem import QED, Crippen, Descriptors, Lipinski
from rdkit.Chem.Scaffolds import MurckoScaffold

RDKIT_VERSION: str = rdBase.rdkitVersion
MOLECULE = "molecule"
"""The name of a stored column of serialised molecules."""
SCAFFOLD = "scaffold"
"""The name of a stored column of scaffolds, and of splits by them."""

_MAX_SEED = 2**31 - 1


def _parser_parameters(*, sanitize: bool) -> Chem.SmilesParserParams:
    parameters = Chem.SmilesParserParams()
    parameters.sanitize = sanitize
    parameters.parseName = False
    parameters.allowCXSMILES = False
    return parameters


_SANITIZED, _AS_WRITTEN = _parser_parameters(sanitize=True), _parser_parameters(sanitize=False)


def parsed(smiles: str) -> Chem.Mol | None:
    """Return the sanitised molecule of a SMILES, or None; nothing is written to RDKit's log.

    RDKit reads the empty text as a molecule without atoms, and stops at white space. A caller to which that matters
    checks the text first.
    """
    with rdBase.BlockLogs():
        return Chem.MolFromSmiles(smiles, _SANITIZED)


def serialised(smiles: str) -> bytes:
    """Serialise the molecule of a SMILES, for `restored` in the same version of RDKit; empty if it is invalid."""
    molecule = parsed(smiles)
    return b"" if molecule is None else bytes(molecule.ToBinary())


def restored(molecule: bytes) -> Chem.Mol | None:
    """Restore a serialised molecule; this is three times as fast as parsing its SMILES."""
    return Chem.Mol(molecule) if molecule else None


def parsed_before(smiles: str) -> Chem.Mol | None:
    """Return the result of `parsed`, three times as fast if this process has parsed the same SMILES twice before.

    The last 65,536 texts are cached. Those that were parsed twice keep RDKit's serialised form, about a kilobyte each.
    """
    seen = _remembered(smiles)
    if seen.molecule is not None:
        return restored(seen.molecule)
    molecule = parsed(smiles)
    if seen.once:
        seen.molecule = b"" if molecule is None else bytes(molecule.ToBinary())
    seen.once = True
    return molecule


class _Seen:
    """The cache entry of a SMILES: whether it was parsed before, and from the second time on the molecule."""

    __slots__ = ("molecule", "once")

    def __init__(self) -> None:
        self.once = False
        self.molecule: bytes | None = None


@lru_cache(maxsize=1 << 16)
def _remembered(smiles: str) -> _Seen:
    return _Seen()


def why_not(smiles: str) -> str:
    """Return why `parsed` gives None: what RDKit says about the chemistry, or that the text is not SMILES."""
    with rdBase.BlockLogs():
        molecule = Chem.MolFromSmiles(smiles, _AS_WRITTEN)
        if molecule is None:
            return "is not SMILES"
        problems = Chem.DetectChemistryProblems(molecule)
    return problems[0].Message() if problems else "cannot be sanitised"


def canonical(molecule: Chem.Mol) -> str:
    """Return RDKit's canonical SMILES, stereochemistry and isotopes included."""
    return str(Chem.MolToSmiles(molecule))


def canonical_smiles(smiles: str) -> str | None:
    """Return the canonical form of a SMILES, or None if it is invalid."""
    molecule = parsed(smiles) if smiles and not smiles.isspace() else None
    return None if molecule is None else canonical(molecule)


class CanonicalSmiles:
    """RDKit's canonical SMILES; satisfies `bionemo_core.protocols.CanonicalForm`."""

    noun = "molecule"
    version = f"RDKit {RDKIT_VERSION}"

    def __call__(self, text: bytes) -> bytes | None:
        """Return the canonical SMILES, or None if the text is not a valid SMILES."""
        found = None if len(text.split()) > 1 else canonical_smiles(text.decode("latin-1"))
        return None if found is None else found.encode()

    def why_not(self, text: bytes) -> str:
        """Return why the text has no canonical form."""
        return "has white space within" if len(text.split()) > 1 else why_not(text.decode("latin-1"))


def scaffold(smiles: bytes) -> bytes:
    """Return the Bemis-Murcko scaffold (1996) as canonical SMILES without stereochemistry.

    It holds the rings, the chains between them and, as RDKit defines it, atoms that are double-bonded to either. All
    molecules without rings share the empty scaffold, as in MoleculeNet. A text that is no molecule is its own scaffold.
    """
    molecule = parsed(smiles.decode("latin-1"))
    if molecule is None:
        return smiles
    found = str(MurckoScaffold.MurckoScaffoldSmiles(mol=molecule, includeChirality=False))
    again = parsed(found)  # without its side chains a ring may be aromatic
    return (found if again is None else canonical(again)).encode()


def randomised(molecule: Chem.Mol, seed: int) -> str:
    """Return a random spelling of the molecule, decided by `seed` (0 .. 2**31 - 2) and RDKit's version alone.

    RDKit has one random number generator a process. A seed above 0 resets it first, so the result does not depend on
    earlier calls or on the number of workers.
    """
    return str(Chem.MolToRandomSmilesVect(molecule, 1, randomSeed=1 + seed % _MAX_SEED)[0])


def largest_fragment(molecule: Chem.Mol) -> Chem.Mol:
    """Return the fragment with the most heavy atoms; ties go to the heavier one, then to the first canonical SMILES."""
    parts = Chem.GetMolFrags(molecule, asMols=True)
    return min(parts, key=lambda part: (-part.GetNumHeavyAtoms(), -Descriptors.MolWt(part), canonical(part)))


def neutralised(molecule: Chem.Mol) -> Chem.Mol:
    """Return the molecule with protons added to anions and taken from cations, as far as that is possible.

    Charges that no proton can balance stay: those of quaternary nitrogen, and of nitro groups and the like.
    """
    from rdkit.Chem.MolStandardize import rdMolStandardize

    with rdBase.BlockLogs():
        return rdMolStandardize.Uncharger().uncharge(molecule)


class Limit(NamedTuple):
    """A property and the values that pass."""

    name: str
    value: Callable[[Chem.Mol], float]
    low: float | None = None
    high: float | None = None

    def refuses(self, molecule: Chem.Mol) -> str:
        """Return the reason for rejecting the molecule, or an empty text if it passes."""
        value = self.value(molecule)
        if self.high is not None and value > self.high:
            return f"{self.name} above {self.high:g}"
        if self.low is not None and value < self.low:
            return f"{self.name} below {self.low:g}"
        return ""


def property_limits(
    max_weight: float | None, max_logp: float | None, max_donors: int | None, max_acceptors: int | None
) -> tuple[Limit, ...]:
    """Limits on weight (g/mol), Crippen's logP, hydrogen-bond donors and acceptors; None is no limit."""
    limits = (
        Limit("weight", Descriptors.MolWt, high=max_weight),
        Limit("hydrogen-bond donors", Lipinski.NumHDonors, high=max_donors),
        Limit("hydrogen-bond acceptors", Lipinski.NumHAcceptors, high=max_acceptors),
        Limit("logP", Crippen.MolLogP, high=max_logp),
    )
    return tuple(limit for limit in limits if limit.high is not None)


def qed_limit(min_qed: float) -> Limit:
    """Return the limit of at least this drug-likeness (QED, Bickerton et al. 2012), from 0 to 1."""
    return Limit("QED", QED.qed, low=min_qed)
