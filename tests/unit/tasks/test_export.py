"""Exported encoders: run by others, they give the embeddings of the package, for any length and number of texts."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import bionemo_core
from bionemo_core import cli
from bionemo_core.errors import ConfigError
from bionemo_core.tasks.conversion import export

STORED = Path(__file__).parents[2] / "stored/v0.1.0"
PROTEINS, MOLECULES = ["MKTAYIAKQRUZ", "GS", "LLEAVQTWHK"], ["CCO", "O=C(O)c1ccccc1", "CN"]  # canonical
TEXTS = {
    "esm1nv_tiny": PROTEINS,
    "esm2": PROTEINS,
    "prott5nv_tiny": PROTEINS,
    "megamolbart_xsmall": MOLECULES,
    "molmim_xsmall": MOLECULES,
}


def _stored(name: str) -> str:
    return str(STORED / name / ("" if name == "esm2" else "artefact.safetensors"))


def _write(name: str, form: str, folder: Path) -> Path:
    target, source = folder / "encoder", _stored(name)
    assert cli.main(["task=convert", f"restore_from_path={source}", f"task.to={form}", f"task.output={target}"]) == 0
    return target


def _inputs(facts: dict, texts: list[str], encode) -> tuple[np.ndarray, np.ndarray]:
    """What a program of one's own makes of texts, from `encoder.json` and a tokenizer."""
    spelt = ["".join(facts["replaced_letters"].get(letter, letter) for letter in text) for text in texts]
    rows = [[*facts["begins_with"], *encode(text), *facts["ends_with"]] for text in spelt]
    longest = max(map(len, rows))
    ids = np.array([row + [facts["pad_id"]] * (longest - len(row)) for row in rows])
    return ids, np.array([[1] * len(row) + [0] * (longest - len(row)) for row in rows])


def _means(states: np.ndarray, mask: np.ndarray, facts: dict) -> np.ndarray:
    if states.shape[1] != mask.shape[1] or "molmim" in facts["model"]:
        return states.mean(1)  # of a perceiver's latents
    first, last = len(facts["begins_with"]), len(facts["ends_with"])
    return np.stack([row[first : count - last].mean(0) for row, count in zip(states, mask.sum(1), strict=True)])


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.slow] * (name != "esm2")) for name in TEXTS])
def test_onnx_gives_the_embeddings_of_the_package(name, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("BIONEMO_HOME", str(tmp_path / "home"))
    onnxruntime = pytest.importorskip("onnxruntime")
    folder = _write(name, "onnx", tmp_path)
    assert "(onnx, the encoder; within " in capsys.readouterr().out
    facts = json.loads((folder / "encoder.json").read_text())
    opened = bionemo_core.open_model(_stored(name))
    ids, mask = _inputs(facts, TEXTS[name], lambda text: opened.tokenizer.encode(text).tolist())
    session = onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
    (states,) = session.run(["hidden_states"], {"input_ids": ids, "attention_mask": mask})
    wanted = np.asarray(bionemo_core.embed(opened, TEXTS[name]))
    spread = np.abs(wanted[0] - wanted[1]).max()  # of an untrained perceiver 1e-4 of its states, else about all of them
    assert np.abs(_means(states, mask, facts) - wanted).max() < min(1e-4 * np.abs(wanted).max(), spread / 10)
    assert facts["canonical"] == (TEXTS[name] is MOLECULES)
    assert facts["largest_difference"] < 1e-5 and facts["pieces"] == list(opened.tokenizer.pieces)


def test_torch_export_gives_the_same_program(tmp_path, monkeypatch):
    monkeypatch.setenv("BIONEMO_HOME", str(tmp_path / "home"))
    folder = _write("esm1nv_tiny", "torch_export", tmp_path)
    facts = json.loads((folder / "encoder.json").read_text())
    pieces = {piece: number for number, piece in enumerate(facts["pieces"])}
    ids, mask = _inputs(facts, ["MKT", "LLEAVQTW"], lambda text: [pieces[letter] for letter in text])
    states = torch.export.load(folder / "encoder.pt2").module()(torch.tensor(ids), torch.tensor(mask)).detach().numpy()
    wanted = np.asarray(bionemo_core.embed(_stored("esm1nv_tiny"), ["MKT", "LLEAVQTW"]))
    assert np.abs(_means(states, mask, facts) - wanted).max() < 1e-5 * np.abs(wanted).max()


@pytest.mark.slow
def test_triton_gets_a_repository(tmp_path, monkeypatch):
    monkeypatch.setenv("BIONEMO_HOME", str(tmp_path / "home"))
    folder = _write("esm1nv_tiny", "triton", tmp_path)
    assert sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()) == [
        "encoder/1/encoder.json",
        "encoder/1/model.onnx",
        "encoder/config.pbtxt",
    ]
    config = (folder / "encoder/config.pbtxt").read_text()
    assert 'name: "encoder"' in config and 'name: "attention_mask" data_type: TYPE_INT64 dims: [ -1 ]' in config
    hidden = np.asarray(bionemo_core.embed(_stored("esm1nv_tiny"), ["MKT"])).shape[-1]
    assert f"TYPE_FP32 dims: [ -1, {hidden} ]" in config


def test_an_encoder_that_computes_something_else_is_not_written(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("BIONEMO_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(export, "_difference", lambda *_: 2e-4)
    source, target = _stored("esm1nv_tiny"), tmp_path / "encoder"
    status = cli.main(["task=convert", f"restore_from_path={source}", "task.to=torch_export", f"task.output={target}"])
    assert status == 2 and not target.exists()
    assert "differs from the network by 2.0e-04 of its largest state" in capsys.readouterr().err


def test_without_onnx_the_extra_is_named(monkeypatch):
    monkeypatch.setattr(export, "has_package", lambda name: name != "onnxscript")
    with pytest.raises(ConfigError, match=r"needs onnxscript.*bionemo-run\[onnx\].*task.to=torch_export"):
        export.check_export("triton")
    export.check_export("torch_export")
