"""A home that cannot be written is no hindrance where results lie elsewhere; where it is, the key to set is named."""

from pathlib import Path

import pytest

from bionemo_core import cli

pytest.importorskip("bionemo_molbart")

COMMON = ("trainer.accelerator=cpu", "trainer.progress_bar=false", "trainer.num_threads=1", "batch.num_workers=0")
SMALL = ("model.num_layers=1", "model.hidden_size=32", "model.num_attention_heads=2", *COMMON)
PROTEIN, MOLECULE = ("model=esm1nv_tiny", *SMALL), ("model=molmim_xsmall", *SMALL)
OPTIMIZE = (
    "task=optimize",
    *MOLECULE,
    "task.input=m.csv",
    "task.oracle=qed",
    "task.iterations=1",
    "task.picture=false",
)
SAMPLE = ("task=sample", *MOLECULE, "task.input=m.csv", "task.picture=0")
NO_NEED = {
    "embed": ("task=embed", *PROTEIN, "task.input=p.csv", "task.output=result.npz"),
    "predict": ("task=predict", *PROTEIN, "task.variants=v.csv", "task.wild_type=MKTA", "task.output=result.csv"),
    "evaluate": (
        "task=evaluate",
        *PROTEIN,
        "task.output=result",
        "data=fasta",
        "data.path=p.fasta",
        "task.split=train",
    ),
    "sample": (*SAMPLE, "task.output=result"),
    "optimize": (*OPTIMIZE, "task.output=result"),
}
NEED = {
    "train": (*PROTEIN, "trainer.max_steps=1"),
    "prepare": ("task=prepare", "model=esm1nv_tiny"),
    "sample": SAMPLE,
    "optimize": OPTIMIZE,
}


COMPUTES = ("embedding.Embedder.run", "scoring.MaskedScorer.answer_group", "sampling.Seq2SeqInference._decode")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BIONEMO_HOME", "/dev/null/home")
    monkeypatch.chdir(tmp_path)
    Path("p.csv").write_text("id,sequence\na,MKTAYI\nb,MKV\n")
    Path("p.fasta").write_text("".join(f">{row}\nMKTAYI{letter}\n" for row, letter in enumerate("AVLKICRS")))
    Path("m.csv").write_text("id,smiles\na,CCO\nb,CCN\n")
    Path("v.csv").write_text("mutant\nK2R\n")
    return tmp_path


@pytest.mark.parametrize("task", NO_NEED)
def test_what_has_its_own_output_does_without(task, capsys):
    assert cli.main([*NO_NEED[task]]) == 0, capsys.readouterr().err
    assert list(Path().glob("result*"))


@pytest.mark.parametrize("task", NEED)
def test_what_needs_a_home_names_the_keys(task, capsys):
    assert cli.main([*NEED[task]]) == 7
    said = capsys.readouterr().err
    assert "home=FOLDER" in said and "BIONEMO_HOME" in said
    assert ("task.output=FOLDER" in said) == (task in NO_NEED)


@pytest.mark.parametrize("task", ["embed", "predict", "evaluate", "sample", "optimize"])
def test_an_output_that_cannot_be_written_is_found_before_the_work(task, capsys, monkeypatch):
    def compute(*arguments, **options):
        raise AssertionError("it computes")

    for name in COMPUTES:
        monkeypatch.setattr(f"bionemo_core.inference.{name}", compute)
    command = [one.replace("task.output=result", "task.output=/dev/null/result") for one in NO_NEED[task]]
    assert cli.main(command) == 7
    assert "/dev/null" in capsys.readouterr().err
