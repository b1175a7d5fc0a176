"""The command as a user sees it: messages, exit statuses, and output."""

import os
import sys
from pathlib import Path

import pytest

from bionemo_core import builtin, cli
from bionemo_core.config.schema import RunSpec
from bionemo_core.config.task_spec import TaskSpec
from bionemo_core.errors import ArtefactError, ConfigError, DataError, Preempted
from bionemo_core.models.locate import open_stored

pytest.importorskip("bionemo_esm")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BIONEMO_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "home"


@pytest.fixture
def runs_seen(monkeypatch: pytest.MonkeyPatch) -> list[RunSpec]:
    """Return the runs that reach the task, which a recording stand-in replaces."""
    seen: list[RunSpec] = []

    def stand_in(spec, registry, *, composed_yaml):
        seen.append(spec)
        assert "_component_" in composed_yaml
        assert sys.argv == argv, "Lightning repeats the command line as typed"

    argv = list(sys.argv)
    monkeypatch.setattr(TaskSpec, "load", lambda task: stand_in)
    return seen


def test_a_misspelt_model_names_the_close_one(capsys):
    assert cli.main(["model=esm1nvv"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error[config]: no model is called 'esm1nvv'. Did you mean 'esm1nv'")
    assert "Traceback" not in error


def test_a_run_reaches_its_task_and_writes_nothing_into_the_working_folder(runs_seen, tmp_path):
    assert cli.main(["model=esm1nv_tiny", "model.data.modify_percent=0.3", "trainer.max_steps=2", "-m"]) == 0
    assert cli.main(["--cfg", "job", "model=esm1nv_tiny"]) == 0
    assert cli.main(["model=esm1nv_tiny", "trainer.max_steps=2"]) == 0
    assert [spec.trainer.max_steps for spec in runs_seen] == [2, 2]
    assert runs_seen[0].model.params["modify_percent"] == 0.3
    assert {path.name for path in tmp_path.iterdir()} == {"home"}


def test_a_key_that_other_values_refer_to_may_be_added(runs_seen):
    assert cli.main(["model=esm1nv_tiny", "+mine.steps=3", "trainer.max_steps=${mine.steps}"]) == 0
    assert [spec.trainer.max_steps for spec in runs_seen] == [3]


def test_a_sweep_runs_every_combination(runs_seen):
    assert cli.main(["-m", "model=esm1nv,esm1nv_tiny", "trainer.max_steps=1,2"]) == 0
    assert [(spec.model.name, spec.trainer.max_steps) for spec in runs_seen] == [
        ("esm1nv", 1), ("esm1nv", 2), ("esm1nv_tiny", 1), ("esm1nv_tiny", 2),
    ]  # fmt: skip


def test_keys_of_hydra_that_a_sweep_needs_still_work(runs_seen, tmp_path):
    assert cli.main(["-m", "model=esm1nv_tiny", "seed=1,2", "hydra/launcher=basic", "hydra.sweep.dir=jobs"]) == 0
    assert [spec.seed for spec in runs_seen] == [1, 2]
    assert (tmp_path / "jobs").is_dir()
    assert cli.main(["model=esm1nv_tiny", "--cfg", "hydra", "hydra.job.chdir=true"]) == 0


def test_lightnings_repeated_command_line_is_understood(runs_seen, home):
    repeated = [f'hydra.run.dir="{home}"', "hydra.job.name=train_ddp_process_1", "hydra.output_subdir=null"]
    assert cli.main(["model=esm1nv_tiny", "data.dataset.train=x[0..1]", "data.dataset_path=/x", *repeated]) == 0
    assert runs_seen[0].data.params["train"] == "x[0..1]"


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        ([], "nothing to do"),
        (["trainer.max_steps=3"], "You must specify 'model'"),
        (["model=esm1nv", "trainer.max_step=3"], "Did you mean 'trainer.max_steps'"),
        (["model=esm1nv", "modle.num_layers=3"], "there is no key 'modle.num_layers'. Did you mean 'model.num_layers'"),
        (["model=esm1nv", "zzz.qqq=3"], "there is no key 'zzz.qqq'. `bionemo-run help` lists the keys."),
        (["model=esm1nv", "+zzz.qqq=3"], "there is no key 'zzz', and no value refers to ${zzz}. Leave it out."),
        (["model=esm1nv", "+trainer.max_step=3"], "there is no key 'trainer.max_step'. Did you mean 'max_steps'"),
        (["model=esm1nv", "+optim.x=3"], "there is no key 'optim.x'. Leave it out."),
        (["doctr"], "'doctr' is neither a command nor a setting such as KEY=VALUE. Did you mean 'doctor'"),
        (["version"], "Did you mean '--version'"),
        (["esm1nv_tiny"], "Did you mean model=esm1nv_tiny?"),
        (["esm1nv_tny"], "Did you mean 'esm1nv_tiny'"),
        (["model", "esm1nv_tiny"], "Did you mean model=esm1nv_tiny?"),
        (["model=esm1nv", "doctor"], "The command doctor comes first: bionemo-run doctor."),
        (["model=esm1nv", "--cfg", "job", "fasta"], "Did you mean data=fasta?"),
        (["model=esm1nv", "trainer.max_steps", "=", "4"], "Type no spaces around '='."),
        (["model=esm1nv", "trainer.max_steps=", "4"], "Type no spaces around '='."),
        (["model=esm1nv", "trainer.max_steps", "=4"], "Type no spaces around '='."),
        (["model=esm1nv", "--max-steps", "4"], "--max-steps: there is no such option. Did you mean 'trainer.max_st"),
        (["model=esm1nv", "-n", "4"], "-n: there is no such option."),
        (["model=esm1nv", "model.num_layers=two"], "model.num_layers: got two, expected an integer."),
        (["model=esm1nv", "optim.lr=x"], "optim.lr: got x, expected a number."),
        (["model=esm1nv", "trainer.compile=maybe"], "trainer.compile: got maybe, expected true or false."),
        (["model=esm1nv", "trainer.accelerator=[1]"], "trainer.accelerator: got [1], expected one text."),
        (["model=esm1nv", "optim.betas=3"], "optim.betas: got 3, expected a list in square brackets."),
        (["model=esm1nv", "data=fasta"], "data.path"),
        (["model=esm1nv", "data.path=x"], "the chosen data source has no key 'data.path'. It is a key of data=csv, da"),
        (
            ["model=esm1nv", "head.dropout=0"],
            "there is no key 'head.dropout'. It is a key of task.head=convnet and task.head=mlp; choose one, and give "
            "the key as 'task.head_params={dropout: ...}'",
        ),
        (["model=esm1nv", "home=${oc.env:SURELY_UNSET_VARIABLE}"], "SURELY_UNSET_VARIABLE"),
        (["model=esm1nv", "trainer.devices=[0,1]"], "CUDA_VISIBLE_DEVICES"),
        (["model=esm1nv", "--config-dir", "nowhere"], "nowhere is not a folder"),
        (["model=esm1nv", "x=[a#b]"], "x: the value [a#b] cannot be read"),
        (
            ["model=esm1nv", "hydra.run.dir=out"],
            "hydra.run.dir: this key of Hydra has no effect. home=DIR and name=NAME",
        ),
        (["model=esm1nv", "-m", "hydra.run.dir=out"], "hydra.run.dir: this key of Hydra has no effect. home=DIR"),
        (["model=esm1nv", "hydra.job.chdir=true"], "hydra.job.chdir: this key of Hydra has no effect without -m"),
        (
            ["model=esm1nv", "+hydra.mode=MULTIRUN"],
            "hydra.mode: this key of Hydra has no effect. For a sweep, type -m.",
        ),
        (["model=esm1nv", "hydra/launcher=basic"], "hydra/launcher: this key of Hydra has no effect without -m"),
        (["model=esm1nv", "trainer=null"], "trainer: got null, expected keys such as trainer."),
        (["model=esm1nv", "optim.lr=inf"], "optim.lr: got inf, expected a finite number, 0 or more."),
        (["plugins", "--trcae"], "Usage"),
        (["help", "modle"], "Did you mean 'model'"),
        (["completion", "tcsh"], "bash, zsh, fish"),
        (["cluster", "only_one"], "Usage"),
    ],
)
def test_a_users_mistake_is_a_message_and_exit_2(capsys, typed, words):
    assert cli.main(typed) == 2
    error = capsys.readouterr().err
    assert words in error
    assert "error[config]" in error
    assert "Traceback" not in error


@pytest.mark.parametrize(
    ("raised", "status", "words"),
    [
        (DataError("x.fasta:1 bad"), 3, "error[data]: x.fasta:1 bad"),
        (Preempted("saved"), 75, "error[preempted]"),
        (ZeroDivisionError("oops"), 70, "error[bug]"),
    ],
)
def test_a_failure_of_the_task_has_its_own_status(monkeypatch, capsys, runs_seen, raised, status, words):
    def fail(*_, **__):
        raise raised

    monkeypatch.setattr(TaskSpec, "load", lambda task: fail)
    assert cli.main(["model=esm1nv_tiny"]) == status
    error = capsys.readouterr().err
    assert words in error
    assert ("Traceback" in error) is (status == 70)


def test_plugins_lists_the_installed_plugins(capsys):
    assert cli.main(["plugins", "--trace"]) == 0
    shown = capsys.readouterr().out
    assert "bionemo-esm" in shown
    assert "model: esm1nv" in shown


@pytest.mark.parametrize("topic", ["model", "model=esm1nv", "trainer", "aliases", "runs"])
def test_every_page_of_help_exists(capsys, topic):
    assert cli.main(["help", topic]) == 0
    assert capsys.readouterr().out.strip()


def test_help_says_how_a_component_inside_a_task_is_typed(capsys):
    assert cli.main(["help", "head.dropout"]) == 0
    assert "of task.head=mlp, given as 'task.head_params={dropout: ...}'" in capsys.readouterr().out
    assert cli.main(["help", "head=mlp"]) == 0
    page = capsys.readouterr().out
    assert "chosen by task.head=mlp" in page and "\n  dropout = 0.1" in page
    typed = ["task=finetune", "restore_from_path=x", "task.head=mlp", "task.head_params={dropout: 0.3}"]
    assert cli.main([*typed, "data=labelled_csv", "data.dataset_path=x", "--cfg", "job"]) == 0
    assert "dropout: 0.3" in capsys.readouterr().out


def test_help_of_a_name_shows_each_choice_of_that_name(capsys):
    assert cli.main(["help", "esm1nv"]) == 0
    shown = capsys.readouterr().out
    assert "model=esm1nv  (" in shown
    assert "tokenizer=esm1nv  (" in shown


def test_completion_prints_a_script(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["bionemo-run"])
    assert cli.main(["completion", "bash"]) == 0
    assert "complete -o" in capsys.readouterr().out


def test_version(capsys):
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("bionemo-run 0.2.0")


def test_runs_lists_finished_killed_and_damaged_ones(capsys, home):
    done, killed, damaged = (home / "runs" / "mine" / time for time in ("2026-01-01", "2026-01-02", "2026-01-03"))
    for folder in (done, killed, damaged):
        folder.mkdir(parents=True)
        (folder / "run.json").write_text('{"model": {"name": "esm1nv"}}')
    (done / "summary.json").write_text('{"status": "done", "steps": 9, "val_loss": {"last": 2.5}}')
    (killed / "metrics.csv").write_text("step,val_loss\n10,2.75\n20,\n")
    (killed / "checkpoints" / "step-00000015").mkdir(parents=True)
    (damaged / "run.json").write_text("{")
    assert cli.main(["runs", "mine"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split()[2:] == ["esm1nv", "9", "2.5000", "done"]
    assert "20" in lines[2]
    assert "2.7500" in lines[2]
    assert "saved at step 15" in lines[2]
    assert len(lines) == 4


def test_doctor_names_packages_and_the_home_folder(capsys, home):
    os.environ.pop("CUDA_VISIBLE_DEVICES", None)
    assert cli.main(["doctor"]) == 0
    shown = capsys.readouterr().out
    assert "megatron-core" in shown
    assert str(home) in shown


def test_a_process_has_one_registry():
    assert builtin.load_registry() is builtin.load_registry()


@pytest.mark.parametrize("group", ["model", "task", "data"])
def test_an_empty_choice_is_answered_in_one_line(group, capsys):
    assert cli.main(["model=esm1nv_tiny", f"{group}="][group == "model" :]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"error[config]: {group}= names nothing. Leave it out, or choose one of ")
    assert said.count("\n") == 1


def test_runs_of_a_name_that_has_none(tmp_path, capsys):
    (tmp_path / "runs" / "mine" / "2026").mkdir(parents=True)
    (tmp_path / "runs" / "mine" / "2026" / "run.json").write_text("{}")
    assert cli.main(["runs", "mien", f"home={tmp_path}"]) == 0
    assert f"No runs of the name mien in {tmp_path / 'runs'}. Did you mean 'mine'?" in capsys.readouterr().out


def test_a_misspelt_name_of_a_model_or_of_runs_is_answered_with_the_close_one(tmp_path):
    (tmp_path / "runs" / "PROTEINS").mkdir(parents=True)
    for typed, close in (("esm2_8", "esm2_8m"), ("PROTEIN", "PROTEINS")):
        with pytest.raises(ConfigError, match=rf"^{typed}: not a model.* Did you mean '{close}'"):
            open_stored(typed, builtin.load_registry(), home=str(tmp_path))


def test_a_file_that_is_no_model_is_answered_with_what_a_model_is(tmp_path):
    (tmp_path / "my.fasta").write_text(">a\nMKT\n")
    with pytest.raises(ArtefactError, match=r"it is not a model\. Expected a run folder"):
        open_stored(str(tmp_path / "my.fasta"), builtin.load_registry())


def test_a_name_of_runs_and_its_folder_are_answered_with_the_newest_run(tmp_path):
    run = tmp_path / "runs" / "mine" / "2026"
    run.mkdir(parents=True)
    (run / "run.json").write_text("{}")
    for typed in ("mine", str(run.parent)):
        with pytest.raises(ConfigError, match=rf"^{typed}: not a model, but a name .* The newest is {run}$"):
            open_stored(typed, builtin.load_registry(), home=str(tmp_path))
