"""Tasks that a signal stops go on where they were, and end with the bytes of a whole run: predict, sample, evaluate."""

import signal
from pathlib import Path

import pytest

from bionemo_core import cli
from bionemo_core.errors import Stopped
from bionemo_core.inference.sampling import Seq2SeqInference
from bionemo_core.inference.scoring import MaskedScorer
from bionemo_core.tasks.pair_answers import AnswerColumns

pytest.importorskip("bionemo_esm")
pytest.importorskip("bionemo_molbart")

SIZES = ("model.num_layers=1", "model.hidden_size=16", "model.num_attention_heads=2")
COMMON = ("trainer.num_threads=1", "trainer.accelerator=cpu", "seed=3")


def run_whole_and_in_two_parts(typed: list[str], folder: Path, monkeypatch, owner: type, method: str, capsys) -> None:
    real, made = getattr(owner, method), []
    stop_at = [10**6]

    def call(*arguments, **options):
        if len(made) == stop_at[0]:
            raise Stopped(signal.SIGTERM)
        made.append(1)
        return real(*arguments, **options)

    monkeypatch.setattr(owner, method, call)
    assert cli.main([*typed, f"task.output={folder / 'whole'}"]) == 0
    batches = len(made)
    assert batches > 3
    made.clear()
    stop_at[0] = 2
    assert cli.main([*typed, f"task.output={folder / 'cut'}"]) == 75
    assert "stopped by SIGTERM; the results of 2 batches are kept in" in capsys.readouterr().err
    assert {path.name for path in folder.glob("cut*")} == {"cut.parts"}
    made.clear()
    stop_at[0] = 10**6
    assert cli.main([*typed, f"task.output={folder / 'cut'}"]) == 0
    assert len(made) == batches - 2, "the batches that were kept are not computed"


def test_scores(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("BIONEMO_HOME", str(tmp_path / "home"))
    protein = "MKTAYIAKQRQISFVKSKLEERLGLIEVQ"
    (tmp_path / "v.csv").write_text("mutant\n" + "".join(f"{protein[n]}{n + 1}C\n" for n in range(12)))
    typed = ["task=predict", "model=esm1nv_tiny", *SIZES, *COMMON, f"task.variants={tmp_path / 'v.csv'}"]
    typed += [f"task.wild_type={protein}", "task.tokens_per_batch=60"]
    run_whole_and_in_two_parts(typed, tmp_path, monkeypatch, MaskedScorer, "answer_group", capsys)
    assert (tmp_path / "cut").read_bytes() == (tmp_path / "whole").read_bytes()
    assert {path.name for path in tmp_path.glob("cut*")} == {"cut", "cut.json", "cut.restore.json"}


def test_samples(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("BIONEMO_HOME", str(tmp_path / "home"))
    (tmp_path / "m.smi").write_text("CCO\nCCN\nCC(=O)O\nc1ccccc1\nCCCl\n")
    typed = ["task=sample", "model=molmim", *SIZES, *COMMON, "model.hidden_steps=1", "task.picture=0"]
    typed += ["task.batch_size=1", f"task.input={tmp_path / 'm.smi'}", "task.num_samples=4", "task.max_length=12"]
    run_whole_and_in_two_parts(typed, tmp_path, monkeypatch, Seq2SeqInference, "sample", capsys)
    assert (tmp_path / "cut" / "samples.csv").read_bytes() == (tmp_path / "whole" / "samples.csv").read_bytes()
    assert {path.name for path in tmp_path.glob("cut*")} == {"cut"}


def test_an_evaluation(tmp_path, monkeypatch, capsys):
    """Pseudo-perplexities, the last and longest part; the losses are computed again."""
    monkeypatch.setenv("BIONEMO_HOME", str(tmp_path / "home"))
    protein = "MKTAYIAKQRQISFVKSKLEERLGLIEVQMKTAYIAKQRQISFVKSKLEERLGLIEVQ"
    lines = "".join(f">p{number}\n{protein[number:]}{protein[:number]}\n" for number in range(7))
    (tmp_path / "p.fasta").write_text(lines)
    typed = ["task=evaluate", "model=esm1nv_tiny", *SIZES, *COMMON, "data=fasta", f"data.path={tmp_path / 'p.fasta'}"]
    typed += ["data.val_size=0", "data.test_size=0", "task.split=train", "task.pseudo_perplexity=7"]
    typed += ["batch.num_workers=0"]
    run_whole_and_in_two_parts(typed, tmp_path, monkeypatch, MaskedScorer, "answer_group", capsys)
    assert (tmp_path / "cut" / "metrics.json").read_bytes() == (tmp_path / "whole" / "metrics.json").read_bytes()
    assert {path.name for path in tmp_path.glob("cut*")} == {"cut"}


def test_answers_to_pairs(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("BIONEMO_HOME", str(tmp_path / "home"))
    lines = "".join(f"{'C' * n}{end},{'C' * n}N\n" for n in range(1, 6) for end in "OSFNPIB")
    (tmp_path / "pairs.csv").write_text(f"source,target\n{lines}")
    typed = ["task=evaluate", "model=megamolbart_xsmall", *SIZES, *COMMON, "data=pairs", "task.split=train"]
    typed += [f"data.path={tmp_path / 'pairs.csv'}", "data.val_size=0", "data.test_size=0", "batch.num_workers=0"]
    typed += ["model.seq_length=8", "task.beam_size=128"]
    run_whole_and_in_two_parts(typed, tmp_path, monkeypatch, AnswerColumns, "predict", capsys)
    for name in ("metrics.json", "predictions.csv"):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
