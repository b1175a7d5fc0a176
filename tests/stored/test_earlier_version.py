"""What an earlier version wrote is opened by this one: its runs go on, its models give the same numbers."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from write_stored_set import BEGUN, ESM2, FAMILIES, OWN_FASTA, PROTEINS, RUN, WHOLE, losses, predictions, words_for

import bionemo_core
from bionemo_core import cli
from bionemo_core.errors import BioNeMoError

HERE = Path(__file__).parent
VERSIONS = sorted(path.name for path in HERE.glob("v*"))
TOLERANCE = 1e-5
OTHER_NOISE = {"v0.1.0-molmim_xsmall": 1e-3}
"""Relative tolerances of runs whose noise was drawn by another rule, for each rank apart."""


@pytest.fixture(params=[(version, family) for version in VERSIONS for family in FAMILIES], ids="-".join)
def stored(request) -> tuple[Path, dict, str]:
    version, family = request.param
    expected = json.loads((HERE / version / "expected.json").read_text())
    return HERE / version / family, expected[family], family


def test_a_stored_run_goes_on_with_the_same_losses(stored, tmp_path, monkeypatch):
    folder, expected, family = stored
    run = tmp_path / "runs/stored/2026-11-24_00-00-00"
    shutil.copytree(folder / "run", run)
    monkeypatch.setenv("BIONEMO_HOME", str(tmp_path))
    assert cli.main([*words_for(family), WHOLE, "resume=last"]) == 0
    now = losses(run)
    assert now.keys() == expected["losses"].keys()
    for step, loss in expected["losses"].items():
        assert now[step] == pytest.approx(loss, rel=OTHER_NOISE.get(f"{folder.parent.name}-{family}", TOLERANCE)), step


@pytest.mark.parametrize("name", ["artefact.safetensors", "archive.nemo", "run"])
def test_a_stored_model_gives_the_same_embeddings(stored, name, tmp_path):
    folder, expected, family = stored
    source = tmp_path / name
    (shutil.copytree if name == "run" else shutil.copy)(folder / name, source)
    found = bionemo_core.embed(str(source), FAMILIES[family])
    np.testing.assert_allclose(found, np.array(expected["embeddings"]), atol=TOLERANCE)


def test_a_changed_artefact_is_refused(stored, tmp_path):
    folder, _, family = stored
    content = bytearray((folder / "artefact.safetensors").read_bytes())
    content[-3] ^= 1
    (tmp_path / "changed.safetensors").write_bytes(content)
    with pytest.raises(BioNeMoError, match="SHA-256"):
        bionemo_core.embed(str(tmp_path / "changed.safetensors"), FAMILIES[family])


@pytest.fixture(params=VERSIONS)
def others(request) -> tuple[Path, dict]:
    folder = HERE / request.param
    return folder, json.loads((folder / "expected.json").read_text())


def test_a_stored_huggingface_folder_gives_the_same_embeddings(others):
    folder, expected = others
    found = bionemo_core.embed(str(folder / "esm2"), FAMILIES["esm1nv_tiny"])
    np.testing.assert_allclose(found, np.array(expected["huggingface"]), atol=TOLERANCE)


def test_a_stored_fine_tuned_model_predicts_the_same(others, tmp_path):
    folder, expected = others
    found = predictions(tmp_path, folder / "finetuned.safetensors")
    np.testing.assert_allclose(found, expected["finetuned"], atol=TOLERANCE)


def test_a_stored_prepared_store_is_used_and_gives_the_same_losses(others, tmp_path, monkeypatch):
    folder, expected = others
    shutil.copytree(folder / "prepared", tmp_path / "prepared")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "prepared").glob("*/*")}
    (tmp_path / "proteins.fasta").write_text(PROTEINS)
    monkeypatch.setenv("BIONEMO_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert cli.main([*ESM2, *RUN, *OWN_FASTA, BEGUN]) == 0
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "prepared").glob("*/*")} == before
    now = losses(next((tmp_path / "runs/stored").iterdir()))
    assert now == pytest.approx(expected["prepared"], rel=TOLERANCE)
