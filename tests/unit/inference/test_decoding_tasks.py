"""`task=sample` and `task=optimize`, from the run spec to the output files."""

import csv
import json
import os
import signal
from pathlib import Path
from types import SimpleNamespace

import pytest
from letters import Doomed, WordJudge
from tiny_models import SEQ_LENGTH, TEXTS, TOKENIZER, inference, network

from bionemo_core.config.schema import OPENED, Choice, RunSpec, Trainer
from bionemo_core.errors import ConfigError, DataError, Preempted, ResourceError
from bionemo_core.interop.load_report import LoadReport
from bionemo_core.interop.stored import ModelSpec
from bionemo_core.io.results_folder import MARKER
from bionemo_core.models.load import OpenedModel
from bionemo_core.plugins import Registry
from bionemo_core.tasks import optimize as optimize_task
from bionemo_core.tasks import sample as sample_task
from bionemo_core.testing import installed, make_plugin


@pytest.fixture
def opened(monkeypatch):
    """Make the tasks open a tiny float64 model with a latent space, whose plugin can judge words."""
    module = network("perceiver")
    holder = SimpleNamespace(
        network=module, seq_length=SEQ_LENGTH, objective=SimpleNamespace(target_length=16), judge=WordJudge()
    )
    holder.parameters = module.parameters
    model = OpenedModel(
        holder, TOKENIZER, ModelSpec(Choice("model", "tiny"), Choice("tokenizer", "t")), {}, LoadReport("")
    )
    for task in (sample_task, optimize_task):
        monkeypatch.setattr(task, "open_for_use", lambda *_: model)
    return model


def run(task, tmp_path: Path, registry: Registry | None = None, **params) -> Path:
    """Run a task, and return its output folder."""
    name = task.__name__.rpartition(".")[2]
    chosen = {group: Choice(group, OPENED) for group in ("model", "tokenizer", "data", "optim", "scheduler")}
    output = tmp_path / f"results-{len(list(tmp_path.iterdir()))}"
    spec = RunSpec(
        name=name,
        home=str(tmp_path / "home"),
        seed=3,
        task=Choice("task", name, {"output": str(output), **params}),
        trainer=Trainer(accelerator="cpu", progress_bar=False),
        **chosen,
    )
    getattr(task, name)(spec, registry, composed_yaml="task: {}\n")
    return output


def table(path: Path) -> list[dict[str, str]]:
    with path.open() as stream:
        return list(csv.DictReader(stream))


@pytest.fixture
def words(tmp_path):
    path = tmp_path / "words.smi"
    path.write_text("".join(f"{text} word-{i}\n" for i, text in enumerate(TEXTS)))
    return path


def test_samples_of_a_file(opened, words, tmp_path, capsys):
    known = tmp_path / "known.smi"
    known.write_text("AB\nD\nABCDE\n")
    folder = run(sample_task, tmp_path, input=str(words), num_samples=3, known=str(known), scaled_radius=0.7)
    rows = table(folder / "samples.csv")
    expected = inference("perceiver").sample(3, seqs=TEXTS, scaled_radius=0.7, seed=3)
    assert [row["sample"] for row in rows] == [text for own in expected for text in own]
    assert [(row["input_id"], row["input"]) for row in rows[:4]] == [("word-0", TEXTS[0])] * 3 + [("word-1", TEXTS[1])]
    judge = WordJudge()
    forms = [judge.canonical(row["sample"]) for row in rows]
    valid = [form for form in forms if form]
    starts = [judge.canonical(row["input"]) for row in rows]
    known_forms = {"AB", "D", "ABCDE"}
    same = [form == start for form, start in zip(forms, starts, strict=True) if form]
    effective = {f for f, s in zip(forms, starts, strict=True) if f and f != s and f not in known_forms}
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["samples"] == 24 and summary["num_inputs"] == 8
    assert summary["validity"] == pytest.approx(len(valid) / 24)
    assert summary["uniqueness"] == pytest.approx(len(set(valid)) / len(valid))
    assert summary["non_identicality"] == pytest.approx(1 - sum(same) / len(valid))
    assert summary["novelty"] == pytest.approx(sum(f not in known_forms for f in valid) / len(valid))
    assert summary["effective_novelty"] == pytest.approx(len(effective) / 24)
    for row, form, start in zip(rows, forms, starts, strict=True):
        assert row["valid"] == ("1" if form else "0") and row["canonical"] == (form or "")
        assert row["novel"] == ("" if not form else str(int(form not in known_forms)))
        if form:
            assert float(row["similarity"]) == pytest.approx(judge.similarity([form], [start])[0], rel=1e-5)
    drawn = (folder / "samples.png").read_text().splitlines()
    samples = [line.partition(":")[0] for line in drawn if ": input" not in line]
    assert samples == list(dict.fromkeys(valid))[:24]
    assert drawn[0].startswith(f"{TEXTS[0]}: input word-0")
    assert {path.name for path in folder.iterdir()} == {
        "samples.csv", "summary.json", "samples.png", "run.json", "config.yaml", "restore.json",
    }  # fmt: skip
    assert f"validity  {summary['validity']:.4f}" in capsys.readouterr().out


def test_the_batch_size_changes_no_sample(opened, words, tmp_path):
    folders = [run(sample_task, tmp_path, input=str(words), num_samples=2, batch_size=size) for size in (1, 3, 256)]
    assert len({(folder / "samples.csv").read_text() for folder in folders}) == 1


def test_each_beam_has_its_own_row(opened, words, tmp_path):
    options = {"sampling_method": "beam-search-perturbate-sample", "beam_size": 3, "limit": 2}
    rows = table(run(sample_task, tmp_path, input=str(words), num_samples=2, **options) / "samples.csv")
    assert [(row["sample_number"], row["beam"]) for row in rows[:6]] == [(s, b) for s in "01" for b in "012"]
    assert len(rows) == 12


def test_samples_from_the_prior(opened, tmp_path):
    folder = run(sample_task, tmp_path, num_molecules=10, batch_size=2)
    rows, summary = table(folder / "samples.csv"), json.loads((folder / "summary.json").read_text())
    assert [row["sample"] for row in rows] == inference("perceiver").sample_prior(10, seed=3)
    assert summary["novelty"] is None and summary["non_identicality"] is None
    assert summary["validity"] is not None


def test_without_a_judge_texts_are_counted_as_they_are(opened, words, tmp_path):
    del opened.module.judge
    folder = run(sample_task, tmp_path, input=str(words))
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["validity"] is None and summary["uniqueness"] is not None
    assert not (folder / "samples.png").exists()


def test_long_texts_are_refused_or_left_out(opened, words, tmp_path, capsys):
    words.write_text("AB short\n" + "A" * 25 + " long\n")
    with pytest.raises(DataError, match="'long' has 25 tokens, but the model takes 24"):
        run(sample_task, tmp_path, input=str(words))
    folder = run(sample_task, tmp_path, input=str(words), on_long="skip")
    assert json.loads((folder / "summary.json").read_text())["left_out"] == "1 too long"
    assert "left out  1 too long" in capsys.readouterr().out
    assert len(table(folder / "samples.csv")) == 1


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({}, "either task.input=FILE"),
        ({"num_molecules": 0}, "task.num_molecules: got 0"),
        ({"num_molecules": 2, "top_k": 3}, "no option 'top_k'"),
        ({"num_molecules": 2, "sampling_method": "greedy"}, "sampling_method: got 'greedy'"),
    ],
)
def test_wrong_sampling_parameters_are_refused_before_the_model_is_opened(tmp_path, params, message):
    with pytest.raises(ConfigError, match=message):
        run(sample_task, tmp_path, **params)


def test_results_are_not_overwritten(opened, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").touch()
    with pytest.raises(ConfigError, match="not empty"):
        run(sample_task, tmp_path, num_molecules=2, output=str(tmp_path / "full"))


def test_what_a_killed_start_left_is_replaced_by_the_same_command(opened, tmp_path, caplog):
    whole = run(sample_task, tmp_path, num_molecules=2)
    left = tmp_path / "left"
    left.mkdir()
    for name in (MARKER, ".samples.csv.host.1.part", "run.json"):
        (left / name).write_text("{")
    run(sample_task, tmp_path, num_molecules=2, output=str(left))
    assert "its results are replaced" in caplog.text
    assert (left / "samples.csv").read_text() == (whole / "samples.csv").read_text()
    assert json.loads((left / "run.json").read_text())["task"]["params"]["num_molecules"] == 2
    assert not (left / MARKER).exists()


def test_a_search_with_its_baseline(opened, words, tmp_path, capsys):
    options = {"oracle": "share_of_a", "population": 8, "iterations": 6, "baseline": True, "sigma": 0.7}
    folder = run(optimize_task, tmp_path, input=str(words), worst=3, minimum_similarity=0.1, **options)
    results = table(folder / "optimized.csv")
    shares = {f"word-{i}": text.count("A") / len(text) for i, text in enumerate(TEXTS)}
    lowest = sorted(shares, key=shares.__getitem__)[:3]
    assert {row["id"] for row in results} <= {name for name, share in shares.items() if share <= shares[lowest[-1]]}
    assert len(results) == 3
    for row in results:
        assert float(row["start_score"]) == pytest.approx(shares[row["id"]], rel=1e-5)
        for algorithm in ("cma_es", "random"):
            text = row[f"{algorithm}_text"]
            assert float(row[f"{algorithm}_score"]) == pytest.approx(text.count("A") / len(text), rel=1e-5)
            assert float(row[f"{algorithm}_similarity"]) >= 0.1
    steps = table(folder / "trajectory.csv")
    assert len(steps) == 2 * 3 * 7
    assert {row["oracle_calls"] for row in steps} == {str(8 * i) for i in range(7)}
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["cma-es"]["oracle_calls"] == summary["random"]["oracle_calls"] == 3 * 8 * 6
    assert (folder / "trajectory.png").read_bytes().startswith(b"\x89PNG")
    assert len((folder / "optimized.png").read_text().splitlines()) == 6
    assert "cma-es  mean" in capsys.readouterr().out


def test_a_search_that_a_signal_stops_writes_what_it_found(opened, words, tmp_path, monkeypatch, capsys):
    calls = []

    def share_of_a(texts, starts):
        calls.append(len(texts))
        if len(calls) == 4:  # the starts, and two iterations, are scored
            os.kill(os.getpid(), signal.SIGTERM)
        return [text.count("A") / len(text) for text in texts]

    monkeypatch.setattr(WordJudge, "oracles", {"share_of_a": share_of_a})
    options = {"oracle": "share_of_a", "population": 8, "iterations": 50, "baseline": True}
    message = r"stopped by SIGTERM after 3 of 50 iterations of cma-es; .*/results-1"
    with pytest.raises(Preempted, match=message) as raised:
        run(optimize_task, tmp_path, input=str(words), output=str(tmp_path / "results-1"), **options)
    assert raised.value.exit_status == 75
    folder = tmp_path / "results-1"
    assert {row["iteration"] for row in table(folder / "trajectory.csv")} == {"0", "1", "2", "3"}
    assert len(table(folder / "optimized.csv")) == len(TEXTS)
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["stopped_by"] == "SIGTERM" and summary["cma-es"]["iterations"] == 3 and "random" not in summary
    assert (folder / "trajectory.png").is_file()
    assert "cma-es  mean" in capsys.readouterr().out
    options["iterations"] = 2
    run(optimize_task, tmp_path, input=str(words), output=str(folder), **options)
    assert "random" in json.loads((folder / "summary.json").read_text())
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


@pytest.mark.processes
def test_a_search_keeps_what_it_found_before_a_worker_was_killed(opened, words, tmp_path):
    opened.module.judge = Doomed(str(tmp_path / "calls"))
    folder, options = tmp_path / "results", {"oracle": "share_of_a", "population": 8, "iterations": 50}
    message = r"killed by SIGKILL.*This was after 2 of 50 iterations of cma-es; the results so far are in .*/results\."
    with pytest.raises(ResourceError, match=message) as raised:
        run(optimize_task, tmp_path, input=str(words), output=str(folder), num_workers=1, **options)
    assert raised.value.exit_status == 9
    assert {row["iteration"] for row in table(folder / "trajectory.csv")} == {"0", "1", "2"}
    assert len(table(folder / "optimized.csv")) == len(TEXTS)
    assert json.loads((folder / "summary.json").read_text())["stopped_by"] == "ResourceError"
    opened.module.judge = WordJudge()
    options["iterations"] = 2
    run(optimize_task, tmp_path, input=str(words), output=str(folder), **options)
    assert not (folder / MARKER).exists() and json.loads((folder / "summary.json").read_text())["stopped_by"] is None


@pytest.mark.parametrize("scored", [0, 2])
def test_a_search_whose_score_fails_keeps_what_it_found_after_the_starts(opened, words, tmp_path, monkeypatch, scored):
    calls = []

    def share_of_a(texts, starts):
        calls.append(len(texts))
        if len(calls) > scored:
            raise ConfigError("no more licences")
        return [text.count("A") / len(text) for text in texts]

    monkeypatch.setattr(WordJudge, "oracles", {"share_of_a": share_of_a})
    folder, options = tmp_path / "results", {"oracle": "share_of_a", "population": 8, "iterations": 50}
    with pytest.raises(ConfigError, match="no more licences"):
        run(optimize_task, tmp_path, input=str(words), output=str(folder), **options)
    assert folder.exists() == bool(scored)
    assert not scored or {row["iteration"] for row in table(folder / "trajectory.csv")} == {"0", "1"}


def test_a_model_without_a_judge_cannot_be_searched(opened, words, tmp_path):
    del opened.module.judge
    with pytest.raises(ConfigError, match="has no judge of its texts"):
        run(optimize_task, tmp_path, input=str(words), oracle="share_of_a")


def test_a_baseline_of_itself_is_refused(words, tmp_path):
    with pytest.raises(ConfigError, match=r"task\.algorithm is random already"):
        run(optimize_task, tmp_path, input=str(words), oracle="qed", algorithm="random", baseline=True)


ORACLE = """
from bionemo_core import Component, configure, hookimpl
from bionemo_core.ranges import Count

BIONEMO_PLUGIN_API = 1


class Letters:
    def __init__(self, wanted):
        self.wanted = wanted

    def __call__(self, texts, starts):
        return [-float(abs(len(text) - self.wanted)) for text in texts]


def letters(wanted: Count = 3):
    return Letters(wanted)


@hookimpl
def bionemo_oracles():
    yield Component("letters", configure(letters), "how near a word is to a length")
"""


def test_a_score_of_a_plugin(opened, words, tmp_path):
    plugin = make_plugin(tmp_path / "plugin", "letter_scores", ORACLE)
    options = {"input": str(words), "iterations": 2, "population": 4, "algorithm": "random", "picture": False}
    with installed(plugin):
        registry = Registry.load(environ={"BIONEMO_LOAD_PLUGINS": plugin.distribution})
        folder = run(optimize_task, tmp_path, registry, oracle="letters", oracle_params={"wanted": 7}, **options)
        for row in table(folder / "optimized.csv"):
            assert float(row["start_score"]) == -abs(len(row["start"]) - 7)
            assert float(row["random_score"]) == -abs(len(row["random_text"]) - 7)
        for name, params, words_of_error in (
            ("letter", None, "Did you mean 'letters'"),
            ("letters", {"want": 7}, "no parameter 'want'"),
            ("letters", {"wanted": 0}, "task.oracle_params.wanted: got 0, expected"),
            ("share_of_a", {"wanted": 7}, "the score share_of_a has no keys"),
        ):
            with pytest.raises(ConfigError, match=words_of_error):
                run(optimize_task, tmp_path, registry, oracle=name, oracle_params=params, **options)
