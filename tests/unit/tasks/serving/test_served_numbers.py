"""A served model has the numbers of the Python interface, bit by bit for a request that is computed alone."""

import base64

import numpy as np
import pytest

from bionemo_core import api

pytest.importorskip("fastapi")

SEQUENCES = ["MKTAYIAKQR", "gshmle", "M" * 62]


def array(value: object) -> np.ndarray:
    if isinstance(value, dict):
        return np.frombuffer(base64.b64decode(value["base64"]), value["dtype"]).reshape(value["shape"])
    return np.array(value, dtype=np.float32)


@pytest.mark.parametrize("encoding", ["json", "base64"])
@pytest.mark.parametrize("settings", [{}, {"pooling": "max"}, {"layers": [0]}], ids=str)
def test_embeddings(start, protein, encoding, settings):
    expected = api.embed(protein, SEQUENCES, **settings)
    body = {"sequences": SEQUENCES, "encoding": encoding, **settings}
    (found,) = start(protein).post("embed", body)["outputs"].values()
    assert np.array_equal(np.stack([array(one) for one in found]), expected)


def test_values_of_residues(start, protein):
    outputs = ["hiddens", "log_likelihoods", "logits", "embeddings"]
    found = start(protein).post("embed", {"sequences": SEQUENCES, "outputs": outputs})["outputs"]
    assert list(found) == outputs
    for text, hiddens, likelihoods, mean in zip(
        SEQUENCES, found["hiddens"], found["log_likelihoods"], found["embeddings"], strict=True
    ):
        assert array(hiddens).shape == (len(text), 32) and array(likelihoods).shape == (len(text),)
        assert np.allclose(array(hiddens).mean(axis=0), mean, atol=1e-5)


@pytest.mark.parametrize("scoring", [None, "wild_type_marginals", "pseudo_log_likelihood"])
def test_scores_of_variants(start, protein, scoring):
    variants = ["K2A", "K2A:T3S", "WT"]
    options = {} if scoring is None else {"scoring": scoring}
    expected = api.score(protein, variants, wild_type=SEQUENCES[0], **options)
    found = start(protein).post("score", {"wild_type": SEQUENCES[0], "variants": variants, **options})
    assert found["scores"] == expected.tolist()
    assert found["scoring"] == (scoring or "masked_marginals")


def test_a_deletion_chooses_its_strategy(start, protein):
    found = start(protein).post("score", {"wild_type": SEQUENCES[0].lower(), "variants": ["p.Lys2del", "K2A"]})
    expected = api.score(protein, ["p.Lys2del", "K2A"], wild_type=SEQUENCES[0], scoring="pseudo_log_likelihood")
    assert (found["scores"], found["scoring"]) == (expected.tolist(), "pseudo_log_likelihood")


def test_likelihoods_of_sequences(start, protein):
    found = start(protein).post("score", {"sequences": SEQUENCES[:2]})
    assert found["scores"] == api.score(protein, SEQUENCES[:2]).tolist()


def test_predictions(start, finetuned_model):
    found = start(finetuned_model).post("predict", {"sequences": SEQUENCES})
    expected = api.predict(finetuned_model, SEQUENCES)
    assert all(np.array_equal(array(got), one) for got, one in zip(found["predictions"], expected, strict=True))
    assert found["columns"] == ["prediction"] and len(found["rows"]) == 3
    classes = finetuned_model.module.answers.classes
    assert found["classes"] == list(classes)
    if classes:
        assert found["rows"][0] == ["".join(classes[at] for at in expected[0].argmax(-1))]


def test_molecules(start, molecules):
    here, texts = start(molecules), ["OCC", "c1ccccc1"]
    inference = here.served.texts.inference()
    assert here.post("sample", {"texts": texts, "num_samples": 3, "seed": 7})["samples"] == api.sample(
        molecules, texts, num_samples=3, seed=7
    )
    assert here.post("sample", {"num_samples": 2})["samples"] == api.sample(molecules, num_samples=2)
    options = {"sampling_method": "topkp-perturbate", "top_k": 3, "temperature": 2.0}
    assert here.post("sample", {"texts": texts, **options})["samples"] == api.sample(molecules, texts, **options)
    between = here.post("interpolate", {"first": "CCO", "second": "CCN", "num_interpolations": 3})["samples"]
    assert between == inference.interpolate_samples("CCO", "CCN", 3)
    hiddens = here.post("encode", {"texts": texts})["hiddens"]
    assert np.array_equal(np.array(hiddens, np.float32), inference.seq_to_hiddens(texts)[0].detach().numpy())
    decoded = here.post("decode", {"hiddens": hiddens})["texts"]
    assert decoded == inference.hiddens_to_seq(*inference.seq_to_hiddens(texts))
