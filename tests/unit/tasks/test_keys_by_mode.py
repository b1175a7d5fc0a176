"""What a task does not read in a mode is refused there, and `task=train` does what `do_training` says."""

import csv
import dataclasses
import shutil
import sys
from importlib import import_module
from pathlib import Path
from typing import Any, get_args

import pytest

from bionemo_core import cli
from bionemo_core.tasks import settings

pytest.importorskip("bionemo_molbart")

NOT_READERS = ("dataclasses", "bionemo_core.tasks.unread_keys")
"""Modules that look at every key, whatever the mode."""

COMMON = ("trainer.accelerator=cpu", "trainer.progress_bar=false", "trainer.num_threads=1", "batch.num_workers=0")
PROTEIN = ("model=esm1nv_tiny", "model.num_layers=1", "model.hidden_size=32", *COMMON)
MOLECULE = ("model=molmim_xsmall", "model.num_layers=1", "model.hidden_size=32", "model.num_attention_heads=2", *COMMON)
MODES = {
    "embed": ("embed", PROTEIN, ("task.input=p.csv", "task.output=out.h5")),
    "variants": ("predict", PROTEIN, ("task.variants=v.csv", "task.wild_type=MKTA", "task.output=out.csv")),
    "scan": ("predict", PROTEIN, ("task.scan=true", "task.wild_type=MK", "task.output=out.csv")),
    "likelihoods": ("predict", PROTEIN, ("task.input=p.csv", "task.scoring=pseudo-ppl", "task.output=out.csv")),
    "answers": ("predict", MOLECULE, ("task.input=m.csv", "task.output=out.csv")),
    "near": ("sample", MOLECULE, ("task.input=m.csv",)),
    "prior": ("sample", MOLECULE, ("task.num_molecules=2",)),
    "optimize": ("optimize", MOLECULE, ("task.input=m.csv", "task.oracle=qed", "task.iterations=1")),
    "evaluate": ("evaluate", PROTEIN, ("task.output=report", "data=sample")),
    "prepare": ("prepare", (), ("model=esm1nv_tiny", "data=sample")),
}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BIONEMO_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    Path("p.csv").write_text("id,sequence\na,MKTAYI\nb,MKV\n")
    Path("m.csv").write_text("id,smiles\na,CCO\nb,CCN\n")
    Path("v.csv").write_text("mutant\nK2R\n")
    return tmp_path


def record_reads(task: str, monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The set in which the keys appear that a task reads from now on."""
    module = import_module(f"bionemo_core.tasks.{task}")
    kind: Any = getattr(settings, task.capitalize())
    keys, read = {one.name for one in dataclasses.fields(kind)}, set()

    class Recorded(kind):
        def __getattribute__(self, name: str) -> Any:
            if name in keys and sys._getframe(1).f_globals["__name__"] not in NOT_READERS:
                read.add(name)
            return super().__getattribute__(name)

    monkeypatch.setattr(module, kind.__name__, Recorded)
    return read


def clear_results() -> None:
    for path in (Path("out.h5"), Path("out.csv"), Path("out.csv.json"), Path("out.h5.json")):
        path.unlink(missing_ok=True)
    if Path("report").is_dir():
        shutil.rmtree("report")


def other_value(field: "dataclasses.Field[Any]") -> str:
    """A value of the key's type that is not its default."""
    kinds = [kind for kind in get_args(field.type) if kind is not type(None)] or [field.type]
    if kinds[0] is bool:
        return str(not field.default).lower()
    return {int: "3", float: "0.5", str: "other"}[kinds[0]]


@pytest.mark.parametrize("mode", MODES)
def test_a_key_is_read_or_refused(mode, monkeypatch, capsys):
    task, model, keys = MODES[mode]
    read = record_reads(task, monkeypatch)
    assert cli.main([f"task={task}", *model, *keys]) == 0, capsys.readouterr().err
    read.add("overwrite")  # where nothing exists yet there is nothing to overwrite
    ignored = [one for one in dataclasses.fields(getattr(settings, task.capitalize())) if one.name not in read]
    clear_results()
    for field in ignored:
        assert cli.main([f"task={task}", *model, *keys, f"task.{field.name}={other_value(field)}"]) == 2, field.name
        assert f"task.{field.name}" in capsys.readouterr().err


def test_samples_from_the_prior_refuse_the_keys_of_texts(capsys):
    task, model, keys = MODES["prior"]
    assert cli.main([f"task={task}", *model, *keys, "task.scaled_radius=0.5"]) == 2
    assert "task.scaled_radius: not used without task.input. Leave it out." in capsys.readouterr().err


def test_a_bad_variant_is_named_or_left_out_and_counted(capsys):
    Path("v.csv").write_text("mutant\nK2R\nQQQ\nM1J\nK9R\n")
    task, model, keys = MODES["variants"]
    assert cli.main([f"task={task}", *model, *keys]) == 3
    error = capsys.readouterr().err
    assert "v.csv:3: variant 'QQQ'" in error
    assert "3 of 4 variants cannot be scored" in error
    assert "Keep such rows without a score with task.on_invalid=skip." in error
    assert cli.main([f"task={task}", *model, *keys, "task.on_invalid=skip"]) == 0
    printed = capsys.readouterr().out
    assert "3 rows have no score; see the column rejected" in printed
    with Path("out.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["variant"] for row in rows if row["score"]] == ["K2R"]
    assert "does not know the residue 'J'" in rows[2]["rejected"]
    assert cli.main([f"task={task}", *model, *keys, "task.overwrite=true", "task.on_invalid=unk"]) == 2


def test_without_training_a_model_is_tested_and_nothing_is_saved(folder, capsys):
    tiny = (*PROTEIN, "batch.seq_length=64", "batch.micro_batch_size=2", "trainer.val_check_interval=1")
    short = ("trainer.max_steps=1", "trainer.limit_val_batches=1", "trainer.limit_test_batches=1")
    assert cli.main([*tiny, *short, "name=first"]) == 0
    (first,) = (folder / "home/runs/first").iterdir()
    only_test = ("do_training=false", "do_testing=true")
    assert cli.main([*tiny, *short, "do_training=false"]) == 2
    assert "Set task.do_testing=true" in capsys.readouterr().err
    assert cli.main([*tiny, *short, *only_test]) == 2
    assert "restore_from_path=PATH" in capsys.readouterr().err
    assert cli.main([*tiny, *short, *only_test, f"restore_from_path={first}", "name=second"]) == 0
    (second,) = (folder / "home/runs/second").iterdir()
    assert not list(second.glob("checkpoints/*"))
    assert (second / "metrics.csv").read_text().startswith("step,test_loss")
