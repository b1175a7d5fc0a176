"""Fine-tuning for several labels of each sequence, some missing: trained, predicted and evaluated by the command."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from runs import Home
from sklearn.metrics import f1_score, r2_score, roc_auc_score

pytest.importorskip("bionemo_esm")

COMMON = ("trainer.num_threads=1", "trainer.accelerator=cpu", "trainer.progress_bar=false", "batch.num_workers=0")
MODEL = ("model=esm1nv_tiny", "model.num_layers=2", "model.hidden_size=64", "batch.seq_length=64")


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def table(tmp_path_factory) -> Path:
    """Proteins with two numbers and two answers that follow from their residues; a fifth of the labels is missing."""
    draw = np.random.default_rng(3)
    path = tmp_path_factory.mktemp("several") / "proteins.csv"
    lines = ["id,sequence,greasy,charged,membrane,acid"]
    for number in range(150):
        shares = draw.dirichlet([1.0, 1.0, 1.0])
        kinds = draw.choice(["LAVIFMW", "DE", "KRSTGNQ"], size=int(draw.integers(20, 60)), p=shares)
        sequence = "".join(draw.choice(list(kind)) for kind in kinds)
        greasy, acid = (100 * np.mean([letter in kind for letter in sequence]) for kind in ("LAVIFMW", "DE"))
        cells = [f"{greasy:.2f}", f"{acid / 1000 + 5:.5f}", "yes" if greasy > 33 else "no", str(int(acid > 33))]
        gone = draw.random(4) < 0.2
        given = ["" if lost else cell for cell, lost in zip(cells, gone, strict=True)]
        lines.append(f"p{number},{sequence},{','.join(given)}")
    path.write_text("\n".join(lines) + "\n")
    return path


def data(table: Path, columns: str) -> tuple[str, ...]:
    return "data=labelled_csv", f"data.dataset_path={table}", f"data.target_columns=[{columns}]"


def finish(home: Home, name: str, *arguments: str) -> tuple[Path, str]:
    run = home.task("task=finetune", f"name={name}", *COMMON, *MODEL, *arguments)
    assert run.wait() == 0, run.output()
    return run.folder, run.output()


def labelled(rows: list[dict[str, str]], target: str, column: str) -> tuple[np.ndarray, np.ndarray]:
    known = [row for row in rows if row[f"label_{target}"]]
    words = {"yes": 1.0, "no": 0.0}
    labels = [words[word] if (word := row[f"label_{target}"]) in words else float(word) for row in known]
    return np.array(labels), np.array([float(row[f"{column}_{target}"]) for row in known])


def test_two_numbers(home, table, tmp_path):
    folder, said = finish(
        home, "two_numbers", "task.kind=sequence_regression", "trainer.max_steps=20", *data(table, "greasy,charged")
    )
    assert "greasy" in said
    assert " missing)" in said
    measured = {row["target"]: row for row in rows_of(folder / "test_targets.csv")}
    assert min(float(row["spearman"]) for row in measured.values()) > 0.6, said
    model = f"restore_from_path={folder / 'model'}"
    home.command(
        "task=evaluate", model, f"task.output={tmp_path / 'report'}", *COMMON[3:], *data(table, "greasy,charged")
    )
    found = json.loads((tmp_path / "report" / "metrics.json").read_text())["metrics"]
    rows = rows_of(tmp_path / "report" / "predictions.csv")
    of_each = [r2_score(*labelled(rows, name, "prediction")) for name in ("greasy", "charged")]
    assert found["r2"] == pytest.approx(np.mean(of_each), abs=1e-4), "each in its own units"
    home.command("task=predict", model, f"task.input={table}", f"task.output={tmp_path / 'new.csv'}")
    new = {row["id"]: row for row in rows_of(tmp_path / "new.csv")}
    assert list(new["p0"]) == ["id", "prediction_greasy", "prediction_charged"]
    for row in rows:
        assert float(new[row["id"]]["prediction_charged"]) == pytest.approx(float(row["prediction_charged"]), abs=1e-4)


def test_an_order(home, table):
    words = ("data=labelled_csv", f"data.dataset_path={table}", "data.target_column=greasy")
    common = ("task.kind=sequence_regression", "task.loss=ranking", "task.linear_start=false", "trainer.max_steps=60")
    folder, said = finish(home, "an_order", *common, "optim.lr=1e-2", *words)
    tested = json.loads((folder / "summary.json").read_text())["test"]
    assert set(tested) == {"loss", "spearman"}, "squared errors of scores without a unit have no meaning"
    assert tested["spearman"] > 0.7, said
    assert tested["loss"] < 0.5, "of pairs that it cannot tell apart it is log 2"


def test_two_answers_with_adapters(home, table, tmp_path):
    folder, said = finish(
        home,
        "two_answers",
        "task.kind=sequence_multilabel",
        "task.encoder=lora",
        "task.lora_rank=4",
        "task.lora_dora=true",
        "trainer.max_steps=60",
        "optim.lr=1e-2",
        *data(table, "membrane,acid"),
    )
    measured = {row["target"]: row for row in rows_of(folder / "test_targets.csv")}
    assert min(float(row["roc_auc"]) for row in measured.values()) > 0.7, said
    assert "baseline" in said
    home.command("task=evaluate", f"restore_from_path={folder}", f"task.output={tmp_path / 'report'}", *COMMON[3:])
    found = json.loads((tmp_path / "report" / "metrics.json").read_text())["metrics"]
    tested = json.loads((folder / "summary.json").read_text())["test"]
    assert found["roc_auc"] == pytest.approx(tested["roc_auc"], abs=1e-4), "the adapters are opened as they were"
    rows = rows_of(tmp_path / "report" / "predictions.csv")
    for name, score, column in (("f1", f1_score, "prediction"), ("roc_auc", roc_auc_score, "p")):
        of_each = [score(*labelled(rows, target, column)) for target in ("membrane", "acid")]
        assert found[name] == pytest.approx(np.mean(of_each), abs=1e-4), name
