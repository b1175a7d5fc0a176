"""`bionemo-run new-plugin --kind`: each kind passes its own tests and changes what comes out of a run."""

import csv
import dataclasses
import importlib
import os
import re
import shlex
from pathlib import Path

import pytest
from documents import pretend_installed, python_path
from runs import Home

from bionemo_core import cli
from bionemo_core.builtin import load_registry
from bionemo_core.cli.new_plugin import GROUP_OF_KIND
from bionemo_core.config.schema import CORE_GROUPS
from bionemo_core.data.readers.plugin_formats import PluginSource
from bionemo_core.finetuning.label_spec import KINDS as KINDS_OF_LABELS

KINDS = tuple(kind for kind in GROUP_OF_KIND if kind != "model")  # the model has tests of its own
SHORT = ("trainer.max_steps=4", "trainer.log_every_n_steps=1", "trainer.val_check_interval=4", "batch.num_workers=0")
FILES = {
    "LICENSE",
    "README.md",
    "pyproject.toml",
    ".github/workflows/tests.yml",
    "tests/test_bionemo_my_KIND_conformance.py",
    "bionemo_my_KIND/__init__.py",
    "bionemo_my_KIND/plugin.py",
}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a plugin of each kind, as pip would install it."""
    folder = tmp_path_factory.mktemp("kinds")
    for kind in KINDS:
        place = folder / f"bionemo-my-{kind}"
        assert cli.main(["new-plugin", f"my-{kind}", "--kind", kind, "--folder", str(place)]) == 0
        pretend_installed(place)
    return folder


def search_path(folder: Path, *kinds: str) -> str:
    others = [str(folder / f"bionemo-my-{kind}") for kind in kinds[1:]]
    return os.pathsep.join([*others, python_path(folder / f"bionemo-my-{kinds[0]}")])


def unknown_keys(readme: str, own: str) -> list[str]:
    """The settings of a README's commands that name a key of no chosen component, or a kind that does not exist."""
    registry, wrong = load_registry(), []
    core = {f"{group}.{one.name}" for group, schema in CORE_GROUPS.items() for one in dataclasses.fields(schema)}
    for line in (line for line in readme.splitlines() if line.startswith("bionemo-run ") and "help" not in line):
        typed = [word.partition("=") for word in shlex.split(line) if "=" in word]
        chosen = {"task": "train"} | {key: name for key, _, name in typed if "." not in key}
        for key, _, value in typed:
            group, _, name = key.partition(".")
            if not name or own in (chosen.get(group), name.partition(".")[0]) or key in core:
                continue
            keys = {one.name for one in registry.get(group, chosen[group]).keys}
            if name not in keys or (name == "kind" and value not in KINDS_OF_LABELS):
                wrong.append(f"{key}={value}")
    return wrong


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_written(written: Path, kind: str):
    place = written / f"bionemo-my-{kind}"
    names = {
        str(path.relative_to(place)) for path in place.rglob("*") if path.is_file() and ".dist-info" not in str(path)
    }
    assert {name.replace("KIND", kind) for name in FILES} <= names
    texts = {name: (place / name).read_text() for name in names}
    assert not [name for name, text in texts.items() if re.search(r"\$(?!\{\{|BIONEMO_RUN)", text)]
    assert not [name for name, text in texts.items() if "\n\n\n\n" in text or not text.endswith("\n")]
    for name, text in texts.items():
        if name.endswith(".py"):
            compile(text, name, "exec")
            assert not re.search(r"[^\n]\n\n(?=def |class |@)", text), f"{name}: two blank lines before a definition"
    commands = [line for line in texts["README.md"].splitlines() if line.startswith("bionemo-run ")]
    assert any(f"my_{kind}" in line for line in commands)
    assert not unknown_keys(texts["README.md"].replace("\\\n", " "), f"my_{kind}")


def test_each_kind_passes_its_own_tests(home: Home, written: Path):
    folders = [f"bionemo-my-{kind}/tests" for kind in KINDS]
    options = ["--import-mode=importlib", *folders]
    tested = home.pytest(*options, folder=written, PYTHONPATH=search_path(written, *KINDS))
    assert tested.returncode == 0, tested.stdout + tested.stderr


def test_the_sample_file_of_the_reader_is_read(written: Path, monkeypatch: pytest.MonkeyPatch):
    place = written / "bionemo-my-reader"
    monkeypatch.syspath_prepend(place)
    reader = importlib.import_module("bionemo_my_reader.format").PipeReader()
    sample = place / "sample.my_reader"
    records = list(PluginSource(sample, kind="my_reader", reader=reader).records(sample))
    assert len(records) == 48
    assert all(set(record.sequence) <= set(b"ACDEFGHIKLMNPQRSTVWY") and not record.problem for record in records)


def test_dataset_tokenizer_and_callback_change_a_run(forked_command, written: Path, tmp_path: Path):
    chosen = ("tokenizer=my_tokenizer", "data=my_dataset", "data.size=64", "data.length=24", "batch.seq_length=64")
    callback = ("callbacks=my_callback", "callbacks.my_callback.every_n_steps=2")
    paths = search_path(written, "dataset", "tokenizer", "callback")
    done = forked_command("model=esm1nv_tiny", *chosen, *callback, *SHORT, PYTHONPATH=paths)
    assert done.returncode == 0, done.stderr
    assert "my_dataset: 64 train, 6 val" in done.stdout
    (folder,) = (tmp_path / "home/runs/esm1nv_tiny").iterdir()
    with (folder / "metrics.csv").open() as file:
        norms = {int(row["step"]): float(row["weight_norm"]) for row in csv.DictReader(file) if row["weight_norm"]}
    assert norms.keys() == {2, 4}
    assert norms[2] != norms[4]


def test_the_printed_commands_start_in_the_folder_that_they_need(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["new-plugin", "owl", "--kind", "reader", "--folder", "mine"]) == 0
    enter, install, use, test = capsys.readouterr().out.splitlines()[1:]
    assert (enter, install, test) == ("  cd mine", "  pip install -e '.[test]'", "  pytest")
    (path,) = (word.partition("=")[2] for word in use.split() if word.startswith("data.path="))
    assert Path("mine", path).is_file()


def test_a_kind_that_does_not_exist_is_refused(capsys):
    assert cli.main(["new-plugin", "owl", "--kind", "oracel"]) == 2
    assert "there is no kind 'oracel'. Did you mean 'oracle'?" in capsys.readouterr().err
