"""Encoders that are trained on pairs: one that reads both sequences, and two of different kinds."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import bionemo_core
from bionemo_core import cli
from bionemo_core.builtin import load_registry
from bionemo_core.data.batches.batch import Seq2SeqBatch, TokenBatch
from bionemo_core.data.batches.rows import RowShape, collate
from bionemo_core.data.labelled_records import TOGETHER, LabelledRecord
from bionemo_core.errors import DataError
from bionemo_core.finetuning.pairs.contrastive import Contrastive
from bionemo_core.finetuning.pairs.features import sequence_hashes
from bionemo_core.finetuning.pairs.matching import share_a_sequence
from bionemo_core.interop.artefact import Artefact, write_artefact
from bionemo_core.interop.stored import ModelSpec, Vocabulary
from bionemo_core.models.named_weights import named_weights
from bionemo_core.parallel.weights import network_of
from bionemo_core.protocols import BuildContext, Example, Tokenizer

pytest.importorskip("bionemo_esm")
pytest.importorskip("bionemo_molbart")

COMMON = ("trainer.accelerator=cpu", "trainer.num_threads=1", "trainer.progress_bar=false", "batch.num_workers=0")
SHAPE = ("model.num_layers=1", "model.hidden_size=16", "model.num_attention_heads=2")
NO_DROPOUT = ("model.hidden_dropout=0", "model.attention_dropout=0")
MOLECULES = ["CCO", "c1ccccc1", "CC(=O)O", "CCCCN", "C1CCCCC1"]


@pytest.fixture(scope="module", autouse=True)
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("trained_pairs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BIONEMO_HOME", str(path / "home"))
        patch.chdir(path)
        yield path


def write_model(name: str, *words: str) -> None:
    parts = bionemo_core.build(*words, *SHAPE, *COMMON)
    tensors = dict(named_weights(network_of(parts.module)))
    spec = ModelSpec(parts.spec.model, parts.spec.tokenizer)
    write_artefact(Path(name), Artefact(spec, Vocabulary.of(parts.tokenizer.pieces)), tensors)


@pytest.fixture(scope="module", autouse=True)
def models(folder: Path) -> None:
    """Models of proteins and of molecules; `others` are `molecules` with other weights."""
    write_model("proteins", "model=esm1nv_tiny", "seed=3", *NO_DROPOUT)
    write_model("molecules", "model=megamolbart_xsmall", "seed=4", "model.num_decoder_layers=1", *NO_DROPOUT)
    write_model("latents", "model=molmim_xsmall", "model.num_decoder_layers=1", "seed=5", *NO_DROPOUT)
    write_model("others", "model=megamolbart_xsmall", "model.num_decoder_layers=1", "seed=2")


@pytest.fixture(scope="module", autouse=True)
def table(folder: Path) -> list[dict[str, str]]:
    """8 pairs for training and 4 for testing, of two proteins and a molecule."""
    draw = np.random.default_rng(0)
    proteins = ["".join(draw.choice(list("LAVIFDEKRS"), size=size)) for size in (9, 14, 5, 11, 7)]
    rows = [
        {
            "id": str(number),
            "first": proteins[number % 5],
            "second": proteins[(2 * number + 1 + number // 5) % 5],
            "molecule": MOLECULES[(3 * number + number // 5) % 5],
            "target": f"{draw.normal():.4f}",
            "other": "" if number == 3 else f"{draw.normal():.4f}",
            "set": "train" if number < 8 else "test",
        }
        for number in range(12)
    ]
    with Path("pairs.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return rows


ONE = ("restore_from_path=proteins",)
TWO = (*ONE, "task.second_model=molecules", "data.second_column=molecule")
DATA = ("data=labelled_pairs", "data.dataset_path=pairs.csv", "data.split_column=set")
LORA = ("task.encoder=lora", "task.lora_rank=2", "task.lora_dora=true")
RECIPE = (
    *("optim.lr=0.01", "scheduler=constant", "trainer.gradient_clip_val=null", "trainer.val_check_interval=2"),
    "trainer.log_every_n_steps=1",
)
HEAD = "task.head_params={hidden_layer_size: 8, dropout: 0}"


def finetune(name: str, *arguments: str, data: tuple[str, ...] = DATA) -> Path:
    kind = () if any(word.startswith("task.kind=") for word in arguments) else ("task.kind=sequence_regression",)
    words = ("task=finetune", f"name={name}", *COMMON, *data, *RECIPE, "task.baseline=false", HEAD, *kind, *arguments)
    assert cli.main([*words]) == 0
    return next(Path("home/runs").glob(f"{name}/*/summary.json")).parent


def losses_of(run: Path) -> list[str]:
    with (run / "metrics.csv").open(newline="") as file:
        return [row["reduced_train_loss"] for row in csv.DictReader(file) if row["reduced_train_loss"]]


def predict(name: str, *arguments: str) -> list[dict[str, str]]:
    words = ("task=predict", *COMMON[:3], "task.input=pairs.csv", f"task.output={name}.csv", *arguments)
    assert cli.main([*words]) == 0
    with Path(f"{name}.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def predicted(name: str, *arguments: str) -> np.ndarray:
    return np.array([float(row["prediction"]) for row in predict(name, *arguments)])


def mean_state(network: torch.nn.Module, tokenizer: Tokenizer, text: str) -> torch.Tensor:
    """Return the mean state of one sequence alone, [hidden]."""
    with_ends = hasattr(network, "hidden_states")
    ids = tokenizer.encode(text)
    tokens = np.concatenate([[tokenizer.bos_id], ids, [tokenizer.eos_id]]) if with_ends else ids
    example = Example(tokens, tokens, np.ones(len(tokens), dtype=bool))
    batch = TokenBatch.of(collate([example], 1, RowShape(64, 1, tokenizer.pad_id, packing=False)))
    states: Any = network.hidden_states(batch)[1:] if with_ends else network.encode(batch).states  # type: ignore[operator]
    return states[: len(ids), 0].mean(0)


@pytest.mark.parametrize(("name", "start"), [("one", ONE), ("two", TWO)])
def test_the_losses_of_a_training_against_torch(table, name, start):
    """Every step reads all 8 pairs in two micro batches, so the order of the pairs makes no difference."""
    batch = ("batch.micro_batch_size=4", "batch.accumulate_grad_batches=2", "trainer.max_steps=3")
    run = finetune(f"full_{name}", *start, *batch, "task.encoder=full", "optim.weight_decay=0")
    opened = bionemo_core.open_model(run / "model")
    fresh = load_registry().build(opened.spec.model, tokenizer=opened.tokenizer, context=BuildContext())
    sides = [bionemo_core.open_model("proteins"), bionemo_core.open_model("proteins" if name == "one" else "molecules")]
    networks = [network_of(side.module).train() for side in sides]
    networks[1] = networks[name == "two"]
    starts = [{key: p.clone() for key, p in network.named_parameters()} for network in networks]
    head: Any = network_of(fresh).head
    parameters = {id(p): p for module in (*networks, head) for p in module.parameters()}
    optimizer = torch.optim.AdamW(list(parameters.values()), lr=0.01, weight_decay=0.0)
    rows = [row for row in table if row["set"] == "train"]
    labels = torch.tensor([float(row["target"]) for row in rows])
    columns = ("first", "second" if name == "one" else "molecule")
    scaled, losses = (labels - labels.mean()) / labels.std(correction=0), []
    for _ in range(3):
        a, b = (
            torch.stack([mean_state(network, side.tokenizer, row[column]) for row in rows])
            for network, side, column in zip(networks, sides, columns, strict=True)
        )
        x = torch.cat([a, b, (a - b).abs(), a * b] if name == "one" else [a, b], dim=1)
        for linear in head.linears[:-1]:
            x = linear(x).relu()
        loss = F.mse_loss(head.linears[-1](x)[:, 0], scaled)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert [float(loss) for loss in losses_of(run)] == pytest.approx(losses, rel=1e-4)
    trained: Any = network_of(opened.module)
    for ours, theirs, before in zip((trained.encoder_network, trained.second_network), networks, starts, strict=True):
        if ours is not None:
            found = dict(ours.named_parameters())
            learned = {key: p for key, p in theirs.named_parameters() if p.grad is not None}
            assert len(learned) > 10 and all(not torch.equal(p, before[key]) for key, p in learned.items())
            assert all(torch.allclose(found[key], p, atol=2e-4) for key, p in learned.items())


def test_a_resumed_run_is_the_straight_one(table):
    """With packing, dropout, accumulated batches, and DoRA on two encoders."""
    words = (*TWO, *LORA, "task.lora_dropout=0.2", "batch.packing=true", "batch.seq_length=40")
    words = (*words, "batch.micro_batch_size=1", "batch.accumulate_grad_batches=2", "checkpoint.every_n_steps=2")
    straight = finetune("straight", *words, "trainer.max_steps=4")
    finetune("broken", *words, "trainer.max_steps=2")
    resumed = finetune("broken", *words, "trainer.max_steps=4", "resume=last")
    assert len(losses_of(straight)) == 4 and losses_of(resumed) == losses_of(straight)
    one, two = (dict(named_weights(bionemo_core.open_model(run / "model").module)) for run in (straight, resumed))
    assert one.keys() == two.keys() and all(torch.equal(one[key], two[key]) for key in one)
    ups = [key for key in one if key.endswith("lora.up")]
    assert {key.split(".")[1] for key in ups} == {"encoder_network", "second_network"}
    assert all(one[key].abs().sum() > 0 for key in ups), "gradients reach every adapter of both encoders"


def test_adapters_of_two_encoders_are_saved_and_loaded(table, capsys):
    run = finetune("adapted", *TWO, *LORA, "trainer.max_steps=3", "task.baseline=true", "optim.lr=0.05")
    assert "baseline" in capsys.readouterr().out
    columns = ("task.second_column=molecule",)
    whole = predicted("whole", f"restore_from_path={run / 'model'}", *columns)
    adapter = ("restore_from_path=proteins", f"task.adapter={run / 'adapter'}", *columns)
    assert predicted("apart", *adapter, "task.second_model=molecules") == pytest.approx(whole, abs=1e-6)
    # As the run itself measured it, on the pairs of its test split.
    targets = np.array([float(row["target"]) for row in table])
    tested = [number for number, row in enumerate(table) if row["set"] == "test"]
    score = json.loads((run / "summary.json").read_text())["test"]
    assert score["mse"] == pytest.approx(np.square(whole - targets)[tested].mean(), rel=1e-4)
    words = ("task=evaluate", *COMMON[:2], f"restore_from_path={run}", "task.output=report")
    assert cli.main([*words]) == 0
    found = json.loads(Path("report/metrics.json").read_text())["metrics"]
    assert found == pytest.approx(score, rel=1e-4)
    capsys.readouterr()
    use = ("task=predict", *COMMON[:3], "task.input=pairs.csv", "task.output=no.csv")
    peft = ("task=convert", "restore_from_path=proteins", "task.to=peft", "task.output=no", adapter[1])
    for words, expected in (
        ((*use, *adapter), "has adapters of two models"),
        ((*use, *adapter, "task.second_model=others"), "task.second_model=others: has other weights"),
        ((*use, f"restore_from_path={run}", "task.second_model=molecules"), "not used by a model whose encoders were"),
        (peft, "has adapters of two models, which a folder of peft cannot hold"),
    ):
        assert cli.main([*words]) == 2
        assert expected in capsys.readouterr().err


def test_packed_pairs_and_several_labels(table, capsys):
    """Both sides of a pack may hold different numbers of tokens; a missing label counts nowhere."""
    words = (*TWO, "task.encoder=full", "data.target_column=null", "data.target_columns=[target,other]")
    words = (*words, "task.second_model=latents")  # whose encoder has a fixed number of states
    run = finetune("several", *words, "trainer.max_steps=2", "batch.packing=true", "batch.micro_batch_size=1")
    assert "1 pack of up to 512 and 128 tokens a step" in capsys.readouterr().out
    rows = predict("several", f"restore_from_path={run}", "task.second_column=molecule")
    score = json.loads((run / "summary.json").read_text())["test"]
    errors = [
        (float(row[f"prediction_{key}"]) - float(given[key])) ** 2
        for row, given in zip(rows, table, strict=True)
        for key in ("target", "other")
        if given["set"] == "test"
    ]
    assert score["mse"] == pytest.approx(np.mean(errors), rel=1e-4)


def test_partners_are_learned_by_encoders(table):
    words = ("task.kind=pair_matching", "data.target_column=null", "task.encoder=full", "task.projection_size=8")
    run = finetune("matching", *ONE, *words, "trainer.max_steps=2", "batch.micro_batch_size=8")
    cosines = predicted("matching", f"restore_from_path={run}")
    assert len(losses_of(run)) == 2 and (np.abs(cosines) <= 1).all()
    opened: Any = bionemo_core.open_model(run)
    network: Any = network_of(opened.module)
    objective, shape = opened.module.objective, RowShape(64, 12, opened.tokenizer.pad_id, target_length=64)
    records = [LabelledRecord(0, row["first"].encode(), TOGETHER, "", second=row["second"].encode()) for row in table]
    batch = Seq2SeqBatch.of(objective.collate([objective.record_example(record) for record in records], 12, shape))
    hashes = sequence_hashes(batch.source), sequence_hashes(batch.target)
    for found, column in zip(hashes, ("first", "second"), strict=True):
        assert [[a == b for b in found.tolist()] for a in found.tolist()] == [
            [a[column] == b[column] for b in table] for a in table
        ]
    points = network.predictions(batch)
    loss = Contrastive()(points, share_a_sequence(*hashes), torch.ones(len(table), dtype=torch.bool))
    assert float(network(batch).detach()) == pytest.approx(float(loss.detach()), rel=1e-5)


def test_the_rows_and_the_blocks_of_two_encoders(table):
    opened = bionemo_core.open_model(finetune("short", *TWO, "task.encoder=full", "trainer.max_steps=1"))
    objective: Any = opened.module.objective
    letters = np.array([[9, 4], [1000, 1000]])
    first, second = objective.laid_lengths(letters)
    assert first.tolist() == [11, 512] and second.tolist() == [4, 510]
    objective.limit_rows(20)
    assert [side.tolist() for side in objective.laid_lengths(letters)] == [[11, 20], [4, 20]]
    assert objective.target_length == 20
    with pytest.raises(DataError, match="has 21 tokens"):
        objective.record_example(LabelledRecord(0, b"MKTAY", "1", "", second=b"C" * 21))
    # Every block that is sharded on its own is read: a decoder's are not, and FSDP would fail in the backward pass.
    read: list[torch.nn.Module] = []
    network: Any = network_of(opened.module)
    for block in network.layers:
        block.register_forward_hook(lambda block, *_: read.append(block))
    record = LabelledRecord(0, b"MKTAY", "1", "", second=b"CCO")
    shape = RowShape(20, 1, opened.tokenizer.pad_id, target_length=20)
    network(Seq2SeqBatch.of(objective.collate([objective.record_example(record)], 1, shape)))
    assert len(network.layers) == 2 and set(read) == set(network.layers)


AUGMENTED = (
    "data=augmented",
    "data.source={data: labelled_pairs, dataset_path: pairs.csv, split_column: set, second_column: molecule}",
    "data.augmentations=[random_smiles]",
    "data.sides=second",
)


def test_molecules_are_spelt_at_random_in_each_pass(table, monkeypatch, capsys):
    from bionemo_core.finetuning.pairs.pair_objective import PairLabelObjective

    read: list[tuple[str, bytes, bytes]] = []
    example = PairLabelObjective.record_example

    def note(self, record, draw=None):
        read.append((record.id, record.sequence, record.second))
        return example(self, record, draw)

    monkeypatch.setattr(PairLabelObjective, "record_example", note)
    start = (*TWO[:2], *AUGMENTED, "task.encoder=full", "trainer.val_check_interval=4", "batch.micro_batch_size=8")
    finetune("augmented", *start, "trainer.max_steps=4", data=())
    given = {row["id"]: row for row in table}
    train = [one for one in read if given[one[0]]["set"] == "train"]
    assert len(train) == 32 and all(first == given[name]["first"].encode() for name, first, _ in train)
    for molecule in ("CCO", "CC(=O)O", "CCCCN"):  # the others are symmetric
        assert len({one for name, _, one in train if given[name]["molecule"] == molecule}) > 1
    assert all(one == given[name]["molecule"].encode() for name, _, one in read if given[name]["set"] == "test")
    refused = ("task=finetune", *COMMON, *ONE, *AUGMENTED)
    capsys.readouterr()
    for words, expected in (
        (("task.kind=sequence_regression", TWO[1]), "so changes would have no effect"),
        (("task.kind=token_regression", "task.encoder=full", TWO[1]), "which would not follow the changes"),
    ):
        assert cli.main([*refused, *words]) == 2
        assert expected in capsys.readouterr().err


def test_an_evaluation_reads_molecules_as_they_are(table):
    source = "{data: labelled_csv, dataset_path: pairs.csv, split_column: set, sequence_column: molecule}"
    data = (*AUGMENTED[:1], f"data.source={source}", AUGMENTED[2])
    words = ("restore_from_path=molecules", "task.encoder=full", "trainer.max_steps=2")
    run = finetune("single", *words, data=data)
    report = ("task=evaluate", *COMMON[:2], f"restore_from_path={run}", "task.output=single_report", "task.split=train")
    assert cli.main([*report]) == 0
    with Path("single_report/predictions.csv").open(newline="") as file:
        errors = [(float(row["prediction"]) - float(row["label"])) ** 2 for row in csv.DictReader(file)]
    found = json.loads(Path("single_report/metrics.json").read_text())["metrics"]
    assert found["mse"] == pytest.approx(np.mean(errors), rel=1e-4)
