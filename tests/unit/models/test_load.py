"""One model in every format: opened, converted and loaded into another run, with a report on each tensor."""

import dataclasses
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from bionemo_core import cli
from bionemo_core.builtin import load_registry
from bionemo_core.checkpoint.save import save
from bionemo_core.config.schema import OPENED, Choice, Restore, RunSpec
from bionemo_core.config.spec import to_json
from bionemo_core.errors import ArtefactError, CheckpointError, ConfigError, NonFiniteError
from bionemo_core.finetuning.adapters import pretrained_network
from bionemo_core.inference.embedding import Embedder
from bionemo_core.inference.scoring import MaskedScorer
from bionemo_core.interop.artefact import Artefact, write_artefact
from bionemo_core.interop.stored import ModelSpec, Vocabulary
from bionemo_core.models.compatibility import check_plugins
from bionemo_core.models.load import open_model
from bionemo_core.models.locate import open_stored
from bionemo_core.models.named_weights import network_tensors
from bionemo_core.parallel.groups import start_groups
from bionemo_core.parallel.layout import read_layouts
from bionemo_core.parallel.weights import weight_parts
from bionemo_core.protocols import BuildContext
from bionemo_core.runs.first_weights import restore_weights
from bionemo_core.tasks.convert import convert, explain_no_writer

ESM = "bionemo-esm"
SIZES = {"num_layers": 1, "hidden_size": 16, "num_attention_heads": 2, "ffn_hidden_size": 24, "seq_length": 32}
REGISTRY = load_registry()


def spec_of(model: str = "esm1nv", tokenizer: str = "esm1nv", params: dict[str, Any] = SIZES, **more: Any) -> RunSpec:
    version = REGISTRY.get("model", f"{ESM}/{model}").version
    return RunSpec(
        name="mine",
        home="/nowhere",
        seed=7,
        task=more.pop("task", Choice("task", "train")),
        model=Choice("model", model, params, ESM, version),
        tokenizer=Choice("tokenizer", tokenizer, {}, ESM, version),
        data=Choice("data", "sample"),
        optim=Choice("optim", "adamw"),
        scheduler=Choice("scheduler", "constant"),
        **more,
    )


def built(spec: RunSpec) -> Any:
    tokenizer = REGISTRY.build(spec.tokenizer)
    return REGISTRY.build(spec.model, tokenizer=tokenizer, context=BuildContext(seed=spec.seed)).network, tokenizer


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder with two checkpoints of a small ESM-1nv."""
    folder, spec = tmp_path_factory.mktemp("runs") / "first", spec_of()
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "run.json").write_text(to_json(spec))
    network, _ = built(spec)
    groups = start_groups()
    for step in (10, 20):
        with torch.no_grad():
            network.head.dense.bias.fill_(step)
        pieces = weight_parts(network, read_layouts(network, groups), groups)
        save(folder / "checkpoints", step, pieces, {}, facts={"data_fingerprint": "abc"}, consumed_samples=step * 4)
    return folder


def same(got: Any, expected: Any) -> None:
    ours, theirs = network_tensors(got.module.network), network_tensors(expected.module.network)
    assert ours.keys() == theirs.keys()
    for name in theirs:
        assert torch.equal(ours[name], theirs[name]), name


def to(source: Path, target: Path, **settings: Any) -> Path:
    task = Choice("task", "convert", {"output": str(target), **settings})
    opened = replace(spec_of(task=task, restore_from_path=str(source)), model=Choice("model", OPENED))
    convert(opened, REGISTRY)
    return target


def test_a_run_folder_gives_its_newest_checkpoint(run: Path) -> None:
    opened = open_model(str(run), REGISTRY)
    assert opened.facts["step"] == 20 and opened.facts["consumed_samples"] == 80 and opened.facts["run"] == "mine"
    assert (opened.module.network.head.dense.bias == 20).all() and not opened.module.training
    assert opened.report.complete and opened.spec.model.name == "esm1nv"
    older = open_model(str(run / "checkpoints" / "step-00000010"), REGISTRY)
    assert (older.module.network.head.dense.bias == 10).all()


def without(source: Path, target: Path, *names: str) -> Path:
    """Write an artefact of `source` that lacks some tensors."""
    opened = open_model(str(source), REGISTRY)
    tensors = {name: one for name, one in network_tensors(opened.module.network).items() if name not in names}
    write_artefact(target, Artefact(opened.spec, Vocabulary.of(opened.tokenizer.pieces)), tensors)
    return target


@pytest.mark.parametrize(("dtype", "value"), [("float32", float("nan")), ("float16", 1e6)])
def test_weights_that_are_not_finite_are_refused_by_name(run: Path, tmp_path: Path, dtype: str, value: float) -> None:
    opened = open_model(str(run), REGISTRY)
    tensors = dict(network_tensors(opened.module.network))
    tensors["head.dense.bias"] = torch.full_like(tensors["head.dense.bias"], 1.0)
    tensors["head.dense.bias"][3] = value
    write_artefact(tmp_path / "bad", Artefact(opened.spec, Vocabulary.of(opened.tokenizer.pieces)), tensors)
    with pytest.raises(
        NonFiniteError, match=r"bad.*1 of the 16 values of the weight head\.dense\.bias are NaN"
    ) as error:
        open_model(str(tmp_path / "bad"), REGISTRY, dtype=dtype)
    assert ("trainer.precision=32" in str(error.value)) == (dtype == "float16")


FIRST_NORM = "encoder.layers.0.input_layernorm.weight"


def test_a_use_that_needs_a_missing_tensor_names_it(run: Path, tmp_path: Path) -> None:
    source = str(without(run, tmp_path / "lacking", FIRST_NORM, "head.dense.bias"))
    opened = open_model(source, REGISTRY, strict=False)
    assert set(opened.report.missing) == {FIRST_NORM, "head.dense.bias"}
    for use in (Embedder, MaskedScorer):
        with pytest.raises(ArtefactError, match=rf"needs tensors that were not loaded: .*{FIRST_NORM}"):
            use(opened.module, opened.tokenizer)
    with pytest.raises(ArtefactError, match=rf"fine-tuning needs .*{FIRST_NORM}"):
        pretrained_network(opened)
    with pytest.raises(ArtefactError, match=rf"task=convert needs .*{FIRST_NORM}"):
        convert(_convert_spec(source, tmp_path / "out"), REGISTRY)
    assert not (tmp_path / "out").exists()


def test_a_test_without_training_needs_every_tensor(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("BIONEMO_HOME", str(tmp_path / "home"))
    source = without(run, tmp_path / "headless", "head.dense.bias")
    sizes = [f"model.{key}={value}" for key, value in SIZES.items()]
    given = [f"restore_from_path={source}", "restore.strict=false", "task.do_training=false", "task.do_testing=true"]
    assert cli.main(["model=esm1nv", *sizes, *given, "trainer.accelerator=cpu", "batch.num_workers=0"]) == 4
    assert "task.do_training=false needs tensors that were not loaded: head.dense.bias" in capsys.readouterr().err


def test_a_missing_head_stays_missing_in_what_is_written(run: Path, tmp_path: Path) -> None:
    source = without(run, tmp_path / "headless", "head.dense.bias")
    convert(_convert_spec(str(source), tmp_path / "out"), REGISTRY)
    opened = open_model(str(tmp_path / "out"), REGISTRY)
    assert opened.report.missing == ("head.dense.bias",)
    Embedder(opened.module, opened.tokenizer)
    with pytest.raises(ArtefactError, match=r"scoring masked residues needs .*head\.dense\.bias"):
        MaskedScorer(opened.module, opened.tokenizer)
    record = json.loads((tmp_path / "out.restore.json").read_text())
    assert record["missing"] == ["head.dense.bias"] and FIRST_NORM in record["matched"]


def test_restarted_positions_cannot_be_used(run: Path) -> None:
    opened = open_model(str(run), REGISTRY, restore=Restore(positions="restart"), overrides={"seq_length": 64})
    with pytest.raises(ArtefactError, match=r"outputs=embeddings needs .*position_embeddings"):
        Embedder(opened.module, opened.tokenizer)


def _convert_spec(source: str, target: Path) -> RunSpec:
    task = Choice("task", "convert", {"output": str(target)})
    spec = spec_of(task=task, restore_from_path=source, restore=Restore(strict=False))
    return replace(spec, model=Choice("model", OPENED))


def test_every_form_holds_the_same_bits(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    original = open_model(str(run), REGISTRY)
    folder = to(run, tmp_path / "artefact", max_shard_mib=1)
    archive = to(folder, tmp_path / "model.nemo")
    file = to(archive, tmp_path / "model.safetensors")
    for form in (folder, archive, file):
        opened = open_model(str(form), REGISTRY)
        same(opened, original)
        assert opened.spec.model.params == original.spec.model.params
    assert open_model(str(folder), REGISTRY).facts == original.facts
    printed = capsys.readouterr().out
    assert printed.count("0 missing, 0 unexpected") == 3 and "written" in printed
    assert str(tmp_path) not in (folder / "artefact.json").read_text(), "an artefact holds no path of this machine"


def test_half_precision_artefacts_and_models(run: Path, tmp_path: Path) -> None:
    whole = open_model(str(run), REGISTRY)
    half = open_model(str(to(run, tmp_path / "half", dtype="bfloat16")), REGISTRY)
    for name, tensor in network_tensors(half.module.network).items():
        assert torch.equal(tensor, network_tensors(whole.module.network)[name].bfloat16().float())
    assert next(open_model(str(run), REGISTRY, dtype="bfloat16").module.parameters()).dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"to": "nemmo"}, "Did you mean 'nemo'"),
        ({"dtype": "int8"}, "task.dtype"),
        ({"to": "nemo", "dtype": "float16"}, "only an artefact"),
        ({"to": "huggingface"}, "no connector can write it as huggingface"),
    ],
)
def test_an_impossible_conversion_is_refused(run: Path, tmp_path: Path, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        to(run, tmp_path / "out", **settings)
    assert not list(tmp_path.iterdir())


def test_how_a_fine_tuned_model_leaves_is_said() -> None:
    said = explain_no_writer(Choice("model", "finetuned", {}, "bionemo-run"), "nemo")
    assert "no connector can write it as nemo. Write it with task.to=artefact, head included" in said
    assert "its encoder alone with task.part=encoder" in said


def edited(run: Path, folder: Path, **changes: Any) -> Path:
    """Copy the run with changes in its run.json."""
    shutil.copytree(run, folder)
    content = json.loads((folder / "run.json").read_text())
    for key, value in changes.items():
        group, _, leaf = key.partition("__")
        content[group][leaf] = value
    (folder / "run.json").write_text(json.dumps(content))
    return folder


def test_the_data_of_a_run_are_where_its_last_session_read_them(run: Path, tmp_path: Path) -> None:
    folder, moved = edited(run, tmp_path / "run"), {"path": "moved.fasta"}
    content = json.loads((folder / "run.json").read_text())
    for text, expected in (
        ("{", content["data"]["params"]),
        (json.dumps({**content, "data": {**content["data"], "params": moved}}), moved),
    ):
        (folder / "last_run.json").write_text(text)
        stored = open_stored(str(folder), REGISTRY)
        stored.close()
        assert stored.data is not None and stored.data.params == expected


def test_a_missing_plugin_is_named(run: Path, tmp_path: Path) -> None:
    folder = edited(run, tmp_path / "run", model__distribution="bionemo-else", model__version="3.1")
    with pytest.raises(ArtefactError, match=r"'bionemo-else' \(version 3.1\).*Install bionemo-else"):
        open_model(str(folder), REGISTRY)


def test_another_version_of_a_plugin_is_noted(run: Path, tmp_path: Path) -> None:
    opened = open_model(str(edited(run, tmp_path / "run", model__version="0.0.1")), REGISTRY)
    assert any("was saved with bionemo-esm 0.0.1" in note for note in opened.report.notes)


def test_training_from_another_version_of_a_plugin_is_noted(run: Path, tmp_path: Path) -> None:
    folder = edited(run, tmp_path / "run", model__version="0.0.1", tokenizer__version="0.0.2")
    spec = spec_of(restore_from_path=str(folder))
    network, tokenizer = built(spec)
    notes = " ".join(restore_weights(spec, network, start_groups(), REGISTRY, tokenizer).notes)
    assert "model 'esm1nv' was saved with bionemo-esm 0.0.1" in notes
    assert "tokenizer 'esm1nv' was saved with bionemo-esm 0.0.2" in notes


def test_the_plugins_inside_a_model_are_checked_too() -> None:
    encoder = {"name": "esm1nv", "params": SIZES, "distribution": ESM, "version": "0.0.1"}
    head = {"name": "mlp", "params": {}, "distribution": "bionemo-heads", "version": "2.0"}
    tokenizer = Choice("tokenizer", "esm1nv", {}, ESM)
    notes = check_plugins(ModelSpec(Choice("model", "finetuned", {"encoder": encoder}), tokenizer), REGISTRY, "there")
    assert len(notes) == 1 and notes[0].startswith("model 'esm1nv' was saved with bionemo-esm 0.0.1")
    lacking = ModelSpec(Choice("model", "finetuned", {"encoder": encoder, "head": head}), tokenizer)
    with pytest.raises(ArtefactError, match=r"there: it needs head 'mlp' .*Install bionemo-heads"):
        check_plugins(lacking, REGISTRY, "there")


def test_a_tokenizer_that_changed_is_refused(run: Path, tmp_path: Path) -> None:
    folder = to(run, tmp_path / "artefact")
    document = json.loads((folder / "artefact.json").read_text())
    document["vocabulary"]["sha256"] = "0" * 64
    from bionemo_core.interop.artefact import _json_hash

    rest = {key: document[key] for key in document if key not in ("format", "format_version", "sha256_of_the_rest")}
    (folder / "artefact.json").write_text(json.dumps({**document, "sha256_of_the_rest": _json_hash(rest)}))
    with pytest.raises(ArtefactError, match="builds 30 pieces"):
        open_model(str(folder), REGISTRY)


def test_overrides_need_a_rule_where_they_change_a_table(run: Path) -> None:
    assert open_model(str(run), REGISTRY, overrides={"hidden_dropout": 0.5}).report.complete
    with pytest.raises(CheckpointError, match=r"position_embeddings.weight \[32, 16\] instead of \[64, 16\]"):
        open_model(str(run), REGISTRY, overrides={"seq_length": 64})
    longer = open_model(str(run), REGISTRY, overrides={"seq_length": 64}, restore=Restore(positions="interpolate"))
    assert longer.report.resized[0].method == "interpolate" and longer.module.seq_length == 64
    with pytest.raises(ConfigError, match="num_layer"):
        open_model(str(run), REGISTRY, overrides={"num_layer": 2})


def test_a_path_that_is_not_a_model_is_refused_with_what_is_expected(run: Path) -> None:
    for path in (run / "checkpoints", run / "nothing"):
        with pytest.raises(ConfigError, match=r"not a model.*Expected a run folder"):
            open_model(str(path), REGISTRY)
    with pytest.raises(ArtefactError, match=r"not readable as a \.nemo archive"):
        open_model(str(run / "run.json"), REGISTRY)


def test_a_checkpoint_away_from_its_run_is_refused(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run / "checkpoints" / "step-00000020", tmp_path / "step-00000020")
    with pytest.raises(ArtefactError, match="task=convert"):
        open_model(str(tmp_path / "step-00000020"), REGISTRY)


@pytest.mark.parametrize("form", ["run", "artefact", "model.nemo", "model.safetensors"])
def test_training_takes_weights_from_every_form(run: Path, tmp_path: Path, form: str) -> None:
    source = run if form == "run" else to(run, tmp_path / form)
    spec = dataclasses.replace(spec_of(restore_from_path=str(source)), seed=99)
    network, tokenizer = built(spec)
    report = restore_weights(spec, network, start_groups(), REGISTRY, tokenizer)
    assert report.complete and report.source.startswith(str(source))
    expected = network_tensors(open_model(str(run), REGISTRY).module.network)
    assert all(torch.equal(tensor, expected[name]) for name, tensor in network_tensors(network).items())


def test_training_with_another_tokenizer_needs_a_rule(run: Path) -> None:
    spec = spec_of("esm2_8m", "esm2", SIZES, restore_from_path=str(run))
    network, tokenizer = built(spec)
    with pytest.raises(ArtefactError, match=r"'esm1nv' \(30 pieces\) is not this run's 'esm2' \(33 pieces\)"):
        restore_weights(spec, network, start_groups(), REGISTRY, tokenizer)
    seeded = dataclasses.replace(spec, restore=Restore(vocabulary="tile", positions="restart"))
    report = restore_weights(seeded, network, start_groups(), REGISTRY, tokenizer)
    assert {(table.name, table.method) for table in report.resized} == {
        ("embedding.word_embeddings.weight", "tile"),
        ("head.output.bias", "tile"),
        ("embedding.position_embeddings.weight", "restart"),
    }
    assert any("other pieces" in note for note in report.notes)
