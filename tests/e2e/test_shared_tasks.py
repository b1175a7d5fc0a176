"""Tasks on two ranks against one: the same rows, and no file under its final name where a rank fails."""

import contextlib
import csv
import json
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


def evaluate(home: Home, folder: Path, *arguments: str) -> tuple[dict, dict[str, list[list[str]]]]:
    """Evaluate on one and on two ranks; compare what each writes, and return what the two have written."""
    found = []
    for name, devices in (("one", ()), ("two", (TWO,))):
        output = folder / name
        typed = (f"name=evaluate-{folder.name}-{name}", f"task.output={output}", "batch.micro_batch_size=2")
        typed = ("task=evaluate", *typed, "batch.num_workers=0", *arguments, *devices)
        said = said_by(home, *typed, BIONEMO_LOAD_PLUGINS=PLUGINS)
        assert said.count("report.html") == 1, "only rank 0 speaks"
        facts = json.loads((output / "metrics.json").read_text())
        tables = {path.name: list(csv.reader(path.read_text().splitlines())) for path in output.glob("*.csv")}
        found.append((facts, tables, (output / "report.html").read_text().count("<figure")))
    (one, one_tables, one_figures), (two, two_tables, two_figures) = found
    assert one.pop("metrics") == pytest.approx(two["metrics"], rel=1e-6, abs=1e-9)
    assert one == {name: fact for name, fact in two.items() if name != "metrics"} and one_figures == two_figures
    assert one_tables.keys() == two_tables.keys()
    for name, rows in one_tables.items():
        assert [list(map(number, row)) for row in two_tables[name]] == [list(map(number, row)) for row in rows], name
    return two["metrics"], two_tables


def number(cell: str):
    """The number in a cell, compared to a part in a million; else its text."""
    with contextlib.suppress(ValueError):
        return pytest.approx(float(cell), rel=1e-6, abs=1e-6)
    return cell


PLUGINS = "bionemo-esm,bionemo-molbart"


def test_two_ranks_mask_and_evaluate_as_one(home, tmp_path):
    sequences = (PROTEIN[start:] + PROTEIN[: 2 * start] for start in range(9))
    (tmp_path / "p.fasta").write_text("".join(f">p{number}\n{text}\n" for number, text in enumerate(sequences)))
    data = ("data=fasta", f"data.path={tmp_path / 'p.fasta'}", "task.split=train", "batch.packing=false")
    metrics, _ = evaluate(home, tmp_path, *ESM, *data, "task.pseudo_perplexity=3")
    assert metrics["pseudo_perplexity_sequences"] == 3 and metrics["perplexity"] > 1


def test_two_ranks_evaluate_labels_as_one(home, tmp_path):
    rows = "".join(f"s{n},{PROTEIN[: 4 + n]},{'long' if n > 5 else 'short'}\n" for n in range(12))
    (tmp_path / "t.csv").write_text(f"id,sequence,label\n{rows}")
    data = ("data=labelled_csv", f"data.dataset_path={tmp_path / 't.csv'}", "data.target_column=label")
    tuned = ("task.kind=sequence_classification", "task.head=linear", "task.do_testing=false", "name=shared-labels")
    said_by(home, "task=finetune", *ESM, *data, *tuned, "batch.num_workers=0", "task.baseline=false")
    (folder,) = (home.path / "runs" / "shared-labels").iterdir()
    metrics, tables = evaluate(home, tmp_path, f"restore_from_path={folder}", *data, "task.split=train")
    assert {"accuracy", "mcc", "loss"} <= set(metrics) and set(tables) == {"predictions.csv", "classes.csv"}


def test_two_ranks_evaluate_pairs_as_one(home, tmp_path):
    """The ranks read different parts of the sequences, and each sums the losses of half of the pairs."""
    texts = [f"{PROTEIN * 30}{'ACDEFGHIKL'[n % 10]}{'KLMN'[n // 10]}" for n in range(40)]  # more than fit one part
    rows = "".join(f"s{n},{text},{texts[(7 * n + 1) % 40]},{n % 7}\n" for n, text in enumerate(texts))
    (tmp_path / "p.csv").write_text(f"id,first,second,target\n{rows}")
    data = ("data=labelled_pairs", f"data.dataset_path={tmp_path / 'p.csv'}", "data.val_fraction=0.1")
    tuned = ("task.kind=sequence_regression", "task.do_testing=false", "trainer.max_steps=1", "name=shared-pairs")
    said_by(home, "task=finetune", *ESM, *data, *tuned, "batch.num_workers=0", "task.baseline=false")
    (folder,) = (home.path / "runs" / "shared-pairs").iterdir()
    metrics, tables = evaluate(home, tmp_path, f"restore_from_path={folder}", *data, "task.split=train")
    assert {"mse", "spearman", "loss"} <= set(metrics) and len(tables["predictions.csv"]) > 30


def test_two_ranks_answer_pairs_as_one(home, tmp_path):
    pytest.importorskip("bionemo_molbart")
    lines = "".join(f"{'C' * n}O,{'C' * n}N\n" for n in range(1, 23))
    (tmp_path / "pairs.csv").write_text(f"source,target\n{lines}")
    data = ("data=pairs", f"data.path={tmp_path / 'pairs.csv'}", "task.split=train", "task.beam_size=64")
    shape = ("model.num_layers=1", "model.hidden_size=16", "model.num_attention_heads=2", "model.seq_length=24")
    metrics, tables = evaluate(home, tmp_path, "model=megamolbart", *shape, *data)
    assert "top_1_accuracy" in metrics and len(tables["predictions.csv"]) > 17, "more than a rank answers at a time"


def test_two_ranks_decode_a_probe_as_one(home, molecules, tmp_path):
    data = ("data=smiles", f"data.path={molecules}", "task.split=train", "model.val_molecules=5")
    metrics, _ = evaluate(home, tmp_path, *MOLMIM[:-2], *data)
    assert {"character_accuracy", "percent_invalid", "hiddens_loss"} <= set(metrics)


def test_a_rank_that_is_lost_in_an_evaluation_is_explained(home, tmp_path):
    (tmp_path / "p.fasta").write_text("".join(f">p{n}\n{PROTEIN * 20}\n" for n in range(300)))
    output = tmp_path / "lost"
    typed = ("task=evaluate", "name=lost", *ESM, "data=fasta", f"data.path={tmp_path / 'p.fasta'}", "task.split=train")
    more = ("task.pseudo_perplexity=200", f"task.output={output}", "batch.num_workers=0")
    first, other = start_ranks(home.task, 2, *typed, *more, *COMMON, TWO)
    assert first.wait_for(lambda run: output.exists(), timeout_s=60), first.output()
    other.kill()
    assert first.wait(timeout_s=60) == 8, first.output()
    assert "another rank of this job died" in first.output() and not output.exists()


def other_ranks(run: Run) -> Iterator[int]:
    """The ranks that the command has started itself."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            if int(stat.read_text().rpartition(")")[2].split()[1]) == run.pid:
                yield int(stat.parent.name)
