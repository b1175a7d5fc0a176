"""Scores of molecules against published or independently computed values, and the picture."""

import math
import pickle  # noqa: TID251 - only to see that a judge can be sent to another process
from itertools import pairwise

import numpy as np
import pytest
from rdkit import Chem, rdBase
from rdkit.Chem import AllChem, Descriptors

from bionemo_core.protocols import TextJudge
from bionemo_molbart.chemistry import ORACLES, MoleculeJudge, synthetic_accessibility, tanimoto
from bionemo_molbart.molecules import parsed

ASPIRIN, PARACETAMOL, MACROCYCLE = "CC(=O)Oc1ccccc1C(=O)O", "CC(=O)Nc1ccc(O)cc1", "C1CCCCCCCCC1"


def score(name: str, text: str, start: str = ASPIRIN) -> float:
    return float(ORACLES[name]([text], [start])[0])


def test_the_judge_is_one():
    judge = MoleculeJudge()
    assert isinstance(judge, TextJudge)
    assert judge.canonical("OC(=O)c1ccccc1OC(C)=O") == ASPIRIN
    assert judge.canonical("c1ccccc") is None
    assert judge.canonical("") is None
    assert set(pickle.loads(pickle.dumps(judge)).oracles) == set(ORACLES)


def test_against_published_values():
    # QED of aspirin: RDKit's documentation. SA scores: aspirin in Ertl and Schuffenhauer's implementation.
    assert score("qed", ASPIRIN) == pytest.approx(0.550, abs=5e-4)
    assert score("logp", ASPIRIN) == pytest.approx(1.310, abs=5e-4)
    assert synthetic_accessibility(parsed(ASPIRIN)) == pytest.approx(1.58, abs=0.01)


def test_penalized_logp_against_its_definition():
    for smiles, ring_excess in ((ASPIRIN, 0), (MACROCYCLE, 4), ("CCCCCC", 0)):
        molecule = Chem.MolFromSmiles(smiles)
        expected = (Descriptors.MolLogP(molecule) - 2.4570953396190123) / 1.434324401111988
        expected -= (synthetic_accessibility(molecule) - 3.0525811293166134) / 0.8335207024513095
        expected -= (ring_excess - 0.0485696876403053) / 0.2860212110245455
        assert score("penalized_logp", smiles) == pytest.approx(expected)


def test_similarity_against_bits_counted_by_hand():
    with rdBase.BlockLogs():  # RDKit calls the older interface deprecated
        one, other = (
            set(AllChem.GetMorganFingerprintAsBitVect(Chem.MolFromSmiles(s), 2, nBits=2048).GetOnBits())
            for s in (ASPIRIN, PARACETAMOL)
        )
    assert tanimoto([PARACETAMOL], [ASPIRIN])[0] == pytest.approx(len(one & other) / len(one | other))
    assert tanimoto([ASPIRIN], [ASPIRIN])[0] == 1.0


def test_the_score_of_molmim():
    similarity = tanimoto([PARACETAMOL], [ASPIRIN])[0]
    expected = min(1, score("qed", PARACETAMOL) / 0.9) + min(1, similarity / 0.4)
    assert score("molmim_qed_with_similarity", PARACETAMOL) == pytest.approx(expected)
    assert score("molmim_qed_with_similarity", ASPIRIN) == pytest.approx(1 + score("qed", ASPIRIN) / 0.9)


@pytest.mark.parametrize("name", sorted(ORACLES))
def test_what_is_no_molecule_has_no_score(name):
    values = ORACLES[name]([ASPIRIN, "C(("], [ASPIRIN, ASPIRIN])
    assert [math.isnan(value) for value in values] == [False, True]
    assert np.asarray(values).dtype == np.float64


def test_a_picture_has_a_place_for_each_molecule(tmp_path):
    sizes = []
    for count in (1, 6, 7):
        path = tmp_path / f"{count}.png"
        MoleculeJudge().draw_grid([ASPIRIN] * count, ["caption"] * count, str(path))
        content = path.read_bytes()
        assert content.startswith(b"\x89PNG")
        sizes.append((int.from_bytes(content[16:20]), int.from_bytes(content[20:24])))
    assert sizes == [(260, 220), (1560, 220), (1560, 440)]
    assert all(one <= other for one, other in pairwise(sizes))
