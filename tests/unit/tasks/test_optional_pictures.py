"""A picture that cannot be drawn or written costs a warning: the results are there, and the status is 0."""

from pathlib import Path
from typing import Any

import pytest

from bionemo_core import cli
from bionemo_core.errors import StorageError

chemistry = pytest.importorskip("bionemo_molbart.chemistry")

COMMON = ("trainer.accelerator=cpu", "trainer.progress_bar=false", "trainer.num_threads=1", "batch.num_workers=0")
PROTEIN = ("model=esm1nv_tiny", "model.num_layers=1", "model.hidden_size=32", *COMMON)
MOLECULE = ("model=molmim_xsmall", "model.num_layers=1", "model.hidden_size=32", "model.num_attention_heads=2", *COMMON)
FASTA = ("data=fasta", "data.path=p.fasta", "data.val_fraction=0.2", "data.test_fraction=0.2")
SHORT = (
    "trainer.max_steps=1",
    "trainer.val_check_interval=1",
    "trainer.limit_val_batches=1",
    "batch.micro_batch_size=4",
)
CASES: dict[str, tuple[tuple[str, ...], list[str], list[str]]] = {
    "sample": (("task=sample", *MOLECULE, "task.input=m.csv"), ["samples.csv", "summary.json"], ["samples.png"]),
    "optimize": (
        ("task=optimize", *MOLECULE, "task.input=m.csv", "task.oracle=qed", "task.iterations=1"),
        ["optimized.csv", "trajectory.csv", "summary.json"],
        ["trajectory.png", "optimized.png"],
    ),
    "scan": (
        ("task=predict", *PROTEIN, "task.scan=true", "task.wild_type=MKTA", "task.output=out.csv"),
        ["out.csv", "out.csv.json"],
        ["out.png"],
    ),
    "evaluate": (
        ("task=evaluate", *PROTEIN, *FASTA, "task.output=report", "task.pseudo_perplexity=5"),
        ["metrics.json", "report.html"],
        ["The picture of the pseudo-perplexities"],
    ),
    "prepare": (("task=prepare", "model=esm1nv_tiny", *FASTA), ["manifest.json"], ["lengths.png"]),
    "train": ((*PROTEIN, *FASTA, *SHORT, "name=mine"), ["summary.json"], ["loss.png"]),
}  # fmt: skip


@pytest.fixture
def undrawable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: Any, **options: Any) -> None:
        raise StorageError("the picture: No space left on device.")

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", refuse)
    monkeypatch.setattr(chemistry, "write_file", refuse)
    monkeypatch.setattr("bionemo_core.inference.sample_metrics.SampleCounts.draw", refuse)  # no sample is a molecule
    monkeypatch.setenv("BIONEMO_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    Path("p.csv").write_text("id,sequence\na,MKTAYI\nb,MKVLA\n")
    Path("p.fasta").write_text("".join(f">r{row}\n{'MKTAYI' * (row % 7 + 1)}\n" for row in range(40)))
    Path("m.csv").write_text("id,smiles\na,CCO\nb,CCN\n")


@pytest.mark.parametrize("case", CASES)
def test_the_results_do_not_depend_on_their_picture(
    case: str, undrawable: None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    command, results, pictures = CASES[case]
    assert cli.main([*command]) == 0, caplog.text
    for name in results:
        assert list(tmp_path.rglob(name)), name
    for name in pictures:
        assert f"{name} is missing, and nothing else: the picture: No space left on device." in caplog.text
        assert not [path for path in tmp_path.rglob(name) if path.is_file()]
