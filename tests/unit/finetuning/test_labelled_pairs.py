"""Fine-tuning on pairs of sequences, trained and predicted by the command, against a few lines of scikit-learn."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch

import bionemo_core
from bionemo_core import cli
from bionemo_core.builtin import load_registry
from bionemo_core.cli.run import compose
from bionemo_core.config.spec import make_spec
from bionemo_core.finetuning.pairs.contrastive import Contrastive
from bionemo_core.finetuning.pairs.matching import match_metrics
from bionemo_core.interop.artefact import Artefact, write_artefact
from bionemo_core.interop.stored import ModelSpec, Vocabulary
from bionemo_core.models.named_weights import named_weights
from bionemo_core.parallel.weights import network_of
from bionemo_core.tasks.settings import Serve

pytest.importorskip("bionemo_esm")
linear_model = pytest.importorskip("sklearn.linear_model")

COMMON = ("trainer.accelerator=cpu", "trainer.num_threads=1", "trainer.progress_bar=false", "batch.num_workers=0")
MODEL = ("model=esm1nv_tiny", "model.num_layers=1", "model.hidden_size=32")
PENALTY = 2.0


@pytest.fixture(scope="module", autouse=True)
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("pairs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BIONEMO_HOME", str(path / "home"))
        patch.chdir(path)
        yield path


@pytest.fixture(scope="module")
def table(folder: Path) -> list[dict[str, str]]:
    """Pairs of 12 proteins; the label is how differently greasy they are, which is no sum over the two."""
    draw = np.random.default_rng(0)
    shares = draw.random(12)
    kinds = [draw.choice(["LAVIF", "DEKRS"], size=30, p=[share, 1 - share]) for share in shares]
    proteins = ["".join(draw.choice(list(kind)) for kind in row) for row in kinds]
    rows = [
        {
            "id": f"{a}_{b}",
            "first": proteins[a],
            "second": proteins[b],
            "target": f"{abs(shares[a] - shares[b]):.4f}",
            "binds": "yes" if abs(shares[a] - shares[b]) > 0.3 else "no",
            "set": "test" if (a + b) % 4 == 0 else "val" if (a + b) % 4 == 1 else "train",
        }
        for a in range(12)
        for b in range(12)
    ]
    write(Path("pairs.csv"), rows)
    return rows


def write(path: Path, rows: list[dict[str, str]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def read(path: str) -> list[dict[str, str]]:
    with Path(path).open(newline="") as file:
        return list(csv.DictReader(file))


def finetune(name: str, *arguments: str) -> Path:
    data = ("data=labelled_pairs", "data.dataset_path=pairs.csv", "data.split_column=set")
    kind = () if any(word.startswith("task.kind=") for word in arguments) else ("task.kind=sequence_regression",)
    words = ("task=finetune", f"name={name}", *COMMON, *MODEL, *data, *kind, *arguments)
    assert cli.main([*words]) == 0
    return next(Path("home/runs").glob(f"{name}/*/summary.json")).parent


def predict(run: Path, output: str, *arguments: str) -> int:
    model = f"restore_from_path={run / 'model'}"
    return cli.main(["task=predict", *COMMON[:3], model, f"task.output={output}", *arguments])


@pytest.fixture(scope="module")
def molecule_models(folder: Path) -> None:
    """Two models of molecules that differ in their weights, `molecules1` and `molecules2`."""
    pytest.importorskip("bionemo_molbart")
    shape = ("model.num_layers=1", "model.hidden_size=16", "model.num_attention_heads=2")
    for seed in (1, 2):
        parts = bionemo_core.build("model=molmim_xsmall", *shape, *COMMON, f"seed={seed}")
        spec = ModelSpec(parts.spec.model, parts.spec.tokenizer)
        tensors = dict(named_weights(network_of(parts.module)))
        write_artefact(Path(f"molecules{seed}"), Artefact(spec, Vocabulary.of(parts.tokenizer.pieces)), tensors)


def features_of(model: Path, rows: list[dict[str, str]]) -> np.ndarray:
    a, b = (bionemo_core.embed(str(model), [row[column] for row in rows]) for column in ("first", "second"))
    return np.concatenate([a, b, np.abs(a - b), a * b], axis=1)


def test_a_linear_head_against_scikit_learn(table):
    run = finetune("solved", "task.head=linear", f"task.head_params={{penalty: {PENALTY}}}")
    train = [row for row in table if row["set"] == "train"]
    x, every = features_of(run / "model", train), features_of(run / "model", table)
    labels = np.array([float(row["target"]) for row in train])
    mean, deviation = x.mean(0), x.std(0)
    ridge = linear_model.Ridge(alpha=PENALTY).fit((x - mean) / deviation, labels)
    expected = ridge.predict((every - mean) / deviation)
    assert predict(run, "solved.csv", "task.input=pairs.csv") == 0
    rows = read("solved.csv")
    assert [row["id"] for row in rows] == [row["id"] for row in table]
    assert np.array([float(row["prediction"]) for row in rows]) == pytest.approx(expected, abs=2e-3)
    tested = [number for number, row in enumerate(table) if row["set"] == "test"]
    truth = np.array([float(row["target"]) for row in table])[tested]
    score = json.loads((run / "summary.json").read_text())["test"]
    assert score["mse"] == pytest.approx(np.square(expected[tested] - truth).mean(), rel=0.02)


def evaluate(run: Path, name: str, *arguments: str) -> dict[str, float]:
    words = ("task=evaluate", *COMMON[:2], f"restore_from_path={run}", f"task.output={name}", *arguments)
    assert cli.main([*words]) == 0
    found: dict[str, float] = json.loads((Path(name) / "metrics.json").read_text())["metrics"]
    return found


def test_an_evaluation_is_what_the_run_measured(table):
    run = finetune("measured", "trainer.max_steps=3", "optim.lr=0.01")
    tested = json.loads((run / "summary.json").read_text())["test"]
    found = evaluate(run, "measured_report")
    assert found.keys() == tested.keys() and found == pytest.approx(tested, rel=1e-4)
    rows = {row["id"]: row for row in read("measured_report/predictions.csv")}
    assert rows.keys() == {row["id"] for row in table if row["set"] == "test"}
    assert predict(run, "measured.csv", "task.input=pairs.csv") == 0
    predicted = {row["id"]: float(row["prediction"]) for row in read("measured.csv")}
    assert {name: float(row["prediction"]) for name, row in rows.items()} == pytest.approx(
        {name: predicted[name] for name in rows}, abs=1e-4
    )
    errors = [(float(row["prediction"]) - float(row["label"])) ** 2 for row in rows.values()]
    assert found["mse"] == pytest.approx(np.mean(errors), rel=1e-3)
    # Other pairs, of which one is too long for the model.
    write(Path("others.csv"), [*table[:5], {**table[5], "second": "MKTAY" * 200}])
    others = ("data=labelled_pairs", "data.dataset_path=others.csv", "data.val_fraction=0", "data.test_fraction=0")
    assert evaluate(run, "others_report", *others, "task.split=train")["mse"] > 0
    assert [row["id"] for row in read("others_report/predictions.csv")] == [row["id"] for row in table[:5]]


def served(run: Path, pairs: list[tuple[str, str]], *arguments: str) -> list[np.ndarray]:
    """What `bionemo-run serve` answers, without its HTTP."""
    pytest.importorskip("pydantic")
    from bionemo_core.tasks.serving.request_bodies import PredictBody
    from bionemo_core.tasks.serving.serve import open_served

    registry = load_registry()
    spec = make_spec(compose(["task=serve", *COMMON[:3], f"restore_from_path={run}", *arguments], registry), registry)
    work = open_served(spec, registry, Serve(**spec.task.params)).predict(PredictBody(pairs=list(map(list, pairs))))
    return [array for array, _ in work.run(work.items, lambda: None)]


def test_two_encoders(table, molecule_models, capsys, caplog):
    molecules = ["CCO", "c1ccccc1", "CC(=O)O", "CCCCN", "C1CCCCC1"]
    rows = [{**row, "second": molecules[number % 5]} for number, row in enumerate(table)]
    write(Path("drugs.csv"), [*rows, {**rows[0], "id": "bad", "second": "C1CC"}])
    head = ("task.head=linear", f"task.head_params={{penalty: {PENALTY}}}", "task.second_model=molecules1")
    data = ("data.dataset_path=drugs.csv", "data.target_column=binds", "task.kind=sequence_classification")
    run = finetune("drugs", *head, *data)
    assert "second sequence: " in caplog.text
    a = bionemo_core.embed(str(run / "model"), [row["first"] for row in rows])
    b = bionemo_core.embed("molecules1", [row["second"] for row in rows])
    every, train = np.concatenate([a, b], axis=1), [row["set"] == "train" for row in rows]
    mean, deviation = every[train].mean(0), every[train].std(0)
    scaled = (every - mean) / np.where(deviation > 1e-9, deviation, 1)
    theirs = linear_model.LogisticRegression(C=1 / PENALTY, tol=1e-8, max_iter=10_000)
    theirs.fit(scaled[train], np.array([row["binds"] for row in rows])[train])
    words = ("task.input=drugs.csv", "task.on_invalid=skip", "task.second_model=molecules1")
    assert predict(run, "drugs_new.csv", *words) == 0
    found = read("drugs_new.csv")
    assert "second sequence: " in found[-1]["rejected"] and found[-1]["id"] == "bad" and not found[-1]["prediction"]
    ours = np.array([float(row["p_yes"]) for row in found[:-1]])
    assert ours == pytest.approx(theirs.predict_proba(scaled)[:, 1], abs=2e-3)
    pairs = [(row["first"].lower(), row["second"]) for row in rows[:9]]
    in_python = bionemo_core.predict(run, pairs, second_model="molecules1")
    assert [float(one[0, 1]) for one in in_python] == pytest.approx(ours[:9].tolist(), abs=1e-5)
    assert np.array_equal(np.array(served(run, pairs, "task.second_model=molecules1")), np.array(in_python))
    tested = json.loads((run / "summary.json").read_text())["test"]
    assert evaluate(run, "drugs_report", "task.second_model=molecules1") == pytest.approx(tested, rel=1e-3)
    model = f"restore_from_path={run}"
    capsys.readouterr()
    assert cli.main(["task=evaluate", *COMMON[:2], model, "task.output=no", "task.second_model=molecules2"]) == 2
    assert "has other weights than the model that read" in capsys.readouterr().err
    for given, expected in {
        "task.on_long=error": "task.second_model: another model read the second sequences",
        "task.second_model=molecules2": "has other weights than the model that read the second sequences",
    }.items():
        assert predict(run, "no.csv", "task.input=drugs.csv", given) == 2
        assert expected in capsys.readouterr().err
    assert predict(run, "no.csv", *words[::2]) == 3
    assert "record 'bad', its second sequence" in capsys.readouterr().err


def test_a_trained_head_and_what_pairs_are_not_read_by(table, capsys):
    words = ("task.kind=sequence_classification", "data.target_column=binds")
    assert finetune("trained", *words, "trainer.max_steps=2")
    assert "baseline" in capsys.readouterr().out
    run = finetune("trained", *words, "trainer.max_steps=3", "resume=last")
    assert json.loads((run / "summary.json").read_text())["steps"] == 3
    assert predict(run, "trained.csv", "task.input=pairs.csv", "task.on_long=truncate") == 0
    rows = read("trained.csv")
    assert {row["prediction"] for row in rows} <= {"yes", "no"} and {row["truncated"] for row in rows} == {"0"}
    write(Path("bad.csv"), [{**table[0], "second": "MK1"}, {**table[1], "id": "longer", "second": "MKTAY" * 200}])
    model = f"restore_from_path={run / 'model'}"
    capsys.readouterr()
    for status, words, expected in (
        (3, ("task=predict", model, "task.output=no.csv", "task.input=bad.csv"), "bad.csv:2 record '0_0', its second"),
        (
            3,
            ("task=predict", model, "task.output=no.csv", "task.input=bad.csv", "task.on_invalid=unk"),
            "tokens, but the model takes",
        ),
        (2, ("task=predict", model, "task.output=no.csv", "task.input=pairs.csv", "task.second_column=b"), "no column"),
        (2, ("task=predict", model, "task.output=no.csv", "task.input=pairs.csv", "task.second_model=b"), "not used"),
        (
            2,
            (
                "task=evaluate",
                model,
                "task.output=no",
                "data=labelled_csv",
                "data.dataset_path=pairs.csv",
                "data.sequence_column=first",
            ),
            "the model reads pairs of sequences, but the data are no pairs",
        ),
    ):
        assert cli.main([*COMMON[:3], *words]) == status
        assert expected in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("task.kind=token_regression",), "task.kind=token_regression: a pair of sequences has one label"),
        (("data=labelled_csv", "data.sequence_column=first", "task.second_model=molecules1"), "is for data of pairs"),
        (("data.second_column=partner",), "data.second_column"),
    ],
)
def test_what_is_refused(table, molecule_models, words, expected, capsys):
    data = () if "data=labelled_csv" in words else ("data=labelled_pairs",)
    kind = () if any(word.startswith("task.kind") for word in words) else ("task.kind=sequence_regression",)
    assert cli.main(["task=finetune", *COMMON, *MODEL, *data, "data.dataset_path=pairs.csv", *kind, *words]) in (2, 3)
    assert expected in capsys.readouterr().err


def test_the_contrastive_loss_against_numpy():
    draw = np.random.default_rng(0)
    points, temperature = draw.normal(size=(2, 5, 4)), 0.3
    shared = np.zeros((5, 5), dtype=bool)
    shared[0, 1] = shared[1, 0] = True
    counts = np.array([True, True, True, False, True])
    a, b = (side / np.linalg.norm(side, axis=1, keepdims=True) for side in points)
    logits = np.exp(a @ b.T / temperature)
    expected = 0.0
    for i in range(5):
        rivals = [j for j in range(5) if counts[j] and not shared[i, j]]
        if counts[i]:
            expected -= np.log(logits[i, i] / logits[i, rivals].sum()) / 2
            expected -= np.log(logits[i, i] / logits[rivals, i].sum()) / 2
    outputs = torch.tensor(np.concatenate(list(points), axis=1), dtype=torch.float32)
    loss = Contrastive(temperature=temperature)(outputs, torch.from_numpy(shared), torch.from_numpy(counts))
    assert float(loss) == pytest.approx(expected, rel=1e-5)


def test_the_rank_of_a_partner_against_numpy():
    a, b = np.random.default_rng(1).normal(size=(2, 30, 4))
    b = b + a
    a[7], b[9] = a[3], b[4]
    found = match_metrics(torch.from_numpy(np.concatenate([a, b], axis=1)))
    unit_a, unit_b = (side / np.linalg.norm(side, axis=1, keepdims=True) for side in (a, b))
    cosines, pairs = unit_a @ unit_b.T, {frozenset((3, 7)), frozenset((4, 9))}
    ranks = [
        1 + sum(cosines[i, j] >= cosines[i, i] for j in range(30) if j != i and frozenset((i, j)) not in pairs)
        for i in range(30)
    ]
    expected = {"recall_at_1": np.mean(np.array(ranks) == 1), "mrr": np.mean(1 / np.array(ranks))}
    assert found == pytest.approx({**expected, "recall_at_10": np.mean(np.array(ranks) <= 10)})


def test_partners_are_found_without_labels(table, capsys):
    """The partner of a protein has the same residues in reverse order."""
    draw = np.random.default_rng(2)
    letters = [draw.choice(list("LAVIFDEKRS"), size=24, p=draw.dirichlet(np.full(10, 0.3))) for _ in range(160)]
    rows = [
        {"id": str(number), "first": "".join(row), "second": "".join(row[::-1]), "set": "test" if number > 119 else ""}
        for number, row in enumerate(letters)
    ]
    rows = [{**row, "set": row["set"] or "train"} for row in rows]
    write(Path("partners.csv"), rows)
    words = ("task.kind=pair_matching", "data.dataset_path=partners.csv", "data.target_column=null")
    run = finetune("partners", *words, "trainer.max_steps=60", "task.projection_size=16", "optim.lr=3e-3")
    tested = json.loads((run / "summary.json").read_text())["test"]
    assert tested["mrr"] > 0.3, "by chance it is 0.1 of 40"
    found = evaluate(run, "partners_report")
    # The loss depends on which pairs share a micro batch.
    assert {**found, "loss": 0.0} == pytest.approx({**tested, "loss": 0.0}, rel=1e-4)
    assert predict(run, "partners_new.csv", "task.input=partners.csv") == 0
    network, points = bionemo_core.open_model(run / "model").module.network, []
    for side, column in enumerate(("first", "second")):
        states = torch.from_numpy(bionemo_core.embed(str(run / "model"), [row[column] for row in rows]))
        half = slice(32 * side, 32 * side + 32)
        x = (states - network.scaler.mean[half]) / network.scaler.scale[half]
        hidden, last = (network.head.first, network.head.second)[side].linears
        points.append(last(hidden(x).relu()).detach().numpy())
    a, b = (side / np.linalg.norm(side, axis=1, keepdims=True) for side in points)
    found = np.array([float(row["prediction"]) for row in read("partners_new.csv")])
    assert found == pytest.approx((a * b).sum(1), abs=1e-3)
    capsys.readouterr()
    head = ("task=finetune", *COMMON, *MODEL, "data=labelled_pairs", "data.dataset_path=partners.csv")
    for given, expected in (
        (("task.kind=pair_matching", "data.target_column=set"), "a label, where pairs have none"),
        (("task.kind=sequence_regression", "data.target_column=null"), "not a finite number"),
        (("task.kind=sequence_regression", "task.loss=contrastive"), "is for task.kind=pair_matching"),
        (("task.kind=sequence_regression", "task.projection_size=3"), "task.projection_size"),
        ((*words[::2], "task.head=linear"), "is solved for labels"),
        ((*words[::2], "batch.micro_batch_size=1"), "compares the pairs of a micro batch"),
        (
            ("task.kind=pair_matching", "data=labelled_csv", "data.target_column=set", "data.sequence_column=first"),
            "data of pairs",
        ),
    ):
        assert cli.main([*head, *given]) in (2, 3)
        assert expected in capsys.readouterr().err
