"""Tasks on two ranks against one: the same rows, and no file under its final name where a rank fails."""

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from runs import Home, Run, start_ranks

pytest.importorskip("bionemo_esm")

COMMON = ("trainer.num_threads=1", "trainer.accelerator=cpu", "trainer.progress_bar=false")
TWO = "trainer.devices=2"
PROTEIN = "MKTAYIAKQRQISFVK"
ESM = ("model=esm1nv_tiny", "model.num_layers=1", "model.hidden_size=16", "model.num_attention_heads=2")


def said_by(home: Home, *arguments: str, **environment: str) -> str:
    """What a command prints; two ranks of it are forked, which starts them sooner than the command does."""
    typed = (*COMMON, *arguments)
    runs = start_ranks(home.task, 2, *typed, **environment) if TWO in typed else [home.task(*typed, **environment)]
    assert [run.wait() for run in runs] == [0] * len(runs), runs[0].output()
    return runs[0].output()


def score(home: Home, output: Path, *arguments: str) -> str:
    typed = ("task=predict", f"name=score-{output.stem}", "task.tokens_per_batch=40", f"task.output={output}")
    return said_by(home, *typed, *ESM, *arguments)


def test_two_ranks_score_as_one(home, tmp_path):
    (tmp_path / "v.csv").write_text("mutant\nM1A\nK2R:T3S\nY5del\nT3_Y5del\n")
    variants = (f"task.variants={tmp_path / 'v.csv'}", f"task.wild_type={PROTEIN}")
    score(home, tmp_path / "one.csv", *variants)
    said = score(home, tmp_path / "two.csv", *variants, TWO)
    assert (tmp_path / "two.csv").is_file(), said
    assert (tmp_path / "two.csv").read_text() == (tmp_path / "one.csv").read_text()
    assert said.count("rows") == 1


def test_what_another_rank_meets_is_said_and_leaves_no_file(home, tmp_path):
    (tmp_path / "p.fasta").write_text(f">a\n{PROTEIN}\n")
    typed = (f"task.input={tmp_path / 'p.fasta'}", "task.scoring=masked_marginals", TWO)
    said = home.command("task=predict", *ESM, *COMMON, f"task.output={tmp_path / 'out.csv'}", *typed)
    assert said.count("error[config]: task.scoring=masked_marginals: compares variants") == 1
    assert {path.name for path in tmp_path.iterdir()} == {"p.fasta"}


MOLMIM = (
    "model=molmim", "model.num_layers=1", "model.hidden_size=16", "model.num_attention_heads=2",
    "model.hidden_steps=1", "task.picture=0", "task.batch_size=1",
)  # fmt: skip


@pytest.fixture
def molecules(tmp_path):
    pytest.importorskip("bionemo_molbart")
    path = tmp_path / "m.smi"
    path.write_text("CCO\nCCN\nCC(=O)O\nc1ccccc1\nCCCl\nCCS\n")
    return path


def results(home: Home, folder: Path, *arguments: str) -> tuple[dict[str, str], str]:
    named = (f"name={folder.parent.name}-{folder.name}", f"task.output={folder}")
    said = said_by(home, *arguments, *named, BIONEMO_LOAD_PLUGINS="bionemo-molbart")
    return {path.name: path.read_text() for path in folder.glob("*.csv")}, said


def test_two_ranks_sample_as_one(home, molecules, tmp_path):
    typed = ("task=sample", *MOLMIM, f"task.input={molecules}", "task.num_samples=4", "task.max_length=12")
    one, _ = results(home, tmp_path / "one", *typed)
    two, said = results(home, tmp_path / "two", *typed, TWO)
    assert two == one and list(one) == ["samples.csv"]
    assert len(set(one["samples.csv"].splitlines())) == 25, "each of the draws is another"
    assert said.count("folder") == 1


def test_two_ranks_search_as_one(home, molecules, tmp_path):
    optimum = ("task=optimize", *MOLMIM[:-2], "task.picture=false", f"task.input={molecules}")
    typed = (*optimum, "task.iterations=2", "task.population=4", "task.oracle=qed")
    one, _ = results(home, tmp_path / "one", *typed)
    two, said = results(home, tmp_path / "two", *typed, TWO)
    assert two == one and set(one) == {"optimized.csv", "trajectory.csv"}
    assert said.count("folder") == 1


def test_a_killed_rank_leaves_no_file(home, molecules, tmp_path):
    folder = tmp_path / "killed"
    typed = ("task=sample", *MOLMIM, f"task.input={molecules}", "task.num_samples=20000", f"task.output={folder}", TWO)
    run = home.task("name=killed", *typed, *COMMON, BIONEMO_LOAD_PLUGINS="bionemo-molbart")
    assert run.wait_for(lambda run: any(folder.glob("*samples.csv*")), timeout_s=60), run.output()
    (other,) = other_ranks(run)
    os.kill(other, signal.SIGKILL)
    assert run.wait(timeout_s=60) not in (None, 0), run.output()
    assert not any((folder / name).exists() for name in ("samples.csv", "summary.json"))


def other_ranks(run: Run) -> Iterator[int]:
    """The ranks that the command has started itself."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            if int(stat.read_text().rpartition(")")[2].split()[1]) == run.pid:
                yield int(stat.parent.name)
