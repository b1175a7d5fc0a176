"""Molecules that are read for use: their spelling does not matter, and what is none is said."""

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from bionemo_core.builtin import load_registry
from bionemo_core.data.labelled_records import LabelledRecord, LabelledRecords
from bionemo_core.data.sources.labelled import labelled_csv
from bionemo_core.data.store.report import count_summary
from bionemo_core.data.store.text_filter import clean_texts
from bionemo_core.errors import DataError
from bionemo_core.finetuning.label_spec import LabelSpec
from bionemo_core.finetuning.model import finetuned
from bionemo_core.finetuning.model.params import FineTunedParams
from bionemo_core.finetuning.objective import LabelObjective
from bionemo_core.inference.embedding import Embedder, embed
from bionemo_core.inference.latent_search import ModelLatents
from bionemo_core.inference.sampling import Seq2SeqInference
from bionemo_core.protocols import BuildContext, CanonicalForm, InputForm
from bionemo_core.tasks.input_file import open_input
from bionemo_core.tasks.settings import Optimize
from bionemo_molbart import presets
from bionemo_molbart.molecules import scaffold
from bionemo_molbart.tokenizer import molbart_tokenizer

TOKENIZER = molbart_tokenizer()
ASPIRIN = b"CC(=O)Oc1ccccc1C(=O)O"
TABLE = "OC(=O)C1=CC=CC=C1OC(C)=O a\nOCC b\nC1CC c\nCCO d\n"


def opened(folder: Path, **keys: object):
    path = folder / "mine.smi"
    path.write_text(TABLE)
    usual = {"format": None, "sequence_column": None, "id_column": None, "on_invalid": "error", "canonicalize": True}
    return open_input(str(path), SimpleNamespace(**{**usual, **keys}), TOKENIZER, BuildContext(home=str(folder)))


def test_spellings_of_one_molecule_are_read_as_one(tmp_path: Path) -> None:
    store = opened(tmp_path, on_invalid="skip")
    assert [store[row] for row in range(len(store))] == [ASPIRIN, b"CCO", b"CCO"]
    assert [str(store.id(row)) for row in range(3)] == ["a", "b", "d"]
    assert store.manifest["records"]["rejected"] == {"no molecule": 1}
    as_they_stand = opened(tmp_path, canonicalize=False)
    assert [as_they_stand[row] for row in range(4)] == [line.split()[0].encode() for line in TABLE.splitlines()]
    assert as_they_stand.fingerprint != store.fingerprint


def test_what_is_no_molecule_is_named(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"mine\.smi:3 record 'c': 'C1CC' is not SMILES\. Skip .* task\.on_invalid=skip"
    ):
        opened(tmp_path)
    kept = opened(tmp_path, on_invalid="unk")
    assert kept[2] == b"C1CC" and kept.manifest["records"]["notes"] == {"no molecule, kept as it stands": 1}


def test_a_search_starts_from_molecules_or_says_what_is_none(tmp_path: Path) -> None:
    path = tmp_path / "mine.smi"
    path.write_text(TABLE)
    task = Optimize(input=str(path), oracle="qed")
    with pytest.raises(DataError, match=r"mine\.smi:3 record 'c': 'C1CC' is not SMILES"):
        open_input(task.input, task, TOKENIZER, BuildContext(home=str(tmp_path)))
    task = replace(task, on_invalid="skip")
    store = open_input(task.input, task, TOKENIZER, BuildContext(home=str(tmp_path)))
    assert count_summary(store.manifest["records"]) == "read 4 = used 3 + rejected 1 (no molecule 1)"


def test_labelled_molecules(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = [line.split()[0] for line in TABLE.splitlines()] * 10
    path = tmp_path / "values.csv"
    path.write_text("smiles,value\n" + "".join(f"{smiles},{number}\n" for number, smiles in enumerate(rows)))
    columns = {"sequence_column": "smiles", "target_column": "value"}
    with caplog.at_level(logging.WARNING, logger="bionemo"):
        splits = labelled_csv(str(path), **columns, tokenizer=TOKENIZER, context=BuildContext())
    found = [text for part in splits.parts().values() for text in part.sequences]
    assert sorted(found) == sorted([ASPIRIN, b"CCO", b"CCO"] * 10)
    assert "read 40 = used 30 + rejected 10 (no molecule 10" in caplog.text


def test_labelled_molecules_of_one_scaffold_lie_in_one_split(tmp_path: Path) -> None:
    path = tmp_path / "values.csv"
    rings = ["c1ccccc1", "C1CCCCC1", "c1ccncc1", "C1CCNCC1", "C1CC1", "C1CCC1", "c1ccoc1", "c1ccsc1", "C1COC1", "C1CN1"]
    path.write_text("smiles,value\n" + "".join(f"{'C' * n}{ring},{n}\n" for ring in rings for n in range(3)))
    columns = {"sequence_column": "smiles", "target_column": "value", "clusters": "scaffold"}
    splits = labelled_csv(str(path), **columns, tokenizer=TOKENIZER, context=BuildContext())
    parts = [{scaffold(text) for text in part.sequences} for part in splits.parts().values()]
    assert [len(part) for part in splits.parts().values()] == [24, 3, 3]
    assert [len(part) for part in parts] == [8, 1, 1] and len(set.union(*parts)) == 10


def test_texts_of_a_list() -> None:
    assert isinstance(TOKENIZER.canonical, CanonicalForm)
    assert clean_texts(TOKENIZER, ["OCC", b"C(O)C"]) == [b"CCO", b"CCO"]
    for text, message in (
        ("C1CC", r"sequence 2: no molecule: 'C1CC' is not SMILES\. Leave it out\."),
        ("CCO x", "has white space within"),
    ):
        with pytest.raises(DataError, match=message):
            clean_texts(TOKENIZER, ["CCO", text])
    assert np.array_equal(TOKENIZER.encode(clean_texts(TOKENIZER, ["OCC"])[0]), TOKENIZER.encode("CCO"))


@pytest.fixture(scope="module")
def small() -> SimpleNamespace:
    """Return a small MolMIM with random weights and its tokenizer."""
    sizes = {"num_layers": 1, "hidden_size": 32, "num_attention_heads": 2, "hidden_steps": 2, "seq_length": 64}
    return SimpleNamespace(
        module=presets.molmim(**sizes, tokenizer=TOKENIZER, context=BuildContext()).eval(), tokenizer=TOKENIZER
    )


def routes(opened: SimpleNamespace) -> dict[str, Callable[[list[str]], object]]:
    """Return the ways from SMILES in Python to an answer, which is the same for every spelling."""
    model = Seq2SeqInference.of(opened, max_length=12)
    return {
        "embed": lambda texts: embed(opened.module, TOKENIZER, texts).tolist(),
        "seq_to_embeddings": lambda texts: model.seq_to_embeddings(texts).tolist(),
        "seq_to_hiddens": lambda texts: model.seq_to_hiddens(texts)[0].tolist(),
        "sample": lambda texts: model.sample(2, seqs=texts),
        "interpolate_samples": lambda texts: model.interpolate_samples(texts[0], texts[-1], 3),
        "latents": lambda texts: ModelLatents(model).encode(texts).tolist(),
    }


@pytest.mark.parametrize(
    "route", ["embed", "seq_to_embeddings", "seq_to_hiddens", "sample", "interpolate_samples", "latents"]
)
def test_every_way_from_python_reads_molecules_as_the_command_does(small: SimpleNamespace, route: str) -> None:
    ask = routes(small)[route]
    assert ask(["OCC", "C(O)C"]) == ask(["CCO", "CCO"])
    for text, message in (
        ("notasmiles", r"sequence 2: no molecule: 'notasmiles' is not SMILES\. Leave it out"),
        ("C1CC", r"sequence 2: no molecule: 'C1CC' is not SMILES"),
        ("[U]O", r"sequence 2: token outside the vocabulary: '.*': token 2 '\[U\]' is not among the .*523 tokens"),
        ("", "sequence 2: empty sequence"),
    ):
        with pytest.raises(DataError, match=message):
            ask(["CCO", text])


def test_texts_that_a_task_has_read_are_not_read_again(small: SimpleNamespace) -> None:
    model = Seq2SeqInference.of(small, clean=False)
    assert not torch.equal(model.seq_to_embeddings(["OCC"]), model.seq_to_embeddings(["CCO"]))
    with pytest.raises(DataError, match=r"sequence 8 .* has 70 tokens"):
        model.sample(seqs=["C", "C" * 70], first_sequence=6)


def test_every_use_takes_molecules_as_long_as_training_does(small: SimpleNamespace, tmp_path: Path) -> None:
    longest = small.module.objective.max_tokens
    assert longest == 62  # BOS and EOS of the decoder take the others of seq_length
    model = Seq2SeqInference.of(small)
    for ask in (lambda texts: embed(small.module, TOKENIZER, texts), model.seq_to_embeddings):
        assert len(ask(["C" * longest])) == 1
        with pytest.raises(DataError, match=r"63 tokens, but the model takes (1 to )?62"):
            ask(["C" * (longest + 1)])
    # In a fine-tuned model too, whose objective is another.
    registry = load_registry()
    made = [registry.get("model", "molmim"), registry.get("head", "mlp")]
    sizes = {"num_layers": 1, "hidden_size": 32, "num_attention_heads": 2, "hidden_steps": 2, "seq_length": 64}
    encoder, head = (
        {"name": one.name, "params": params, "distribution": one.distribution, "version": one.version}
        for one, params in zip(made, (sizes, {}), strict=True)
    )
    tuned = finetuned(
        FineTunedParams(encoder, "sequence_regression", head),
        tokenizer=TOKENIZER,
        context=BuildContext(),
        registry=registry,
    )
    assert Embedder(tuned, TOKENIZER).long_rule.max_residues == longest
    labelled = LabelledRecords(("a", "b"), (b"C" * 62, b"C" * 63), ("1", "2"), (), np.arange(2))
    assert len(tuned.objective.record_example(labelled[0]).tokens) == longest
    with pytest.raises(DataError, match="has 63 tokens, too many"):
        tuned.objective.record_example(labelled[1])


def test_molecules_are_said_to_have_tokens(caplog: pytest.LogCaptureFixture) -> None:
    records = LabelledRecords(("a", "b"), (b"[nH]1cccc1", b"C" * 9), ("1", "2"), (), np.arange(2))
    with caplog.at_level(logging.WARNING, logger="bionemo"):
        assert records.drop_longer(7, "train", TOKENIZER).ids == ("a",)
    assert "longer than the model's limit of 7 tokens" in caplog.text
    per_token = LabelObjective(TOKENIZER, LabelSpec("token_regression"), form=InputForm(), seq_length=24)
    with pytest.raises(DataError, match="3 tokens, 2 labels"):
        per_token.record_example(LabelledRecord(0, b"CCO", "1 2", ""))
