"""Names that `bionemo-run new-plugin` refuses, and the free name that each message proposes."""

import re
from pathlib import Path

import pytest

from bionemo_core import cli


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BIONEMO_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("typed", "reason"),
    [
        ("bionemo-run", "bionemo-run is installed already, and the new plugin would replace it"),
        ("core", "the package bionemo_core is installed already, and the new plugin would hide it"),
        ("torch", "'torch' is the name of an installed package"),
        ("numpy", "'numpy' is the name of an installed package"),
        ("pytorch-lightning", "'pytorch-lightning' is the name of an installed package"),
        ("yaml", "'yaml' is the name of an installed package"),
        ("class", "'class' has a meaning in Python"),
        ("match", "'match' has a meaning in Python"),
        ("list", "'list' has a meaning in Python"),
        ("json", "'json' is a module of Python"),
        ("residues", "'residues' is a word that plugins use"),
        ("Night Owl", "is not a valid package name"),
    ],
)
def test_a_name_that_is_taken_is_refused_with_one_that_works(folder: Path, capsys, typed: str, reason: str) -> None:
    assert cli.main(["new-plugin", typed]) == 2
    message = capsys.readouterr().err
    assert reason in message
    assert not [path for path in folder.iterdir() if path.name.startswith("bionemo-")]
    hint = re.search(r"bionemo-run (new-plugin [\w-]+)", message)
    assert hint is not None
    assert cli.main(hint[1].split()) == 0


def test_a_folder_that_cannot_be_written_is_answered_with_the_option(folder: Path, capsys) -> None:
    (folder / "file").touch()
    assert cli.main(["new-plugin", "own", "--folder", "file/own"]) == 7
    assert capsys.readouterr().err.endswith("Name a folder that you can write to, with --folder.\n")


@pytest.mark.parametrize("typed", ["fasta", "fa", "gz"])
def test_a_reader_of_a_format_that_the_core_reads_is_refused(capsys, typed: str) -> None:
    assert cli.main(["new-plugin", typed, "--kind", "reader"]) == 2
    assert f"bionemo-run reads files of the format {typed!r} itself" in capsys.readouterr().err


def test_a_model_that_exists_is_refused(capsys) -> None:
    pytest.importorskip("bionemo_esm")
    assert cli.main(["new-plugin", "esm1nv-tiny"]) == 2
    assert "already has the model 'esm1nv_tiny'" in capsys.readouterr().err
    assert cli.main(["new-plugin", "sample", "--kind", "dataset"]) == 2
    assert "bionemo-run already has the data source 'sample'." in capsys.readouterr().err
    assert cli.main(["new-plugin", "esm"]) == 2
    assert "bionemo-esm is installed already" in capsys.readouterr().err
