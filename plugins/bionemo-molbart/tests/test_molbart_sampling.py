"""MegaMolBART and MolMIM in the core's sampling interface and latent search."""

from functools import lru_cache
from types import SimpleNamespace

import numpy as np
import pytest

from bionemo_core.errors import ConfigError, DataError
from bionemo_core.inference.latent_search import ModelLatents, SearchSettings, optimize
from bionemo_core.inference.methods import SAMPLING_METHODS
from bionemo_core.inference.sampling import Seq2SeqInference
from bionemo_core.protocols import BuildContext, TextJudge
from bionemo_molbart import presets
from bionemo_molbart.chemistry import MoleculeJudge

SMILES = ["CCO", "c1ccccc1", "CC(=O)Oc1ccccc1C(=O)O", "C[C@H](N)C(=O)O"]
SMALL = {"num_layers": 2, "hidden_size": 32, "num_attention_heads": 4, "seq_length": 40, "val_molecules": 0}
LATENTS = 2


@lru_cache(maxsize=2)
def inference(name: str) -> tuple[Seq2SeqInference, TextJudge]:
    tokenizer = presets.smiles_vocabulary()
    more = {"hidden_steps": LATENTS} if name == "molmim" else {}
    module = getattr(presets, name)(**SMALL, **more, tokenizer=tokenizer, context=BuildContext()).eval()
    return Seq2SeqInference.of(SimpleNamespace(module=module, tokenizer=tokenizer), max_length=12), module.judge


@pytest.mark.parametrize("method", SAMPLING_METHODS)
@pytest.mark.parametrize("name", ["megamolbart", "molmim"])
def test_every_method_of_v1(name, method):
    model, _ = inference(name)
    texts, embeddings = model.sample(2, True, method, seqs=SMILES, scaled_radius=0.5)
    assert [len(own) for own in texts] == [2] * len(SMILES)
    assert embeddings.shape == (len(SMILES), 1 if method == "beam-search-single-sample" else 2, 32)


def test_hidden_states():
    model, _ = inference("megamolbart")
    hiddens, mask = model.seq_to_hiddens(SMILES)
    assert hiddens.shape[0] == len(SMILES) and mask.sum(dim=1).tolist() == [3, 8, 21, 11]
    model, _ = inference("molmim")
    hiddens, mask = model.seq_to_hiddens(SMILES)
    assert hiddens.shape == (len(SMILES), LATENTS, 32) and mask.all()


def test_the_longest_source_leaves_room_for_the_ends_as_in_v1():
    model, _ = inference("molmim")
    assert model.seq_length == 38
    with pytest.raises(DataError, match="has 39 tokens, but the model takes 1 to 38"):
        model.seq_to_embeddings(["C" * 39])


def test_only_molmim_has_a_latent_space():
    model, judge = inference("molmim")
    assert isinstance(judge, MoleculeJudge)
    assert len(model.sample_prior(3)) == 3
    settings = SearchSettings(population=4, iterations=2)
    found = optimize(ModelLatents(model), SMILES, "qed", judge, settings)
    assert [step.oracle_calls for step in found.best] == [8] * len(SMILES)
    assert found.first[2].score == pytest.approx(0.550, abs=5e-4)  # aspirin
    assert np.isfinite(found.mean_gain)
    with pytest.raises(ConfigError, match="no latent space"):
        ModelLatents(inference("megamolbart")[0])
