"""The README's table of tasks: each line runs as it stands, on small files and smaller models."""

import re
import shlex
from pathlib import Path

import pytest
from documents import PROJECT

from bionemo_core import cli

pytest.importorskip("bionemo_esm")
pytest.importorskip("bionemo_molbart")

PLACEHOLDERS = ("PROTEINS", "MOLECULES", "REACTIONS", "TUNED")
SMALL = ("model.num_layers=1", "model.hidden_size=32", "model.num_attention_heads=2", "model.seq_length=64")
TRAINING = ("trainer.max_steps=1", "batch.num_workers=0", "trainer.progress_bar=false", "batch.micro_batch_size=4")
CPU = ("trainer.accelerator=cpu", "trainer.num_threads=1")


def lines() -> list[str]:
    text = (PROJECT / "README.md").read_text()
    table = text[text.index("| to | type |") :].split("\n\n")[0]
    return re.findall(r"\| `(bionemo-run .*)` \|$", table, re.MULTILINE)


def write_files(folder: Path) -> None:
    proteins = ["MKTAYIAKQR", "GSHMLEDPVA", "MSTNPKPQRK", "AVLLDEKQRS", "MKVLAAGIVG", "GIVEQCCTSI"]
    sequences = [proteins[number % 6][: 6 + number % 5] + proteins[number // 8] for number in range(48)]
    molecules = [f"{'C' * size}{end}" for size in range(1, 11) for end in ("O", "N", "Cl", "c1ccccc1")]
    tables = {
        "my.fasta": [f">{sequence}\n{sequence}" for sequence in sequences],
        "wt.fasta": [">wt\nMKTAYIAKQR"],
        "my.smi": molecules,
        "reactions.csv": ["rxn", *(f"{'C' * n}Br.O>>{'C' * n}O" for n in range(1, 30))],
        "labelled.csv": ["id,sequence,target", *(f"{one},{one},{one.count('A')}" for one in sequences)],
        "interactions.csv": ["first,second,target", *(f"{s},{sequences[0]},{'A' in s}" for s in sequences)],
        "variants.csv": ["mutant", "K2A", "T3V"],
        "products.csv": ["product", "CCO", "CCCO"],
    }
    for name, rows in tables.items():
        (folder / name).write_text("\n".join(rows) + "\n")


def small(line: str, folder: Path) -> tuple[list[str], str]:
    """The arguments of a line with the smallest sizes, and the name of the run that it is to write."""
    arguments = shlex.split(line)[1:]
    given = dict(argument.split("=", 1) for argument in arguments if "=" in argument)
    task = given.get("task", "train" if "model" in given else arguments[0])
    arguments = [
        f"{key}{mark}{folder / value if value in PLACEHOLDERS and key == 'restore_from_path' else value}"
        for key, mark, value in (argument.partition("=") for argument in arguments)
    ]
    more = {
        "train": (*SMALL, *TRAINING, "data.val_size=4"),
        "finetune": (*TRAINING, "trainer.val_check_interval=1"),
        "optimize": ("task.iterations=2", "task.population=4", "task.limit=2"),
    }.get(task, ())
    plain = task in ("cluster", "models", "doctor", "prepare", "serve")
    if task == "serve" or "task.to=onnx" in arguments:  # the one would not end; the other takes long, and has its tests
        return [*arguments, "--cfg", "job"], ""
    return [*arguments, *more, *(() if plain else CPU[: 1 if task == "convert" else 2])], given.get("name", "")


def test_every_line_of_the_table_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    write_files(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BIONEMO_HOME", str(tmp_path / "home"))
    found = lines()
    assert len(found) >= 20
    tasks = {match[1] for line in found if (match := re.search(r"task=(\w+)", line))}
    assert tasks == {"prepare", "embed", "finetune", "predict", "evaluate", "sample", "optimize", "convert"}
    for line in found:
        arguments, name = small(line, tmp_path)
        monkeypatch.delenv("BIONEMO_RUN_FOLDER", raising=False)
        if name:
            monkeypatch.setenv("BIONEMO_RUN_FOLDER", str(tmp_path / name))
        status, printed = cli.main(arguments), capsys.readouterr()
        assert status == 0, f"{line}\n{printed.err[-2000:]}"
        assert printed.out, line
    written = ("my.parquet", "predictions.csv", "scores.csv", "scan.csv", "reactants.csv", "proteins.nemo")
    for name in (*written, "report/report.html", "clusters.tsv", *PLACEHOLDERS):
        assert (tmp_path / name).exists(), name
