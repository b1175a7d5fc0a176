"""`bionemo-run new-plugin`: what it writes is found, trains and passes the conformance kit."""

import re
from pathlib import Path

from documents import pass_own_tests, pretend_installed, python_path
from runs import Home


def test_what_it_writes_passes_the_kit(home: Home, forked_command, tmp_path: Path):
    done = forked_command("new-plugin", "night-owl")
    assert done.returncode == 0, done.stderr
    assert "bionemo-run model=night_owl" in done.stdout
    folder = tmp_path / "bionemo-night-owl"
    assert sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()) == [
        ".github/workflows/tests.yml",
        "LICENSE",
        "README.md",
        "bionemo_night_owl/__init__.py",
        "bionemo_night_owl/network.py",
        "bionemo_night_owl/plugin.py",
        "pyproject.toml",
        "tests/test_bionemo_night_owl_conformance.py",
    ]
    pretend_installed(folder)
    pass_own_tests(home, folder)
    assert "bionemo-run model=night_owl\n" in (folder / "README.md").read_text()
    trained = forked_command("model=night_owl", "batch.num_workers=0", PYTHONPATH=python_path(folder))
    assert trained.returncode == 0, trained.stderr
    assert "highest 4.00e-03 at step 11, 2.00e-05 at the end" in trained.stdout
    losses = [float(value) for value in re.findall(r"^step .*\d  val_loss ([\d.]+)$", trained.stdout, re.MULTILINE)]
    assert len(losses) == 5
    assert losses == sorted(losses, reverse=True), "the README says that the loss falls at each validation"
    assert losses[0] - losses[-1] > 0.05
    for key, value in (("hidden_size", "0"), ("hidden_dropout", "1.5")):
        refused = forked_command("model=night_owl", f"model.{key}={value}", PYTHONPATH=python_path(folder))
        assert refused.returncode == 2, refused.stderr
        assert f"model.{key}: got {value}, expected" in refused.stderr


def test_a_name_or_folder_that_cannot_be_used_is_refused(forked_command, tmp_path: Path):
    for name, words in (("Night Owl", "is not a valid package name"), ("esm1nv-tiny", "already has the model")):
        done = forked_command("new-plugin", name)
        assert done.returncode == 2
        assert words in done.stderr
    (tmp_path / "bionemo-owl").mkdir()
    done = forked_command("new-plugin", "owl")
    assert done.returncode == 2
    assert "exists already" in done.stderr
    assert not list((tmp_path / "bionemo-owl").iterdir())
