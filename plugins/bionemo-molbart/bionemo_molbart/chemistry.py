"""The evaluation of molecules that a model wrote: validity, canonical form, similarity, scores, a picture of many."""

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rdkit import Chem, DataStructs, RDConfig
from rdkit.Chem import QED, Crippen, rdFingerprintGenerator

from bionemo_core.data.downloads import write_file
from bionemo_core.errors import ConfigError
from bionemo_core.protocols import Oracle
from bionemo_molbart.molecules import canonical_smiles, parsed

log = logging.getLogger("bionemo")

FINGERPRINT_RADIUS = 2
FINGERPRINT_BITS = 2048

# MolMIM's score is full at this drug-likeness and this likeness (Reidenbach et al. 2022, arXiv 2208.09016).
FULL_QED = 0.9
FULL_SIMILARITY = 0.4

# Mean and standard deviation of logP, SA score and ring excess over the 250,000 ZINC molecules of Kusner et al. 2017.
_LOGP = (2.4570953396190123, 1.434324401111988)
_SA = (3.0525811293166134, 0.8335207024513095)
_RING_EXCESS = (0.0485696876403053, 0.2860212110245455)
_LARGEST_FREE_RING = 6

_PANEL = (260, 220)  # pixels of one molecule in a grid
_PANELS_A_ROW = 6


def qed(molecule: Chem.Mol) -> float:
    """Return the drug-likeness from 0 to 1 (Bickerton et al. 2012)."""
    return float(QED.qed(molecule))


def logp(molecule: Chem.Mol) -> float:
    """Return the octanol-water partition coefficient after Crippen, log10."""
    return float(Crippen.MolLogP(molecule))


def synthetic_accessibility(molecule: Chem.Mol) -> float:
    """Return the SA score from 1, easy to synthesise, to 10 (Ertl and Schuffenhauer 2009), by RDKit's own contribution.

    Raises:
        ConfigError: this RDKit came without its `Contrib` folder.
    """
    return float(_sa_scorer()(molecule))


def penalized_logp(molecule: Chem.Mol) -> float:
    """Return the penalized logP: logP minus SA score minus the excess ring size, standardised (Kusner et al. 2017).

    Raises:
        ConfigError: this RDKit came without its `Contrib` folder, which the SA score needs.
    """
    largest = max((len(ring) for ring in molecule.GetRingInfo().AtomRings()), default=0)
    excess = max(0, largest - _LARGEST_FREE_RING)
    return (
        _standard(logp(molecule), _LOGP)
        - _standard(synthetic_accessibility(molecule), _SA)
        - _standard(excess, _RING_EXCESS)
    )


def tanimoto(smiles: Sequence[str], references: Sequence[str]) -> NDArray[np.float64]:
    """Tanimoto similarity of Morgan fingerprints, radius 2, 2,048 bits, shape [molecules]; NaN where none is one."""
    pairs = zip(smiles, references, strict=True)
    return np.array([_tanimoto(_fingerprint(one), _fingerprint(other)) for one, other in pairs], dtype=np.float64)


def qed_with_similarity(smiles: Sequence[str], starts: Sequence[str]) -> NDArray[np.float64]:
    """Return MolMIM's score from 0 to 2: QED / 0.9 and similarity to the start / 0.4, each at most 1."""
    likeness = np.clip(_each(qed)(smiles, starts) / FULL_QED, 0.0, 1.0)
    return likeness + np.clip(tanimoto(smiles, starts) / FULL_SIMILARITY, 0.0, 1.0)


class MoleculeJudge:
    """Chemistry for the core, which has none: satisfies `bionemo_core.protocols.TextJudge`."""

    noun = "molecule"

    @property
    def oracles(self) -> Mapping[str, Oracle]:
        """Scores by the names that v1 gave them."""
        return ORACLES

    def canonical(self, text: str) -> str | None:
        """Return RDKit's canonical SMILES; None if the text is no molecule."""
        return canonical_smiles(text)

    def similarity(self, texts: Sequence[str], references: Sequence[str]) -> NDArray[np.float64]:
        """Return the Tanimoto similarity of Morgan fingerprints, shape [texts]."""
        return tanimoto(texts, references)

    def draw_grid(self, texts: Sequence[str], captions: Sequence[str], path: str) -> None:
        """Write a PNG of all molecules, six per row, each above its caption; a text that is none leaves a gap.

        Where RDKit's drawing cannot be loaded there is a warning and no picture.

        Raises:
            StorageError: it cannot be written.
        """
        try:  # it needs a library of the X window system, which a bare machine lacks
            from rdkit.Chem.Draw import rdMolDraw2D
        except ImportError as error:
            log.warning("%s is not drawn: %s. On Debian and Ubuntu: apt install libxrender1.", path, error)
            return
        molecules = [parsed(text) or Chem.Mol() for text in texts]
        rows = max(1, math.ceil(len(molecules) / _PANELS_A_ROW))
        columns = min(_PANELS_A_ROW, max(1, len(molecules)))
        drawing = rdMolDraw2D.MolDraw2DCairo(columns * _PANEL[0], rows * _PANEL[1], *_PANEL)
        options = drawing.drawOptions()
        options.legendFontSize = 15
        options.padding = 0.08
        drawing.DrawMolecules(molecules, legends=list(captions))
        drawing.FinishDrawing()
        write_file(Path(path), drawing.GetDrawingText())


class _EachMolecule:
    """An oracle from a property of one molecule; a class, so that it can be sent to another process."""

    def __init__(self, value: Callable[[Chem.Mol], float]) -> None:
        self.value = value

    def __call__(self, texts: Sequence[str], starts: Sequence[str], /) -> NDArray[np.float64]:
        molecules = (_molecule(text) for text in texts)
        return np.array([math.nan if one is None else self.value(one) for one in molecules], dtype=np.float64)


_each = _EachMolecule

ORACLES: Mapping[str, Oracle] = {
    "qed": _each(qed),
    "logp": _each(logp),
    "penalized_logp": _each(penalized_logp),
    "tanimoto": tanimoto,
    "molmim_qed_with_similarity": qed_with_similarity,
}


@lru_cache(maxsize=1)
def _sa_scorer() -> Callable[[Chem.Mol], float]:
    # RDKit's wheel carries the scorer as a script beside the package; it reads the table that lies with it.
    path = Path(RDConfig.RDContribDir) / "SA_Score" / "sascorer.py"
    spec = spec_from_file_location("rdkit_contrib_sascorer", path)
    if not path.is_file() or spec is None or spec.loader is None:
        raise ConfigError(
            f"penalized_logp: this RDKit has no SA score ({path} is missing). Install rdkit from its wheel on PyPI, "
            "or choose another oracle."
        )
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    scorer: Callable[[Chem.Mol], float] = module.calculateScore
    return scorer


@lru_cache(maxsize=1)
def _generator() -> rdFingerprintGenerator.FingerprintGenerator64:
    return rdFingerprintGenerator.GetMorganGenerator(radius=FINGERPRINT_RADIUS, fpSize=FINGERPRINT_BITS)


@lru_cache(maxsize=2_000)
def _molecule(smiles: str) -> Chem.Mol | None:
    return parsed(smiles) if smiles else None


@lru_cache(maxsize=20_000)
def _fingerprint(smiles: str) -> DataStructs.ExplicitBitVect | None:
    molecule = _molecule(smiles)
    return None if molecule is None else _generator().GetFingerprint(molecule)


def _tanimoto(one: DataStructs.ExplicitBitVect | None, other: DataStructs.ExplicitBitVect | None) -> float:
    return math.nan if one is None or other is None else float(DataStructs.TanimotoSimilarity(one, other))


def _standard(value: float, moments: tuple[float, float]) -> float:
    return (value - moments[0]) / moments[1]
