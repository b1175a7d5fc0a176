"""The examples of the Python interface run, and training from Python is the training of the command."""

import csv
import re
from pathlib import Path

import pytest
from documents import PROJECT
from runs import Home

TINY = (
    "model.num_layers=1",
    "model.seq_length=64",
    "model.hidden_dropout=0",
    "model.attention_dropout=0",
    "batch.micro_batch_size=2",
    "batch.num_workers=0",
)
SAME = """
import sys
sys.path.insert(0, sys.argv[1])
import own_dataloader, own_loop, own_trainer
import bionemo_core
settings = ["trainer.max_steps=4", "trainer.log_every_n_steps=1", "trainer.progress_bar=false", *sys.argv[3:]]
print("folder", bionemo_core.train("model=esm1nv_tiny", {"home": sys.argv[2]}, *settings))
print("trainer", *(value.hex() for value in own_trainer.main(*settings)))
print("loop", *own_loop.main(*settings))
print("loader", *own_dataloader.main(*settings))
"""


def python(home: Home, folder: Path, *arguments: str) -> str:
    """What a Python process prints, in a home of its own."""
    done = home.python(*arguments, folder=folder, BIONEMO_HOME=str(folder / "home"))
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_every_function_of_the_interface(home: Home, tmp_path):
    printed = python(home, tmp_path, str(PROJECT / "examples/python_api.py"), str(tmp_path))
    found = dict(re.findall(r"^([a-z][\w -]+): (.+)$", printed, re.MULTILINE))
    assert found["embeddings"] == "(2, 192)"
    assert all(-80 < float(value) < 0 for value in found["pseudo-log-likelihoods"].strip("[]").split())
    assert len(found["variants"].split()) == 2
    assert 2.5 < float(found["loss"]) < 3.3
    assert "artefact.json" in found["artefact"]
    assert found["prediction"] == "(1, 1)"
    assert (found["samples near one molecule"], found["samples from the prior"]) == ("2", "2")
    assert "model" in found["an error"]


def test_a_trainer_of_ones_own_has_the_losses_of_the_command(home: Home, tmp_path):
    printed = python(home, tmp_path, "-c", SAME, str(PROJECT / "examples"), str(tmp_path), *TINY)
    kinds = ("folder ", "trainer ", "loop ", "loader ")
    lines = {line.split()[0]: line.split()[1:] for line in printed.splitlines() if line.startswith(kinds)}
    with (Path(lines["folder"][0]) / "metrics.csv").open() as file:
        trained = [float(row["reduced_train_loss"]) for row in csv.DictReader(file) if row["reduced_train_loss"]]
    assert [value.hex() for value in trained] == lines["trainer"]
    looped = [float(value) for value in lines["loop"]]
    assert looped[0] == pytest.approx(trained[0], rel=1e-6)
    assert looped[1:] != pytest.approx(trained[1:], rel=1e-6), "SGD takes other steps than AdamW"
    losses = [float(value) for value in lines["loader"]]
    assert len(losses) == 2 * 64 // 8
    assert sum(losses[8:]) < sum(losses[:8]), "the second pass over the peptides has lower losses"
