"""Fine-tuning as a user has it: three ways to train, and a model that opens in every other task."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from runs import Home, Run

from bionemo_core.builtin import load_registry
from bionemo_core.config.schema import Choice
from bionemo_core.interop.connector import ForeignModel, OurModel
from bionemo_core.interop.foreign_config import ForeignConfig
from bionemo_core.interop.huggingface import write_huggingface
from bionemo_core.models.locate import complete_choice
from bionemo_core.models.named_weights import network_tensors
from bionemo_core.protocols import BuildContext

pytest.importorskip("bionemo_esm")

RESIDUES = list("LAGVSERTIDPKQNFYMHWC")


@pytest.fixture(scope="session")
def pretrained(home: Home) -> Path:
    """A run of a few steps without dropout, which would be drawn by rank."""
    settings = ("model.hidden_dropout=0.0", "model.attention_dropout=0.0", "trainer.max_steps=2")
    return home.finish("name=pre_ft", *settings, "trainer.val_check_interval=2").folder


@pytest.fixture(scope="session")
def tables(home: Home) -> Path:
    """Proteins whose labels follow from their residues: hydrophobic ones are `H`."""
    draw = np.random.default_rng(0)
    root = home.path / "labelled"
    for split, count in (("train", 48), ("val", 8), ("test", 8)):
        (root / split).mkdir(parents=True)
        lines = ["id,sequence,state,resolved,share"]
        for number in range(count):
            sequence = "".join(draw.choice(RESIDUES, size=int(draw.integers(8, 60))))
            state = "".join("H" if letter in "LAVIFMW" else "C" for letter in sequence)
            share = 100 * state.count("H") / len(state)
            lines.append(f"{split}{number},{sequence},{state},{'1' * len(sequence)},{share:.3f}")
        (root / split / "x000.csv").write_text("\n".join(lines) + "\n")
    return root


def data(tables: Path, target: str) -> tuple[str, ...]:
    return ("data=labelled_csv", f"data.dataset_path={tables}", f"data.target_column={target}")


def run(home: Home, name: str, *arguments: str) -> tuple[Path, str]:
    """The newest folder of a run of this name, and what it said."""
    common = ("trainer.num_threads=1", "trainer.accelerator=cpu", "trainer.progress_bar=false", "batch.num_workers=0")
    said = home.command("task=finetune", f"name={name}", *common, *arguments)
    folders = sorted((home.path / "runs" / name).glob("*"), key=lambda path: path.stat().st_mtime_ns)
    assert folders, said
    assert (folders[-1] / "metrics.csv").is_file(), said
    read = [line for line in said.splitlines() if ": read " in line]
    assert len(read) == len(set(read)), "a file was read twice"
    return folders[-1], said


def metrics(folder: Path) -> list[dict[str, str]]:
    return rows_of(folder / "metrics.csv")


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("encoder", ["frozen", "full", "lora"])
def test_it_learns_and_opens_everywhere(home, pretrained, tables, encoder, tmp_path):
    labels = data(tables, "state")
    folder, said = run(
        home,
        f"tune_{encoder}",
        f"restore_from_path={pretrained}",
        "task.kind=token_classification",
        "task.head=mlp",
        f"task.encoder={encoder}",
        "task.average_last=2",
        "optim.lr=1e-2",
        "trainer.max_steps=40",
        "trainer.val_check_interval=20",
        "checkpoint.every_n_steps=20",
        "batch.micro_batch_size=16",
        *labels,
    )
    rows = metrics(folder)
    tested = rows[-1]
    assert float(tested["test_accuracy"]) > 0.8, said
    assert float(rows[-1]["val_loss"]) < float(rows[-2]["val_loss"] or "inf")
    spec = json.loads((folder / "run.json").read_text())
    assert spec["model"]["name"] == "finetuned"
    assert spec["model"]["params"]["classes"] == ["C", "H"]
    assert (folder / "adapter").exists() == (encoder == "lora")
    model = f"restore_from_path={folder / 'model'}"
    report = tmp_path / "report"
    home.command("task=evaluate", model, f"task.output={report}", "batch.num_workers=0", *labels)
    found = json.loads((report / "metrics.json").read_text())["metrics"]
    assert abs(found["accuracy"] - float(tested["test_accuracy"])) < 1e-6
    classes = rows_of(folder / "test_classes.csv")
    assert [row["class"] for row in classes] == ["C", "H"]
    assert classes == rows_of(report / "classes.csv")
    assert np.mean([float(row["roc_auc"]) for row in classes]) == pytest.approx(found["roc_auc"], abs=1e-5)
    assert "support  precision" in said
    assert "data:image/png;base64," in (report / "report.html").read_text()
    assert {row["truncated"] for row in rows_of(report / "predictions.csv")} == {"0"}
    if encoder == "frozen":
        longer = tmp_path / "longer"
        shutil.copytree(tables, longer)
        with (longer / "test" / "x000.csv").open("a") as file:
            file.write(f"long,{'A' * 3000},{'H' * 3000},{'1' * 3000},100.0\n")
        home.command("task=evaluate", model, f"task.output={tmp_path / 'cut'}", *data(longer, "state"))
        rows = rows_of(tmp_path / "cut" / "predictions.csv")
        assert [row["id"] for row in rows if row["truncated"] == "1"] == ["long"]
        again = json.loads((tmp_path / "cut" / "metrics.json").read_text())["metrics"]
        assert again["accuracy"] == found["accuracy"]  # what is cut is not measured
    output = tmp_path / "predicted.csv"
    home.command("task=predict", model, f"task.input={tables / 'test' / 'x000.csv'}", f"task.output={output}")
    with output.open() as file:
        predicted = {row["id"]: row["prediction"] for row in csv.DictReader(file)}
    with (tables / "test" / "x000.csv").open() as file:
        truth = {row["id"]: row["state"] for row in csv.DictReader(file)}
    assert list(predicted) == list(truth)
    right = [a == b for name in truth for a, b in zip(predicted[name], truth[name], strict=True)]
    assert abs(np.mean(right) - found["accuracy"]) < 1e-6
    if encoder == "lora":
        joined = tmp_path / "joined.csv"
        parts = (f"restore_from_path={pretrained}", f"task.adapter={folder / 'adapter'}")
        home.command("task=predict", *parts, f"task.input={tables / 'test' / 'x000.csv'}", f"task.output={joined}")
        assert joined.read_text() == output.read_text()
        other = (f"restore_from_path={folder}", f"task.adapter={folder / 'adapter'}", "task.overwrite=true")
        said = home.command("task=predict", *other, "task.input=x.fasta", f"task.output={joined}")
        assert "was trained on other weights" in said
    embedded = tmp_path / "embedded.npz"
    home.command("task=embed", model, f"task.input={tables / 'test' / 'x000.csv'}", f"task.output={embedded}")
    assert np.load(embedded)["ids"].tolist() == list(truth)


def test_a_regression_on_kept_states_resumes_exactly_and_keeps_them(home, pretrained, tables):
    settings = (
        "task.kind=sequence_regression",
        "scheduler=constant",
        "trainer.val_check_interval=5",
        "trainer.log_every_n_steps=1",
        "batch.micro_batch_size=8",
        *data(tables, "share"),
    )
    start = f"restore_from_path={pretrained}"
    whole, planned = run(home, "reg_whole", start, "trainer.max_steps=10", *settings)
    assert "8 sequences a step, from cached states of the encoder = 8 micro" in planned
    run(home, "reg_cut", start, "resume=auto", "trainer.max_steps=5", *settings)
    tables_kept = {path: path.stat().st_mtime_ns for path in (home.path / "states").glob("*/states.npy")}
    cut, said = run(home, "reg_cut", start, "resume=auto", "trainer.max_steps=10", *settings)
    assert "resume  step 5" in said
    assert {path: path.stat().st_mtime_ns for path in (home.path / "states").glob("*/states.npy")} == tables_kept, said
    compared = ("reduced_train_loss", "val_loss", "val_mse", "val_spearman", "grad_norm", "test_mse")
    last = [{key: rows[-1][key] for key in compared} for rows in (metrics(whole), metrics(cut))]
    assert last[0] == last[1]


def test_a_linear_head_is_solved_and_opens_like_any_other(home, pretrained, tables, tmp_path):
    labels = data(tables, "share")
    settings = (f"restore_from_path={pretrained}", "task.kind=sequence_regression", *labels)
    folder, said = run(home, "solved", *settings, "task.head=linear")
    baseline = json.loads((folder / "baseline.json").read_text())
    assert f"penalty {baseline['penalty']:g}" in said
    tested = float(metrics(folder)[-1]["test_r2"])
    assert abs(tested - baseline["metrics"]["test"]["r2"]) < 1e-3
    report = tmp_path / "report"
    home.command("task=evaluate", f"restore_from_path={folder / 'model'}", f"task.output={report}", *labels)
    assert abs(json.loads((report / "metrics.json").read_text())["metrics"]["r2"] - tested) < 1e-3
    trained, said = run(home, "beside", *settings, "trainer.max_steps=2", "trainer.val_check_interval=2")
    assert json.loads((trained / "baseline.json").read_text()) == baseline
    assert said.count("linear head on 48 frozen states") == 2
    without, _ = run(home, "without", *settings, "trainer.max_steps=1", "task.baseline=false")
    assert not (without / "baseline.json").exists()


@pytest.mark.slow
@pytest.mark.parametrize("of", ["sequences", "pairs"])
def test_two_ranks_train_as_one(home, pretrained, tables, tmp_path, of):
    given = data(tables, "share")
    if of == "pairs":
        rows = [row for split in ("train", "val", "test") for row in rows_of(tables / split / "x000.csv")]
        lines = [f"{row['id']},{row['sequence']},{row['sequence'][::-1]},{row['share']}" for row in rows]
        (tmp_path / "pairs.csv").write_text("\n".join(["id,first,second,target", *lines, ""]))
        given = ("data=labelled_pairs", f"data.dataset_path={tmp_path / 'pairs.csv'}")
    settings = (
        f"restore_from_path={pretrained}",
        "task.kind=sequence_regression",
        "task.encoder=full",
        "task.head_params={dropout: 0.0}",
        "trainer.max_steps=3",
        "trainer.val_check_interval=3",
        "trainer.log_every_n_steps=1",
        "batch.micro_batch_size=4",
        "batch.global_batch_size=8",
        *given,
    )
    one, two = (run(home, f"{of}{n}", f"trainer.devices={n}", *settings)[0] for n in (1, 2))
    first, second = metrics(one), metrics(two)
    assert first[0]["consumed_samples"] == second[0]["consumed_samples"] == "8.0"
    for key in ("reduced_train_loss", "val_loss", "val_mse", "val_spearman", "test_mse"):
        expected = float(first[-1][key])
        assert abs(float(second[-1][key]) - expected) < 1e-4 * abs(expected), key


def test_downstream_validation_stands_beside_the_loss_and_changes_nothing(home, tables):
    plain = home.finish("name=without", "trainer.max_steps=4", "trainer.val_check_interval=2")
    probed = home.finish(
        "name=with",
        "trainer.max_steps=4",
        "trainer.val_check_interval=2",
        "callbacks=[downstream]",
        "callbacks.downstream.dataset=labelled_csv",
        f"callbacks.downstream.dataset_params={{dataset_path: {tables}, target_column: state}}",
        "callbacks.downstream.kind=token_classification",
        "callbacks.downstream.task_name=ss",
        "callbacks.downstream.num_epochs=1",
        "checkpoint.monitor=downstream_ss_accuracy",
        "checkpoint.mode=max",
    )
    assert _losses(plain) == _losses(probed)
    measured = [row["downstream_ss_accuracy"] for row in metrics(probed.folder) if row.get("val_loss")]
    assert len(measured) == 2
    assert all(0.3 < float(value) <= 1 for value in measured)


def _losses(run: Run) -> list[tuple[str, str]]:
    return [(row["step"], row["reduced_train_loss"], row["val_loss"]) for row in metrics(run.folder)]


def test_what_cannot_be_fine_tuned_is_said(home, pretrained, tables):
    start = f"restore_from_path={pretrained}"
    assert "needs sequences with labels" in home.command("task=finetune", start, "task.kind=sequence_regression")
    assert "task.kind: got 'guess'" in home.command("task=finetune", start, "task.kind=guess", *data(tables, "share"))
    assert "no model is given" in home.command("task=finetune", "task.kind=sequence_regression", *data(tables, "share"))
    assert "convnet answers for every residue" in home.command(
        "task=finetune", start, "task.kind=sequence_regression", "task.head=convnet", *data(tables, "share")
    )


def test_early_stopping_exports_the_best_weights(home, pretrained, tables):
    folder, said = run(
        *(home, "early", f"restore_from_path={pretrained}", "task.kind=sequence_regression"),
        *("task.early_stopping=2", "optim.lr=0.3", "scheduler=constant", "trainer.max_steps=60"),
        *("trainer.val_check_interval=2", "batch.micro_batch_size=16", *data(tables, "share")),
    )
    losses = {int(row["step"]): float(row["val_loss"]) for row in metrics(folder) if row["val_loss"]}
    best = min(losses, key=lambda step: losses[step])
    assert max(losses) < 60 and best < max(losses), said
    assert json.loads((folder / "model" / "artefact.json").read_text())["training"]["step"] == best
    assert f"weights  step-{best:08d}" in said
    report = home.path / "early_report"
    asked = (f"restore_from_path={folder / 'model'}", "task.split=val", f"task.output={report}")
    home.command("task=evaluate", *asked, "batch.num_workers=0", *data(tables, "share"))
    assert json.loads((report / "metrics.json").read_text())["metrics"]["loss"] == pytest.approx(losses[best], rel=1e-4)


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("task.states_dtype=foo", "states_dtype: got 'foo', expected float32, float16"),
        ("task.average_last=-3", "average_last: got -3"),
        ("task.class_weights=[1,2]", "task.kind=sequence_regression has no classes"),
        ("task.freeze_layers=2", "freeze_layers=2 needs task.encoder=full, got frozen"),
        ("task.lora_rank=0", "lora_rank: got 0"),
    ],
)
def test_settings_that_would_do_nothing_are_refused(home, pretrained, setting, said):
    start = (f"restore_from_path={pretrained}", "task.kind=sequence_regression")
    assert said in home.command("task=finetune", *start, setting)


def test_labels_are_checked_before_anything_is_computed(home, pretrained, tmp_path):
    start = (f"restore_from_path={pretrained}", "task.kind=token_classification", "data=labelled_csv")
    for split, label in (("train", "HC"), ("val", "HC"), ("test", "HX")):
        (tmp_path / split).mkdir()
        (tmp_path / split / "x000.csv").write_text(f"id,sequence,target\na,MK,{label}\nb,MK,CH\n")
    said = home.command("task=finetune", *start, f"data.dataset_path={tmp_path}")
    assert "unknown class 1 (test 'a': 'X' is not among those trained on: C, H)" in said
    (tmp_path / "test" / "x000.csv").write_text("id,sequence,target\nlong,MKV,CH\n")
    said = home.command("task=finetune", *start, f"data.dataset_path={tmp_path}")
    assert "test 'long': 3 residues, 2 labels" in said


def test_a_resumed_run_keeps_its_model_and_every_one_that_it_wrote(home, pretrained, tables):
    settings = ("trainer.val_check_interval=5", "batch.micro_batch_size=8", *data(tables, "share"))
    kind = "task.kind=sequence_regression"
    start = (f"restore_from_path={pretrained}", kind)
    run(home, "again", *start, "trainer.max_steps=5", *settings)
    said = home.command("task=finetune", "name=again", "resume=last", kind, "task.encoder=full", *settings)
    assert "task.encoder: frozen -> full: a resumed run keeps its model" in said
    said = home.command("task=finetune", "name=again", "resume=last", "restore_from_path=elsewhere", kind, *settings)
    assert f"this run was started from {pretrained}, and restore_from_path names elsewhere" in said
    for steps in (10, 10, 10):
        folder, said = run(home, "again", "resume=last", kind, f"trainer.max_steps={steps}", *settings)
        assert json.loads((folder / "model" / "artefact.json").read_text())["training"]["step"] == steps, said
        assert json.loads((folder / "run.json").read_text())["restore_from_path"] == str(pretrained)
    found = sorted(path.name for path in folder.glob("superseded-model-*"))
    assert found == ["superseded-model-10", "superseded-model-10-2", "superseded-model-5"]


@pytest.fixture(scope="session")
def headless(home: Home) -> Path:
    """A small ESM-2 as `EsmModel` of transformers saves it: no `esm.` before its names, and no language-model head."""
    registry = load_registry()
    sizes = {"num_layers": 1, "hidden_size": 32, "num_attention_heads": 2, "ffn_hidden_size": 48, "seq_length": 96}
    choice = complete_choice("model", "esm2_8m", sizes, "bionemo-esm", registry)
    tokenizer = registry.build(Choice("tokenizer", "esm2"))
    network = registry.build(choice, tokenizer=tokenizer, context=BuildContext()).network
    connector = registry.build(Choice("connector", "esm_huggingface"))
    whole = connector.write(OurModel("esm2_8m", choice.params, tokenizer, network_tensors(network)))
    tensors = {name.removeprefix("esm."): one for name, one in whole.tensors.items() if name.startswith("esm.")}
    config = ForeignConfig({**whole.config.values, "architectures": ["EsmModel"]}, "there")
    write_huggingface(home.path / "headless", ForeignModel(config, tensors, whole.files))
    return home.path / "headless"


@pytest.mark.parametrize("encoder", ["frozen", "lora"])
def test_a_model_without_a_head_never_gets_a_random_one(home, headless, tables, tmp_path, encoder):
    """Not in the fine-tuned artefact, nor in a checkpoint of the run, nor after a resume."""
    name = f"headless_{encoder}"
    common = ("trainer.num_threads=1", "trainer.accelerator=cpu", "trainer.progress_bar=false", "batch.num_workers=0",
              f"name={name}", "task.kind=token_classification", "task.head=mlp", f"task.encoder={encoder}",
              f"restore_from_path={headless}", *data(tables, "state"))  # fmt: skip
    note = "EsmModel has no language-model head: it embeds and can be fine-tuned"
    for steps in ("trainer.max_steps=2", "trainer.max_steps=4"):
        said = home.command("task=finetune", *common, steps, *(["resume=last"] if steps.endswith("4") else []))
        assert (note in said) == steps.endswith("2"), said
    (folder,) = (home.path / "runs" / name).glob("*")
    assert json.loads((folder / "restore.json").read_text())["missing"], "the head is listed"
    (tmp_path / "in.fasta").write_text(">a\nMKTAYIAKQR\n")
    sources = [(f"restore_from_path={folder / 'model'}",), (f"restore_from_path={folder}",)]
    if encoder == "lora":
        sources.append((f"restore_from_path={headless}", f"task.adapter={folder / 'adapter'}"))
    for number, source in enumerate(sources):
        given = (*source, f"task.input={tmp_path / 'in.fasta'}", "trainer.accelerator=cpu")
        said = home.command("task=predict", *given, f"task.output={tmp_path}/{number}.csv")
        assert "1 row" in said, said
        assert (tmp_path / f"{number}.csv.restore.json").is_file()
        if number == 2:  # task=embed takes no adapter
            break
        said = home.command("task=embed", *given, "task.outputs=[logits]", f"task.output={tmp_path}/{number}.npz")
        assert "outputs=logits needs tensors that were not loaded" in said and "head.dense.weight" in said, said
        said = home.command("task=embed", *given, f"task.output={tmp_path}/{number}.npz")
        assert "embeddings of 1 sequence" in said, said
