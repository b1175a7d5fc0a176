"""A model whose layers are split over two ranks embeds, scores and predicts as one that is whole."""

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from runs import Home, start_ranks

import bionemo_core
from bionemo_core.interop.artefact import Artefact, write_artefact
from bionemo_core.interop.stored import ModelSpec, Vocabulary
from bionemo_core.models.named_weights import named_weights
from bionemo_core.parallel.weights import network_of

pytest.importorskip("bionemo_esm")
pytest.importorskip("bionemo_t5")

PLUGINS = "bionemo-esm,bionemo-t5"
COMMON = ("trainer.num_threads=1", "trainer.accelerator=cpu", "trainer.progress_bar=false")
SPLIT = ("trainer.devices=2", "parallel.tensor_model_parallel_size=2")
SHAPES = {
    "esm": ("model=esm2_8m", "model.num_layers=2", "model.hidden_size=32", "model.num_attention_heads=4"),
    "t5": ("model=prott5nv_tiny", "model.num_layers=2", "model.hidden_size=32", "model.num_attention_heads=4"),
}
PROTEIN = "MKTAYIAKQRQISFVK"

Model = Callable[[str], Path]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """Makes an artefact with random weights of one of `SHAPES`."""
    root = tmp_path_factory.mktemp("models")

    def make(name: str) -> Path:
        if not (root / name).exists():
            parts = bionemo_core.build(*SHAPES[name], *COMMON)
            spec = ModelSpec(parts.spec.model, parts.spec.tokenizer)
            tensors = {key: tensor * 3 for key, tensor in named_weights(network_of(parts.module))}
            write_artefact(root / name, Artefact(spec, Vocabulary.of(parts.tokenizer.pieces)), tensors)
        return root / name

    return make


@pytest.fixture
def proteins(tmp_path: Path) -> Path:
    path = tmp_path / "p.fasta"
    path.write_text("".join(f">{n}\n{PROTEIN * (1 + n % 3)}{'ACDEFGHIK'[:n]}\n" for n in range(9)))
    return path


def both(home: Home, output: Path, *arguments: str) -> tuple[Path, Path, str]:
    """What one process and two ranks write, and what the latter print."""
    whole, split = (output.with_name(f"{kind}-{output.name}") for kind in ("whole", "split"))
    typed = (*COMMON, *arguments)
    one = home.task(*typed, f"name={whole.stem}", f"task.output={whole}", BIONEMO_LOAD_PLUGINS=PLUGINS)
    assert one.wait() == 0, one.output()
    typed = (*typed, *SPLIT, f"name={split.stem}", f"task.output={split}")
    ranks = start_ranks(home.task, 2, *typed, BIONEMO_LOAD_PLUGINS=PLUGINS)
    assert [rank.wait() for rank in ranks] == [0, 0], ranks[0].output()
    return whole, split, ranks[0].output()


@pytest.mark.parametrize(("name", "outputs"), [("esm", "embeddings,hiddens,logits"), ("t5", "embeddings,hiddens")])
def test_embeddings_of_a_split_model_are_those_of_a_whole_one(home, model, proteins, tmp_path, name, outputs):
    typed = ("task=embed", f"restore_from_path={model(name)}", f"task.input={proteins}", f"task.outputs=[{outputs}]")
    whole, split, said = both(home, tmp_path / f"{name}.npz", *typed, "task.tokens_per_part=64")
    with np.load(whole) as expected, np.load(split) as got:
        assert set(got) == set(expected)
        for key in expected:
            if expected[key].dtype.kind == "f":
                np.testing.assert_allclose(got[key], expected[key], rtol=1e-5, atol=1e-5)
                assert np.abs(expected[key]).max() > 0.05
            elif expected[key].shape:
                assert (got[key] == expected[key]).all()
            else:  # what made them; the parts of the weights have a fingerprint of their own, so neither continues
                facts = [json.loads(str(one[key])) for one in (got, expected)]
                assert facts[0].pop("weights") != facts[1].pop("weights")
                assert facts[0] == facts[1]
    assert said.count("9 sequences") == 1, "only one rank speaks"
    assert not split.with_name(f"{split.name}.parts").exists()


def test_scores_of_a_split_model_are_those_of_a_whole_one(home, model, tmp_path):
    (tmp_path / "v.csv").write_text("mutant\nM1A\nK2R:T3S\nY5del\nT3_Y5del\nK8W\n")
    typed = (f"restore_from_path={model('esm')}", f"task.variants={tmp_path / 'v.csv'}", f"task.wild_type={PROTEIN}")
    whole, split, said = both(home, tmp_path / "v.csv", "task=predict", *typed, "task.tokens_per_batch=40")
    first, second = (list(csv.reader(path.read_text().splitlines())) for path in (whole, split))
    assert [row[:2] for row in second] == [row[:2] for row in first]
    assert first[0][2] == "score"
    scores = [[float(row[2]) for row in rows[1:]] for rows in (first, second)]
    assert scores[1] == pytest.approx(scores[0], abs=2e-5)
    assert said.count("5 rows") == 1


def test_predictions_of_a_split_model_are_those_of_a_whole_one(home, proteins, tmp_path):
    rows = [f"{PROTEIN[n:]},{n},{'train' if n < 9 else 'val'}" for n in range(12)]
    (tmp_path / "t.csv").write_text("\n".join(["sequence,target,split", *rows]) + "\n")
    tuned = home.task(
        *(*COMMON, *SHAPES["esm"], "task=finetune", "task.kind=sequence_regression", "data=labelled_csv", "name=tuned"),
        *(f"data.dataset_path={tmp_path / 't.csv'}", "data.split_column=split", "task.do_testing=false"),
        *("trainer.max_steps=2", "batch.micro_batch_size=2", "trainer.val_check_interval=2", "batch.num_workers=0"),
        "scheduler.warmup_steps=1",
        BIONEMO_LOAD_PLUGINS=PLUGINS,
    )
    assert tuned.wait() == 0, tuned.output()
    typed = (f"restore_from_path={tuned.folder / 'model'}", f"task.input={proteins}", "task.tokens_per_batch=20")
    whole, split, _ = both(home, tmp_path / "p.csv", "task=predict", *typed)
    first, second = (list(csv.reader(path.read_text().splitlines())) for path in (whole, split))
    assert [row[0] for row in second] == [row[0] for row in first]
    values = [[float(row[1]) for row in rows[1:]] for rows in (first, second)]
    assert values[1] == pytest.approx(values[0], rel=1e-5, abs=1e-5)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("task=embed", "task.outputs=[attentions]"), "task.outputs=[attentions] needs all heads on one device"),
        (("task=embed", "trainer.devices=3"), "parallel.tensor_model_parallel_size=2 does not divide the 3 processes"),
        (("task=evaluate",), "task=evaluate shares its work among trainer.devices, and does not split the model"),
        (("task=predict", "parallel.pipeline_model_parallel_size=2"), "does not split by layers"),
        (("task=predict", "task.adapter=there"), "task.adapter is not split"),
    ],
)
def test_what_cannot_be_split_is_refused_by_name(home, model, proteins, tmp_path, arguments, said):
    of_input = () if "task=evaluate" in arguments else (f"task.input={proteins}",)
    output = f"task.output={tmp_path / 'o.npz'}"
    typed = (*COMMON, *SPLIT, f"restore_from_path={model('esm')}", output, *of_input, *arguments)
    typed = {one.partition("=")[0]: one for one in typed}.values()
    printed = home.command(*typed, BIONEMO_LOAD_PLUGINS=PLUGINS)
    assert said in printed
    assert printed.count("error[config]") == 1
