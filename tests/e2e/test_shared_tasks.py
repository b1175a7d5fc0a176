"""Tasks on two ranks against one: the same rows, and no file under its final name where a rank fails."""

from pathlib import Path

import pytest
from runs import Home

pytest.importorskip("bionemo_esm")

COMMON = ("trainer.num_threads=1", "trainer.accelerator=cpu", "trainer.progress_bar=false")
TWO = "trainer.devices=2"
PROTEIN = "MKTAYIAKQRQISFVK"
ESM = ("model=esm1nv_tiny", "model.num_layers=1", "model.hidden_size=16", "model.num_attention_heads=2")


def score(home: Home, output: Path, *arguments: str) -> str:
    return home.command("task=predict", *ESM, *COMMON, "task.tokens_per_batch=40", f"task.output={output}", *arguments)


def test_two_ranks_score_as_one(home, tmp_path):
    (tmp_path / "v.csv").write_text("mutant\nM1A\nK2R:T3S\nY5del\nT3_Y5del\n")
    variants = (f"task.variants={tmp_path / 'v.csv'}", f"task.wild_type={PROTEIN}")
    score(home, tmp_path / "one.csv", *variants)
    said = score(home, tmp_path / "two.csv", *variants, TWO)
    assert (tmp_path / "two.csv").is_file(), said
    assert (tmp_path / "two.csv").read_text() == (tmp_path / "one.csv").read_text()
    assert said.count("rows") == 1


def test_what_another_rank_meets_is_said_and_leaves_no_file(home, tmp_path):
    (tmp_path / "p.fasta").write_text(f">a\n{PROTEIN}\n")
    typed = (f"task.input={tmp_path / 'p.fasta'}", "task.scoring=masked_marginals", TWO)
    said = score(home, tmp_path / "out.csv", *typed)
    assert "error[config]: task.scoring=masked_marginals: compares variants" in said
    assert {path.name for path in tmp_path.iterdir()} == {"p.fasta"}
