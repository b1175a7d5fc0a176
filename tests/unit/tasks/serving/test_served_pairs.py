"""A model that was fine-tuned on pairs behind the HTTP interface: the numbers of the Python interface, and refusals."""

import numpy as np
import pytest

from bionemo_core import api
from bionemo_core.errors import ConfigError, DataError

pytest.importorskip("fastapi")

PROTEINS = [("MKTAYIAKQR", "gshmle"), ("MKTAYI", "MKTAYI"), ("M" * 62, "K")]
DRUGS = [("MKTAYIAKQR", "OCC"), ("MKTAYI", "c1ccccc1"), ("M" * 62, "OCC")]


@pytest.fixture(scope="module")
def served_with(protein, molecules):
    """By name a model of pairs, its second model, and pairs that it reads."""
    from served_models import with_head

    from bionemo_core.finetuning.pairs.second_model import second_facts
    from bionemo_core.finetuning.pairs.side_encoder import describe_second

    facts = {"pairs": True, "second": second_facts(molecules)}
    classes = {"classes": ["no", "yes"]}
    return {
        "one encoder": (with_head(protein, "sequence_classification", pairs=True, **classes), None, PROTEINS),
        "frozen": (with_head(protein, "sequence_regression", **facts), molecules, DRUGS),
        "trained": (with_head(protein, "sequence_regression", **facts, **describe_second(molecules)), None, DRUGS),
        "matched": (with_head(protein, "pair_matching", pairs=True), None, PROTEINS),
    }


@pytest.mark.parametrize("kind", ["one encoder", "frozen", "trained", "matched"])
def test_the_numbers_of_the_python_interface(start, served_with, kind):
    model, second, pairs = served_with[kind]
    here = start(model, second=second)
    found = here.post("predict", {"pairs": pairs})
    expected = api.predict(model, pairs, second_model=second)
    assert np.array_equal(np.array(found["predictions"], np.float32), np.array(expected))
    assert not np.allclose(expected[0], expected[1])
    assert len(found["rows"]) == 3 and found["columns"][0] == "prediction"
    if kind == "one encoder":
        assert found["columns"] == ["prediction", "p_no", "p_yes"]
        assert [row[0] for row in found["rows"]] == [["no", "yes"][one[0].argmax()] for one in expected]
    about = here.client.get("/v1/model").json()
    assert about["reads_pairs"] and "predict" in about["offers"]


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({"sequences": ["MK"]}, 400, "the model reads pairs of sequences. Give pairs"),
        ({}, 400, "give either sequences or pairs"),
        ({"sequences": ["MK"], "pairs": [["MK", "MK"]]}, 400, "give either sequences or pairs"),
        ({"pairs": []}, 422, "pairs"),
        ({"pairs": [["MK"]]}, 422, "pairs.0"),
        ({"pairs": [["MK", "MK", "MK"]]}, 422, "pairs.0"),
        ({"pairs": [["MK", "MK"], ["MK", "M7"]]}, 422, "second sequence 2: "),
        ({"pairs": [["MK", ""]]}, 422, "second sequence 1: "),
        ({"pairs": [["M7", "MK"]]}, 422, 'Leave it out, or keep it with "on_invalid": "unk".'),
        ({"pairs": [["MK", "M" * 63]]}, 422, "tokens, but the model takes"),
        ({"pairs": [["MK", "M" * 101]]}, 413, "second sequence 1: has 101 letters"),
        ({"pairs": [["MK", "MK"]] * 5}, 413, "first sequences: got 5 in one request"),
    ],
)
def test_refusals(start, served_with, body, status, words):
    here = start(served_with["one encoder"][0], max_sequences=4, max_length=100)
    assert words in here.post("predict", body, status)["error"]["message"]


def test_options(start, served_with):
    here = start(served_with["one encoder"][0])
    both = [["M" * 62, "MK"], ["MKTAY", "MK"]]
    longer = here.post("predict", {"pairs": [["M" * 70, "MK"]], "on_long": "truncate"})["predictions"]
    assert np.allclose(longer[0], here.post("predict", {"pairs": both})["predictions"][0], atol=1e-6)
    unknown = {"pairs": [["M7", "MK"]], "on_invalid": "unk"}
    assert here.post("predict", unknown)["predictions"][0] != longer[0]


def test_a_model_of_single_sequences_reads_no_pairs(start, finetuned_model):
    here = start(finetuned_model)
    message = here.post("predict", {"pairs": [["MK", "MK"]]}, 400)["error"]["message"]
    assert "the model reads single sequences. Give sequences." in message
    assert not here.client.get("/v1/model").json()["reads_pairs"]
    with pytest.raises(DataError, match="the model reads single sequences"):
        api.predict(finetuned_model, [("MK", "MK")])
    with pytest.raises(DataError, match="got one text"):
        api.predict(finetuned_model, "MK")
    with pytest.raises(ConfigError, match="not used by a model that reads single sequences"):
        api.predict(finetuned_model, ["MK"], second_model="x")


def test_python_names_what_is_no_pair(served_with):
    model, second, pairs = served_with["frozen"]
    with pytest.raises(DataError, match="pair 2: expected two sequences"):
        api.predict(model, [pairs[0], "MK"], second_model=second)
    with pytest.raises(DataError, match="pair 1: expected two sequences"):
        api.predict(model, [None], second_model=second)
    with pytest.raises(ConfigError, match="another model read the second sequences"):
        api.predict(model, pairs)
