"""`task=evaluate` measures what the validation of the run measured."""

import csv
import json
import math

import pytest
from runs import Home

pytest.importorskip("bionemo_molbart")

MODEL = ("model=molmim_xsmall", "model.num_layers=1", "model.hidden_size=32", "model.num_attention_heads=2")
DATA = ("data=sample_molecules", "data.val_size=40", "batch.num_workers=0", "trainer.accelerator=cpu")


def test_a_latent_loss_counts_as_in_the_validation(home: Home, tmp_path):
    def run(name: str, *arguments: str, status: int = 0) -> str:
        started = home.task(f"name={name}", *arguments, BIONEMO_LOAD_PLUGINS="bionemo-molbart")
        assert started.wait() == status, started.output()
        return started.output()

    ramp = ("model.val_molecules=0", "model.loss_weight_ramp_steps=4")
    run("latent", *MODEL, *ramp, *DATA, "seed=5", "trainer.max_steps=4", "trainer.val_check_interval=4")
    (folder,) = (home.path / "runs" / "latent").iterdir()
    with (folder / "metrics.csv").open() as file:
        row = next(row for row in reversed(list(csv.DictReader(file))) if row.get("val_loss"))
    report = tmp_path / "report"
    asked = (f"restore_from_path={folder}", "task.split=val", f"task.output={report}")
    # It evaluates on the run's own data.
    run("latent-report", "task=evaluate", *asked, "batch.num_workers=0", "trainer.accelerator=cpu")
    found = json.loads((report / "metrics.json").read_text())["metrics"]
    assert found["loss"] == pytest.approx(float(row["val_loss"]), rel=1e-5)
    assert found["hiddens_loss"] == pytest.approx(float(row["val_hiddens_loss"]), rel=1e-5) and found["hiddens_loss"]
    # The latent loss is none of the tokens', whose perplexity it is.
    assert found["perplexity"] == pytest.approx(math.exp(found["loss"] - found["hiddens_loss"]), rel=1e-5)

    artefact, other = tmp_path / "artefact", tmp_path / "other"
    run("latent-out", "task=convert", f"restore_from_path={folder}", f"task.output={artefact}")
    said = run("latent-again", "task=evaluate", f"restore_from_path={artefact}", f"task.output={other}", status=2)
    assert "does not record its training data. Choose the data to evaluate on: data=NAME" in said
