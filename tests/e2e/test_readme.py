"""What README and docs tell a user to type works, and says what they say it does."""

import os
import re
import shlex
import subprocess
import sys
import types
from pathlib import Path

import pytest
from documents import PROJECT, code_blocks, pretend_installed, python_path, write_named_blocks

from bionemo_core import cli

DOCUMENTS = [PROJECT / "README.md", *sorted((PROJECT / "docs").glob("*.md"))]
TASKS_OF_ITS_OWN = {"cluster"}  # needs a file; what it does is tested where it lives

PLACEHOLDERS = ("PROTEINS", "MOLECULES", "REACTIONS", "TUNED")
SMALL = ("model.num_layers=1", "model.hidden_size=32", "model.num_attention_heads=2", "model.seq_length=64")
TRAINING = ("trainer.max_steps=1", "batch.num_workers=0", "trainer.progress_bar=false", "batch.micro_batch_size=4")
CPU = ("trainer.accelerator=cpu", "trainer.num_threads=1")


def _commands():
    for path in DOCUMENTS:
        for block in code_blocks(path):
            if block.language != "console":
                continue
            for line in block.text.splitlines():
                if line.startswith("$ bionemo-run "):
                    yield pytest.param(line.removeprefix("$ "), id=f"{path.name}: {line.removeprefix('$ ')}")


def _same_but_for_numbers(text, home):
    text = text.replace(str(home), "HOME")
    text = re.sub(r"\d[\d.,:]*k?(e-\d+)?", "N", text)
    return [" ".join(line.split()) for line in text.splitlines()]


@pytest.mark.parametrize("command", list(_commands()))
def test_command_is_accepted(tmp_path, monkeypatch, capsys, command):
    write_named_blocks(PROJECT / "docs/configuration.md", tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BIONEMO_HOME", str(tmp_path / "home"))
    arguments = shlex.split(command)[1:]
    if arguments[0] in TASKS_OF_ITS_OWN:
        pytest.skip("needs a file")
    if "=" in arguments[0] or arguments[0].startswith("-"):
        arguments += [] if "--cfg" in arguments else ["--cfg", "job"]
    status, printed = cli.main(arguments), capsys.readouterr()
    assert status == 0, printed.err
    assert printed.out


def test_first_screen_is_true(bionemo_run, tmp_path):
    block = next(one for one in code_blocks(PROJECT / "README.md") if one.language == "console")
    command, _, expected = block.text.partition("\n")
    assert block.line < 12
    done = bionemo_run(*shlex.split(command.removeprefix("$ "))[1:], "trainer.accelerator=cpu")
    assert done.returncode == 0, done.stderr
    assert _same_but_for_numbers(done.stdout, tmp_path / "home") == _same_but_for_numbers(expected, "/home/me/.bionemo")
    losses = [float(value) for value in re.findall(r"^step .*loss ([\d.]+)", done.stdout, re.MULTILINE)]
    assert losses[-1] < losses[0]


def test_links_lead_somewhere():
    for path in [*DOCUMENTS, PROJECT / "CONTRIBUTING.md", PROJECT / "SECURITY.md"]:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", path.read_text()):
            assert (path.parent / target).exists(), f"{path.name} links to {target}"


def test_tables_are_current():
    done = subprocess.run(
        [sys.executable, PROJECT / "docs/generate.py", "--check"],
        env={**os.environ, "BIONEMO_LOAD_PLUGINS": ",".join(path.name for path in (PROJECT / "plugins").iterdir())},
        text=True,
        capture_output=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_plugin_of_the_documentation_trains(forked_command, tmp_path):
    site, documented = tmp_path / "site", (PROJECT / "docs/plugins.md").read_text()
    names = write_named_blocks(PROJECT / "docs/plugins.md", site)
    assert names == ["pyproject.toml", "bionemo_mixer/__init__.py", "bionemo_mixer/network.py"]
    pretend_installed(site)
    listed = forked_command("plugins", PYTHONPATH=python_path(site)).stdout
    assert re.search(r"^bionemo-mixer 0\.1\.0 +ok", listed, re.MULTILINE), listed
    command = re.search(r"^bionemo-run (model=mixer trainer.max_steps=100)$", documented, re.MULTILINE)
    assert command, "the page shows another run"
    done = forked_command(*command[1].split(), "trainer.accelerator=cpu", PYTHONPATH=python_path(site))
    assert done.returncode == 0, done.stderr
    assert "highest 3.00e-03 at step 11" in done.stdout
    losses = [float(value) for value in re.findall(r"^step .*loss ([\d.]+)", done.stdout, re.MULTILINE)]
    assert losses[-1] < min(losses[0], 2.85)  # letters by their frequency alone cost 2.87


def test_dataclasses_of_the_documentation_become_keys():
    block = next(one for one in code_blocks(PROJECT / "docs/plugins.md") if "MixerShape" in one.text)
    names: dict[str, object] = {"__name__": "block"}
    sys.modules["block"] = types.ModuleType("block")  # a dataclass looks for its module
    try:
        exec(block.text, names)
    finally:
        del sys.modules["block"]
    for name, hidden_size in (("small", 32), ("large", 512)):
        config = names[name]
        assert [key.name for key in config.keys] == ["hidden_size", "width", "seq_length"]
        shape, seq_length = config(tokenizer=None, context=None)
        assert (shape, seq_length) == (names["MixerShape"](hidden_size, 9, True), 256)


@pytest.mark.slow
def test_demo_from_a_bare_machine(tmp_path):
    """The README's first set-up command, in a copy of what is tracked or new, with nothing but Python and pip."""
    blocks = [one.text.strip() for one in code_blocks(PROJECT / "README.md") if one.language == "sh"]
    command = next(one for one in blocks if one.endswith("nox -s demo"))
    checkout = tmp_path / "checkout"
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=PROJECT,
        capture_output=True,
        check=True,
    )
    for name in filter(None, listed.stdout.decode().split("\0")):
        if (PROJECT / name).is_file():
            (checkout / name).parent.mkdir(parents=True, exist_ok=True)
            (checkout / name).write_bytes((PROJECT / name).read_bytes())
    kept = {name: value for name, value in os.environ.items() if name.startswith("PIP_") or name in ("PATH", "HOME")}
    done = subprocess.run(["bash", "-c", command], cwd=checkout, env=kept, text=True, capture_output=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert list((checkout / "demo-home/runs/demo").glob("*/metrics.csv"))


def task_lines() -> list[str]:
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


def test_every_line_of_the_table_of_tasks_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    """Each line as it stands, on small files and smaller models."""
    pytest.importorskip("bionemo_molbart")
    write_files(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BIONEMO_HOME", str(tmp_path / "home"))
    found = task_lines()
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
