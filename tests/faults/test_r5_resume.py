"""R5: what may change at a resume, and what is refused by name."""

import json
from pathlib import Path

import pytest
from runs import Home, assert_same_metrics

pytestmark = pytest.mark.faults


@pytest.fixture(scope="session")
def half(home: Home) -> str:
    """The name of a run that was stopped half-way; the last word of the name is for copies."""
    run = home.finish("name=half", "trainer.max_steps=40", BIONEMO_FAULT_POINT="renamed:4", status=-9)
    return run.name


def copy_of(home: Home, name: str, copy: str) -> None:
    import shutil

    shutil.copytree(home.path / "runs" / name, home.path / "runs" / copy)


@pytest.mark.parametrize(
    "change",
    ["batch.num_workers=2", "batch.micro_batch_size=1", "trainer.log_every_n_steps=1", "checkpoint.every_n_steps=7"],
)
def test_r5_same_losses_after_a_change_that_may_be_made(home: Home, half: str, reference: Path, change: str) -> None:
    copy = f"half-{change.replace('=', '-')}"
    copy_of(home, half, copy)
    run = home.finish(f"name={copy}", "resume=last", change)
    if not change.startswith("batch.micro_batch_size"):  # another split of the same batch sums in another order
        assert_same_metrics(run.folder, reference)
    assert run.last_step() == 40


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ("model.hidden_dropout=0.2", "model.hidden_dropout: 0.1 -> 0.2"),
        ("seed=7", "seed"),
        ("data.seed=3", "data.seed"),
        ("batch.packing=false", "batch.packing"),
        ("batch.pack_window=32", "batch.pack_window: 64 -> 32"),
        ("batch.seq_length=96", "batch.seq_length: 128 -> 96"),
        ("batch.global_batch_size=4", "global_batch_size"),
    ],
)
def test_r5_refused_with_the_name_of_what_changed(home: Home, half: str, change: str, named: str) -> None:
    copy = f"refused-{change.replace('=', '-')}"
    copy_of(home, half, copy)
    run = home.finish(f"name={copy}", "resume=last", change, status=2)
    assert named in run.output()
    assert "Traceback" not in run.output()


def test_r5_other_bytes_in_the_data_file_are_refused(home: Home) -> None:
    proteins = home.path / "proteins.fasta"
    records = [f">p{number}\nMKTAYIAKQRQISFVKSHFSRQLEERLG{'ACDE'[number % 4] * (number % 9)}\n" for number in range(40)]
    proteins.write_text("".join(records))
    arguments = ("name=other-bytes", "data=fasta", f"data.path={proteins}", "trainer.val_check_interval=2")
    home.finish(*arguments, "trainer.max_steps=2", "checkpoint.every_n_steps=2", "scheduler=constant")
    # The same number of records and letters, so that only the bytes tell.
    proteins.write_text("".join(records).replace("MKTAY", "MKTAW"))
    again = (*arguments, "trainer.max_steps=4", "scheduler=constant", "resume=last")
    run = home.finish(*again, status=2)
    assert "the data changed since the checkpoint" in run.output()
    proteins.write_text("".join(records))
    home.finish(*again)


def test_r5_a_run_of_an_earlier_version_goes_on(home: Home, half: str, reference: Path) -> None:
    copy_of(home, half, "earlier")
    (spec,) = (home.path / "runs" / "earlier").glob("*/run.json")
    content = json.loads(spec.read_text())
    # Settings that came later, of the core and of components.
    del content["trainer"]["cuda_graphs"], content["model"]["params"]["activation"], content["data"]["params"]["seed"]
    spec.write_text(json.dumps(content))
    assert_same_metrics(home.finish("name=earlier", "resume=last").folder, reference)


def test_r5_resume_at_the_last_step_changes_nothing(home: Home, reference: Path) -> None:
    copy_of(home, "reference", "finished")
    run = home.finish("name=finished", "resume=last")
    assert_same_metrics(run.folder, reference)


def test_r5_resume_without_a_checkpoint_says_so(home: Home) -> None:
    run = home.finish("name=never-run", "resume=last", status=2)
    assert "no run" in run.output()
    assert "Traceback" not in run.output()
