"""Each of the core's keys is read by a task, or refused where it was typed, or named in a line."""

import contextlib
import dataclasses
import io
import sys
from collections.abc import Iterator
from pathlib import Path
from time import sleep
from typing import Any

import pytest

from bionemo_core import cli
from bionemo_core.builtin import load_registry
from bionemo_core.cli.unused_keys import check_unused
from bionemo_core.config import spec as spec_module
from bionemo_core.config.schema import CORE_GROUPS, RunSpec
from bionemo_core.errors import ConfigError

pytest.importorskip("bionemo_molbart")

CHECKERS = (
    "dataclasses",
    "copy",
    "bionemo_core.ranges",
    "bionemo_core.config.value_checks",
    "bionemo_core.config.spec",
)
CHECKERS += ("bionemo_core.config.batch_plan", "bionemo_core.config.recompute_options")
"""Modules that look at keys whatever the task."""

COMMON = ("trainer.accelerator=cpu", "trainer.num_threads=1", "batch.num_workers=0")
SMALL = ("model.num_layers=1", "model.hidden_size=32", "model.num_attention_heads=2", *COMMON)
PROTEIN, MOLECULE = ("model=esm1nv_tiny", *SMALL), ("model=molmim_xsmall", *SMALL)
RUNS = {
    "embed": (*PROTEIN, "task.input=p.csv", "task.output=out.npz"),
    "predict": (*PROTEIN, "task.input=p.csv", "task.scoring=pseudo_perplexity", "task.output=out.csv"),
    "evaluate": (*PROTEIN, "task.output=report", "data=fasta", "data.path=p.fasta", "task.split=train"),
    "sample": (*MOLECULE, "task.input=m.csv", "task.picture=0"),
    "optimize": (*MOLECULE, "task.input=m.csv", "task.oracle=qed", "task.iterations=1", "task.picture=false"),
    "prepare": ("model=esm1nv_tiny", "task.picture=false"),
    "serve": (*PROTEIN, "task.port=0"),
}
ONE_VALUE = {"parallel.pipeline_model_parallel_size"}
ON_A_GPU = {"trainer.compile"}
RESTORE = ("strict", "vocabulary", "positions", "extra_tokens")
WITH_A_SOURCE = {"restore", "connector", *(f"restore.{key}" for key in RESTORE)}
"""Keys of the core that are refused unless 1, read on a GPU only, and read with `restore_from_path` only."""

CHOICES = {"optim", "scheduler", "data", "loggers", "callbacks", "connector", "resume", "name", "restore_from_path"}
NAMES = {"loggers": "logger"}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BIONEMO_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    Path("p.csv").write_text("id,sequence\na,MKTAYI\nb,MKV\n")
    Path("p.fasta").write_text("".join(f">{row}\nMKTAYI{letter}\n" for row, letter in enumerate("AVLKICRS")))
    Path("m.csv").write_text("id,smiles\na,CCO\nb,CCN\n")


def recorded(kind: type, prefix: str, read: set[str]) -> type:
    """A subclass that notes which of its fields are read, and not only checked."""
    names = {one.name for one in dataclasses.fields(kind)}

    class Recorded(kind):
        def __getattribute__(self, name: str) -> Any:
            if name in names and sys._getframe(1).f_globals["__name__"] not in CHECKERS:
                read.add(prefix + name)
            return super().__getattribute__(name)

    Recorded.__name__ = kind.__name__
    return Recorded


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> Iterator[set[str]]:
    found: set[str] = set()
    for group, kind in CORE_GROUPS.items():
        monkeypatch.setitem(CORE_GROUPS, group, recorded(kind, f"{group}.", found))
    monkeypatch.setattr(spec_module, "RunSpec", recorded(RunSpec, "", found))
    yield found


def core_keys() -> set[str]:
    keys = {f"{group}.{one.name}" for group, kind in CORE_GROUPS.items() for one in dataclasses.fields(kind)}
    return (keys | CHOICES) - ONE_VALUE


def wait_until_open(app, *_, **__):
    while not app.opened and app.failure is None:
        sleep(0.01)


@pytest.mark.parametrize("task", RUNS)
def test_a_key_is_read_or_said_to_be_unused(task, read, capsys, monkeypatch):
    if task == "serve":
        pytest.importorskip("fastapi")
        monkeypatch.setattr("bionemo_core.tasks.serving.serve.run_server", wait_until_open)
    assert cli.main([f"task={task}", *RUNS[task]]) == 0, capsys.readouterr().err
    unused = {key for key in core_keys() if is_unused(task, NAMES.get(key, key))}
    assert not unused & read
    assert core_keys() - read - unused <= ON_A_GPU | WITH_A_SOURCE


@pytest.mark.parametrize("task", ["train", "finetune"])
def test_training_uses_all(task):
    assert not [key for key in core_keys() if is_unused(task, NAMES.get(key, key))]


def is_unused(task: str, key: str) -> bool:
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            check_unused(load_registry().get("task", task), [f"{key}=1"], {})
    except ConfigError as error:
        assert f"{key}: not used by task={task}" in str(error)
        return True
    return f"task={task} does not use {key}." in said.getvalue()


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("trainer.max_steps=5", "trainer.max_steps: not used by task=embed. Leave it out."),
        ("optim.lr=1", "optim.lr: not used by task=embed. Leave it out."),
        ("model.optim.lr=1", "optim.lr: not used by task=embed. Leave it out."),
        ("callbacks=[downstream]", "callbacks: not used by task=embed."),
        ("data=sample", "data: not used by task=embed, which reads task.input. Leave it out."),
    ],
)
def test_what_was_typed_is_refused(typed, said, capsys):
    assert cli.main(["task=embed", *RUNS["embed"], typed]) == 2
    assert said in capsys.readouterr().err
    assert not Path("out.npz").exists()


FINETUNE = ("task=finetune", *PROTEIN, "task.kind=sequence_regression", "data=labelled_csv", "data.dataset_path=p.csv")


@pytest.mark.parametrize("typed", ["scheduler=constant", "model.optim.lr=1"])
def test_a_head_that_is_solved_refuses_what_only_steps_read(typed, capsys):
    key = typed.partition("=")[0].removeprefix("model.")
    assert cli.main([*FINETUNE, "task.head=linear", typed]) == 2
    said = capsys.readouterr().err
    assert f"{key}: not used by task=finetune with task.head=linear. Leave it out." in said
    assert cli.main([*FINETUNE, "task.head=mlp", typed]) == 3, "the table has no labels, which is read later"
    assert "not used" not in capsys.readouterr().err


@pytest.mark.parametrize("key", ["restore.strict=false", "restore.vocabulary=tile", "connector=esm_huggingface"])
@pytest.mark.parametrize("command", [(*PROTEIN, "data=sample"), ("task=embed", *RUNS["embed"])], ids=["train", "embed"])
def test_how_to_load_weights_is_refused_where_none_are_loaded(command, key, capsys):
    assert cli.main([*command, key]) == 2
    assert f"{key.partition('=')[0]}: not used without restore_from_path" in capsys.readouterr().err


@pytest.mark.parametrize("task", ["embed", "finetune", "convert"])
@pytest.mark.parametrize("group", ["model=esm2_8m", "tokenizer=esm2"])
def test_a_stored_model_has_its_own_parts(task, group, capsys):
    keys = {
        "embed": ("task.input=p.csv", "task.output=out.npz"),
        "finetune": ("task.kind=sequence_regression", "data=labelled_csv", "data.dataset_path=p.csv"),
        "convert": ("task.output=out",),
    }
    assert cli.main([f"task={task}", *keys[task], "restore_from_path=stored", group]) == 2
    assert f"{group} and restore_from_path=stored: the stored model has its own" in capsys.readouterr().err


def test_a_file_may_serve_several_tasks(capsys):
    Path("experiment").mkdir()
    Path("experiment/mine.yaml").write_text(
        "defaults:\n  - override /scheduler: constant\ntrainer: {max_steps: 7, num_threads: 1}\noptim: {lr: 1e-3}\n"
    )
    own = ("--config-dir", ".", "+experiment=mine", "trainer.progress_bar=false", "logger=null")
    assert cli.main(["task=evaluate", *RUNS["evaluate"], *own]) == 0
    said = capsys.readouterr().err
    assert "note: task=evaluate does not use trainer.progress_bar.\n" in said
    left = "task=evaluate does not use scheduler, trainer.max_steps, optim.lr"
    assert f"{Path('experiment/mine.yaml').absolute()}: {left}.\n" in said
