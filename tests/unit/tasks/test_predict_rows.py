"""Every row of an input has a row in the predictions, and what was cut or left out is said."""

import csv
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from bionemo_core.data.store.prepare import prepare
from bionemo_core.errors import ConfigError, DataError
from bionemo_core.inference.embedding import Embedder, EmbeddingSettings
from bionemo_core.protocols import BuildContext
from bionemo_core.tasks.embed import _find_long
from bionemo_core.tasks.input_file import read_input
from bionemo_core.tasks.predict import _with_rejected
from bionemo_core.tasks.score import make_scorer, score
from bionemo_core.tasks.settings import Predict
from bionemo_core.tasks.texts import Texts

presets = pytest.importorskip("bionemo_esm.presets")
TABLE = 'mutant,note,score\nA1G,first,0.5\nK99A,far,0.6\nT3G,"with, comma",\nA1\n'


@pytest.fixture(scope="module")
def opened():
    tokenizer = presets.esm1nv_alphabet()
    shape = {"num_layers": 1, "hidden_size": 16, "num_attention_heads": 2, "seq_length": 12}
    torch.manual_seed(0)
    module = presets.esm1nv(**shape, tokenizer=tokenizer, context=BuildContext()).eval()
    return SimpleNamespace(module=module, tokenizer=tokenizer)


@pytest.fixture
def variants(tmp_path: Path) -> Predict:
    path = tmp_path / "v.csv"
    path.write_text(TABLE)
    return Predict(output="", variants=str(path), wild_type="AKTAY", on_invalid="skip")


def test_a_table_of_variants_keeps_its_rows_and_columns(opened, variants, capsys):
    result = score(variants, make_scorer(variants, opened, 4096))
    rows = result.rows
    assert result.header == ["variant", "num_mutations", "score", "note", "score_in_table", "strategy", "rejected"]
    assert [(row[0], row[1], row[3], row[4]) for row in rows] == [
        ("A1G", "1", "first", "0.5"),
        ("K99A", "", "far", "0.6"),
        ("T3G", "1", "with, comma", ""),
        ("", "", "", ""),
    ]
    assert [bool(row[2]) for row in rows] == [True, False, True, False]
    assert "position 99 is not within 1 to 5" in rows[1][6] and "too few columns" in rows[3][6]
    assert [row[5] for row in rows] == ["masked_marginals", "", "masked_marginals", ""]
    assert "2 rows have no score" in capsys.readouterr().out


def test_all_variants_that_cannot_be_used_are_listed(opened, variants):
    task = Predict(output="", variants=variants.variants, wild_type="AKTAY")
    with pytest.raises(DataError, match=r"(?s)v.csv:3: .*K99A.*v.csv:5: too few columns.*task.on_invalid=skip"):
        score(task, make_scorer(task, opened, 4096))
    with pytest.raises(ConfigError, match="expected one of error, skip"):
        task = Predict(output="", variants=variants.variants, wild_type="A", on_invalid="unk")
        score(task, make_scorer(task, opened, 64))


def test_rejected_records_have_a_row_with_their_reason(opened, tmp_path):
    path = tmp_path / "in.fasta"
    path.write_text(">a\nMK\n>b\nM1\n>c\n\n>a\nMT\n")
    task = SimpleNamespace(format=None, sequence_column=None, id_column=None, on_invalid="skip")
    source, rules = read_input(str(path), task, opened.tokenizer)
    store = prepare(source, rules, BuildContext(home=str(tmp_path)))
    rows = ([store.id(row), store[row].decode(), ""] for row in range(len(store)))
    assert list(_with_rejected(rows, source, rules, 3)) == [
        ["a", "MK", ""],
        ["b", "", "residue outside the alphabet: residue '1' at position 2"],
        ["c", "", "empty sequence"],
        ["a", "MT", ""],
    ]


def test_sequences_that_are_cut_are_found_before_anything_is_computed(opened, tmp_path):
    path = tmp_path / "in.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([["id", "sequence"], *(["x", "M" * n] for n in (10, 11, 3))])
    task = SimpleNamespace(format=None, sequence_column=None, id_column=None, on_invalid="skip")
    store = prepare(*read_input(str(path), task, opened.tokenizer), BuildContext(home=str(tmp_path)))
    long = {
        how: _find_long(store, Embedder(opened.module, opened.tokenizer, EmbeddingSettings(on_long=how)))
        for how in ("truncate", "window")
    }
    assert np.array_equal(long["truncate"], [False, True, False])
    assert np.array_equal(long["window"], long["truncate"])
    with pytest.raises(DataError, match="'x' has 11 tokens"):
        _find_long(store, Embedder(opened.module, opened.tokenizer, EmbeddingSettings()))


def test_the_records_that_sampling_leaves_out_have_reasons():
    texts = Texts([], [], {"no molecule": 2, "empty sequence": 1}, 4)
    assert texts.left_out == "3 rejected (no molecule 2, empty sequence 1), 4 too long"
