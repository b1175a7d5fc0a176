"""Scores of variants and sequences against Hugging Face `EsmForMaskedLM`, one sequence at a time, in float32."""

import csv
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from bionemo_core import cli
from bionemo_core.builtin import load_registry
from bionemo_core.errors import DataError
from bionemo_core.models.load import open_model
from bionemo_core.tasks.score import make_scorer, score
from bionemo_core.tasks.settings import Predict

transformers = pytest.importorskip("transformers")

LETTERS = dict(zip("LAGVSERTIDPKQNFYMHWCXBUZO", range(4, 29), strict=True))
WILD = "MKTAYIAKQRQISFVKSHFSRQ"
LIMIT = 30
"""The residues that the model takes."""
LONG = WILD + "GLEERLWCDNPTQ"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Any:
    torch.manual_seed(0)
    config = transformers.EsmConfig(
        vocab_size=33,
        pad_token_id=1,
        mask_token_id=32,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        max_position_embeddings=LIMIT + 4,
        position_embedding_type="rotary",
        emb_layer_norm_before=False,
        token_dropout=True,
    )
    theirs = transformers.EsmForMaskedLM(config).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    folder = tmp_path_factory.mktemp("theirs") / "esm"
    theirs.save_pretrained(folder)
    ours = open_model(str(folder), load_registry())
    ours.module.eval()
    assert ours.module.seq_length == LIMIT + 2
    return SimpleNamespace(theirs=theirs, ours=ours, folder=folder)


@pytest.fixture
def write(tmp_path: Path) -> Any:
    def write(name: str, text: str) -> str:
        (tmp_path / name).write_text(text)
        return str(tmp_path / name)

    return write


@torch.no_grad()
def log_p(models: Any, sequence: str, masked: tuple[int, ...] = ()) -> np.ndarray:
    ids = [0, *(LETTERS[letter] for letter in sequence), 2]
    for position in masked:
        ids[position + 1] = 32
    logits = models.theirs(input_ids=torch.tensor([ids]), attention_mask=torch.ones(1, len(ids)).long()).logits
    return logits[0, 1:-1].double().log_softmax(-1).numpy()


def pll(models: Any, sequence: str) -> float:
    return sum(log_p(models, sequence, (at,))[at, LETTERS[letter]] for at, letter in enumerate(sequence))


def scores_of(models: Any, **keys: Any) -> list[dict[str, str]]:
    task = Predict(output="", **keys)
    table = score(task, make_scorer(task, models.ours, 200))
    return [dict(zip(table.header, row, strict=True)) for row in table.rows]


def ratio(table: np.ndarray, at: int, before: str, after: str) -> float:
    return float(table[at, LETTERS[after]] - table[at, LETTERS[before]])


def test_each_strategy_is_the_one_of_the_literature(models, write):
    path = write("v.csv", "mutant\nK2R\nT3V:Q9A\nWT\n")
    mutants = [WILD.replace("MKT", "MRT"), "MKVAYIAKARQISFVKSHFSRQ", WILD]
    changes = [[(1, "K", "R")], [(2, "T", "V"), (8, "Q", "A")], []]
    expected = {
        "masked_marginals": [
            sum(ratio(log_p(models, WILD, tuple(at for at, _, _ in own)), *one) for one in own) for own in changes
        ],
        "wild_type_marginals": [sum(ratio(log_p(models, WILD), *one) for one in own) for own in changes],
        "mutant_marginals": [
            sum(ratio(log_p(models, mutant), *one) for one in own) for own, mutant in zip(changes, mutants, strict=True)
        ],
        "pseudo_log_likelihood": [pll(models, mutant) - pll(models, WILD) for mutant in mutants],
        "pseudo_perplexity": [pll(models, mutant) / 22 - pll(models, WILD) / 22 for mutant in mutants],
    }
    aliases = {"masked_marginals": "masked-marginals", "wild_type_marginals": "wt-marginals"}
    for strategy, wanted in expected.items():
        rows = scores_of(models, variants=path, wild_type=WILD, scoring=aliases.get(strategy, strategy))
        assert np.allclose([float(row["score"]) for row in rows], wanted, atol=2e-5), strategy
        assert {row["strategy"] for row in rows} == {strategy}


def test_insertions_and_deletions_are_scored_by_the_likelihood_of_whole_sequences(models, write):
    texts = ["p.Lys2del", "p.Lys2_Thr3insGlnTrp", "p.K2delinsQQ", "p.[Lys2Ala;Gln9_Arg10del]", "p.Ala4dup", "K2R"]
    mutants = ["M" + WILD[2:], "MKQW" + WILD[2:], "MQQ" + WILD[2:], "MA" + WILD[2:8] + WILD[10:]]
    mutants += ["MKTAA" + WILD[4:], "MR" + WILD[2:]]
    path = write("v.csv", "mutant,note\n" + "".join(f"{text},n\n" for text in texts))
    by_name = scores_of(models, variants=path, wild_type=WILD)
    whole = write("w.csv", "mutated_sequence,note\n" + "".join(f"{text},n\n" for text in mutants))
    by_sequence = scores_of(models, variants=whole, wild_type=WILD)
    expected = [pll(models, mutant) - pll(models, WILD) for mutant in mutants]
    for rows in (by_name, by_sequence):
        assert np.allclose([float(row["score"]) for row in rows], expected, atol=5e-5)
        assert {row["strategy"] for row in rows} == {"pseudo_log_likelihood"}
    per_residue = scores_of(models, variants=path, wild_type=WILD, scoring="pseudo_perplexity")
    means = [pll(models, mutant) / len(mutant) - pll(models, WILD) / len(WILD) for mutant in mutants]
    assert np.allclose([float(row["score"]) for row in per_residue], means, atol=5e-6)
    kept = scores_of(models, variants=path, wild_type=WILD, scoring="masked_marginals", on_invalid="skip")
    assert [bool(row["score"]) for row in kept] == [False] * 5 + [True]
    assert "has no marginals. Set task.scoring=pseudo_log_likelihood" in kept[0]["rejected"]
    assert [row["note"] for row in kept] == ["n"] * 6


def test_a_long_protein_is_scored_by_a_window_around_the_mutation(models, write, capsys):
    number, letter = 18, LONG[17]
    path = write("v.csv", f"mutant\n{letter}{number}A\nM1A:{LONG[-1]}{len(LONG)}W\n")
    with pytest.raises(DataError, match=r"Set task\.on_long=window"):
        scores_of(models, variants=path, wild_type=LONG)
    for strategy, hidden in (("masked_marginals", True), ("wild_type_marginals", False)):
        first, both = scores_of(models, variants=path, wild_type=LONG, on_long="window", scoring=strategy)
        table = log_p(models, LONG[2:32], (15,) if hidden else ())
        assert float(first["score"]) == pytest.approx(ratio(table, 15, letter, "A"), abs=2e-5)
        start, end = (log_p(models, LONG[:30], (0,) * hidden), log_p(models, LONG[5:], (29,) * hidden))
        expected = ratio(start, 0, "M", "A") + ratio(end, 29, LONG[-1], "W")
        assert float(both["score"]) == pytest.approx(expected, abs=2e-5)
        assert (first["window"], both["window"]) == ("3-32", "1-30;6-35")
    assert "2 scored, 0 rejected, 2 by windows of 30 residues" in capsys.readouterr().out
    longer = write("i.csv", f"mutant\np.{letter}{number}delins{'W' * 4}\nM1del:p.{LONG[-1]}{len(LONG)}del\n")
    keys = {"wild_type": LONG, "on_long": "window", "on_invalid": "skip"}
    inserted, wide = scores_of(models, variants=longer, **keys)
    mutant = LONG[:17] + "WWWW" + LONG[18:]
    assert inserted["window"] == "5-31"  # 30 residues of the variant are 27 of the wild type
    expected = pll(models, mutant[4:34]) - pll(models, LONG[4:31])
    assert float(inserted["score"]) == pytest.approx(expected, abs=1e-4)
    assert "span 35, but the model takes 30" in wide["rejected"]


def test_the_likelihood_of_each_sequence_of_a_file(models, write, tmp_path):
    path = write("in.csv", f"id,sequence,note\na,{WILD},x\nb,MK1,y\nc,MKTA,z\nd,{LONG},w\n")
    keys = {"input": path, "scoring": "pseudo_log_likelihood", "on_invalid": "skip"}
    rows = scores_of(models, **keys, on_long="window")
    assert [row["note"] for row in rows] == ["x", "y", "z", "w"]
    for row, text in zip(rows, (WILD, None, "MKTA"), strict=False):
        if text is None:
            assert (row["pseudo_log_likelihood"], row["strategy"]) == ("", "")
            assert "residue '1'" in row["rejected"]
        else:
            total = pll(models, text)
            assert float(row["pseudo_log_likelihood"]) == pytest.approx(total, abs=5e-5)
            assert float(row["pseudo_perplexity"]) == pytest.approx(np.exp(-total / len(text)), rel=1e-5)
    total = 0.0
    for at, letter in enumerate(LONG):
        start = min(max(at - 15, 0), 5)
        total += log_p(models, LONG[start : start + 30], (at - start,))[at - start, LETTERS[letter]]
    assert float(rows[3]["pseudo_log_likelihood"]) == pytest.approx(total, abs=5e-5)
    assert [row["window"] for row in rows] == ["", "", "", "30"]
    assert "35 residues, but the model takes 30" in scores_of(models, **keys)[3]["rejected"]
    with pytest.raises(DataError, match=r"'d' has 35 residues.*task\.on_long=window"):
        scores_of(models, input=write("d.csv", f"id,sequence\nd,{LONG}\n"), scoring="pseudo_log_likelihood")


def test_a_scan_is_a_table_and_a_picture_of_every_substitution(models, tmp_path, monkeypatch):
    monkeypatch.setenv("BIONEMO_HOME", str(tmp_path / "home"))
    output = tmp_path / "scan.csv"
    command = ["task=predict", f"restore_from_path={models.folder}", "task.scan=true", f"task.wild_type={WILD}"]
    command += [f"task.output={output}", "task.first_position=101", "trainer.accelerator=cpu", "trainer.num_threads=1"]
    assert cli.main(command) == 0
    with output.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["position"] for row in rows] == [str(101 + at) for at in range(22)]
    for at, row in enumerate(rows):
        table = log_p(models, WILD, (at,))
        for letter in "ACDEFGHIKLMNPQRSTVWY":
            assert float(row[letter]) == pytest.approx(ratio(table, at, WILD[at], letter), abs=2e-5)
    assert output.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    facts = json.loads(Path(f"{output}.json").read_text())
    assert (facts["strategy"], facts["weights"], facts["scored"]) == ("masked_marginals", "esm", 22 * 19)


def test_a_proteingym_file_is_one_command(models, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("BIONEMO_HOME", str(tmp_path / "home"))
    reference = tmp_path / "DMS_substitutions.csv"
    reference.write_text(f"DMS_id,DMS_filename,target_seq\nOTHER,OTHER.csv,MMM\nMINE_2024,MINE_2024.csv,{WILD}\n")
    rng = np.random.default_rng(0)
    variants = [(at, "ACDE"[at % 4]) for at in range(22) if WILD[at] != "ACDE"[at % 4]]
    measured = rng.normal(size=len(variants)).round(3)
    (tmp_path / "MINE_2024.csv").write_text(
        "mutant,mutated_sequence,DMS_score,DMS_score_bin\n"
        + "".join(
            f"{WILD[at]}{at + 1}{to},{WILD[:at]}{to}{WILD[at + 1 :]},{value},{int(value > 0)}\n"
            for (at, to), value in zip(variants, measured, strict=True)
        )
        + "Q99A,,0.5,1\n"
    )
    output = tmp_path / "scores.csv"
    command = ["task=predict", f"restore_from_path={models.folder}", f"task.variants={tmp_path / 'MINE_2024.csv'}"]
    command += [f"task.wild_type={reference}", f"task.output={output}", "task.on_invalid=skip"]
    assert cli.main([*command, "trainer.accelerator=cpu", "trainer.num_threads=1"]) == 0
    with output.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert list(rows[0])[3:6] == ["mutated_sequence", "DMS_score", "DMS_score_bin"]
    assert rows[-1]["rejected"]
    got = np.array([float(row["score"]) for row in rows[:-1]])
    expected = [ratio(log_p(models, WILD, (at,)), at, WILD[at], to) for at, to in variants]
    assert np.allclose(got, expected, atol=2e-5)
    facts = json.loads(Path(f"{output}.json").read_text())
    ranks = [side.argsort().argsort() for side in (got, measured)]
    assert facts["metrics"]["spearman"] == pytest.approx(np.corrcoef(*ranks)[0, 1])
    above, below = got[measured > 0], got[measured <= 0]
    assert facts["metrics"]["auc"] == pytest.approx((above[:, None] > below[None]).mean())
    predicted = (got >= np.median(got)).astype(float)
    assert facts["metrics"]["mcc"] == pytest.approx(np.corrcoef(predicted, measured > 0)[0, 1])
    assert f"{len(variants)} variants" in capsys.readouterr().out
    assert (facts["scored"], facts["rejected"], facts["measured"]) == (len(variants), 1, "DMS_score")
