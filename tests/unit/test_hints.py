"""A hint of a message can be typed as it stands: its keys exist, and following it changes the outcome."""

import ast
import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import bionemo_core
from bionemo_core import cli
from bionemo_core.builtin import load_registry
from bionemo_core.config.schema import CORE_GROUPS, SEVERAL_AT_ONCE

pytest.importorskip("bionemo_molbart")

PROJECT = Path(bionemo_core.__file__).parents[1]
PACKAGES = (PROJECT / "bionemo_core", *PROJECT.glob("plugins/*/bionemo_*"))
KEYS = {
    f"{one.group}{f'.{one.name}' if one.group in SEVERAL_AT_ONCE else ''}.{key.name}"
    for one in load_registry().components()
    for key in one.keys
} | {f"{group}.{one.name}" for group, schema in CORE_GROUPS.items() for one in dataclasses.fields(schema)}
GROUPS = {key.partition(".")[0] for key in KEYS}
LEAVES = {key.partition(".")[2] for key in KEYS} - GROUPS - {"name", "home", "seed"}
IN_PYTHON = ("inference/methods.py", "inference/sampling.py", "parallel/groups.py", "testing/", "config/v1/aliases.py")
"""Their messages name the arguments of Python functions, or keys of v1."""

PREFIXED = "tasks/finetuning/setting_checks.py", "interop/hub.py"
"""A function of theirs puts `task.` before each message, or makes the query of an address."""

NO_KEYS = {
    *("data.pkl", "callbacks.downstream", "logger.wandb", "logger.wandb.offline", "callbacks.downstream.dataset"),
    "model.language_model.encoder.layers",
    "tokenizer.json",  # a file
}
_DOTTED = re.compile(r"(?<![\w./<{}-])([a-z_]+(?:\.[a-z_]\w*)+)\b")
_BARE = re.compile(r"(?<![\w./{}-])([a-z_]+)=[^=]")


def messages() -> Iterator[tuple[str, str]]:
    """Every text with a space in it that is no docstring, with its place; expressions in it are `{}`."""
    for package in PACKAGES:
        for path in sorted(package.rglob("*.py")):
            place = path.relative_to(PROJECT).as_posix()
            if not any(part in place for part in ("/skeleton/", *IN_PYTHON, *PREFIXED)):
                yield from ((f"{place}:{line}", text) for line, text in texts(ast.parse(path.read_text("utf-8"))))


def texts(tree: ast.AST) -> Iterator[tuple[int, str]]:
    docs = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    inside = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    for node in ast.walk(tree):
        if id(node) in docs | inside:
            continue
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value:
            yield node.lineno, node.value
        elif isinstance(node, ast.JoinedStr):
            parts = (str(part.value) if isinstance(part, ast.Constant) else "{}" for part in node.values)
            yield node.lineno, "".join(parts)


def misspelt(text: str) -> list[str]:
    """Keys of a message that do not exist, and those without their group."""
    dotted = [key for key in _DOTTED.findall(text) if key.partition(".")[0] in GROUPS and key not in KEYS | NO_KEYS]
    return dotted + [f"{key}=" for key in _BARE.findall(text) if key in LEAVES]


def test_every_key_in_a_message_exists_under_that_name():
    assert {place: found for place, text in messages() if (found := misspelt(text))} == {}


PYTHON_WORDS = {"task.dtype", "task.window_overlap", "data.clusters", "task.scoring"}
"""Keys whose leaves begin messages about an argument of a Python function, or about a kind of file."""


def test_a_message_begins_with_the_whole_key():
    leaves = LEAVES - {key.partition(".")[2] for key in PYTHON_WORDS}
    begins = {place: re.match(r"([a-z_]+): got \{", text) for place, text in messages()}
    assert {place: found[1] for place, found in begins.items() if found and found[1] in leaves} == {}


def test_misspelt_keys_are_found():
    assert misspelt("Set on_long=window.") == ["on_long="]
    assert misspelt("Set data.on_lng=window, or trainer.max_steps=3.") == ["data.on_lng"]


CPU = ("trainer.accelerator=cpu", "trainer.progress_bar=false", "trainer.num_threads=1", "batch.num_workers=0")
PROTEIN = ("model=esm1nv_tiny", "model.num_layers=1", "model.hidden_size=32", "model.seq_length=32", *CPU)
MOLECULE = ("model=molmim_xsmall", "model.num_layers=1", "model.hidden_size=32", "model.num_attention_heads=2", *CPU)
EMBED = ("task=embed", "task.output=out.npz")
SHORT = (
    "trainer.max_steps=1",
    "trainer.val_check_interval=1",
    "trainer.limit_val_batches=1",
    "batch.micro_batch_size=1",
)
FASTA = (*SHORT, "data=fasta", "data.val_size=1", "data.test_size=1", "data.on_invalid=error")
CASES = {
    "long protein": ((*EMBED, *PROTEIN, "task.input=long.csv"), r"task\.on_long=window"),
    "long protein, cut": ((*EMBED, *PROTEIN, "task.input=long.csv"), r"task\.on_long=truncate"),
    "long molecule": ((*EMBED, *MOLECULE, "task.input=long_smiles.csv"), r"task\.on_long=truncate"),
    "unknown letter": ((*EMBED, *PROTEIN, "task.input=letter.csv"), r"task\.on_invalid=unk"),
    "unknown letter, skipped": ((*EMBED, *PROTEIN, "task.input=letter.csv"), r"task\.on_invalid=skip"),
    "gap": ((*EMBED, *PROTEIN, "task.input=gap.csv"), r"task\.on_invalid=skip"),
    "gap in training": ((*PROTEIN, *FASTA, "data.path=gap.fasta"), r"data\.on_gap=strip"),
    "letter in training": ((*PROTEIN, *FASTA, "data.path=letter.fasta"), r"data\.on_invalid=unk"),
    "variants of another column": (
        ("task=predict", *PROTEIN, "task.output=o.csv", "task.variants=v.csv", "task.wild_type=MKTA"),
        r"task\.variant_column",
    ),
    "long wild type": (
        ("task=predict", *PROTEIN, "task.output=o.csv", "task.scan=true", f"task.wild_type={'MKTA' * 10}"),
        r"task\.on_long=window",
    ),
    "column": ((*EMBED, *PROTEIN, "task.input=column.csv"), r"task\.sequence_column"),
    "format": ((*EMBED, *PROTEIN, "task.input=fasta.txt"), r"task\.format"),
}
VALUES = {"task.sequence_column": "protein", "task.format": "fasta", "task.variant_column": "change"}
"""What a user writes for a hint that leaves the value open."""


@pytest.fixture
def inputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BIONEMO_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    tables = {
        "long.csv": "id,sequence\na,MKTAYI\nb," + "MKTA" * 10 + "\n",
        "long_smiles.csv": "id,smiles\na,CCO\nb," + "C" * 600 + "\n",
        "letter.csv": "id,sequence\na,MKTAYI\nb,MK1TA\n",
        "gap.csv": "id,sequence\na,MKTAYI\nb,MK-TA\n",
        "column.csv": "id,protein\na,MKTAYI\n",
        "t.csv": "id,sequence,target\n" + "".join(f"{n},MKTAYI{'ACDEFGHIKL'[n]},{n}\n" for n in range(10)),
        "m.csv": "id,smiles\na,CCO\nb,CCN\n",
        "v.csv": "change,score\nK2R,1\n",
        "fasta.txt": ">a\nMKTAYI\n",
        "gap.fasta": "".join(f">r{n}\nMK-TAYI{'ACDEFGHIKL'[n]}\n" for n in range(10)),
        "letter.fasta": "".join(f">r{n}\nMK1TAYI{'ACDEFGHIKL'[n]}\n" for n in range(10)),
    }
    for name, text in tables.items():
        Path(name).write_text(text)


@pytest.mark.usefixtures("inputs")
@pytest.mark.parametrize("case", list(CASES))
def test_following_a_hint_changes_the_outcome(case, capsys):
    command, hint = CASES[case]
    assert cli.main([*command]) in (2, 3)
    found = re.search(hint, said := capsys.readouterr().err)
    assert found, said
    typed = found[0] if "=" in found[0] else f"{found[0]}={VALUES[found[0]]}"
    later = [one for one in command if not one.startswith(typed.partition("=")[0] + "=")]
    assert cli.main([*later, typed]) == 0, capsys.readouterr().err


SAMPLE = ("task=sample", *MOLECULE, "task.input=m.csv")
LABELLED = ("task=finetune", *PROTEIN, "data=labelled_csv", "data.dataset_path=t.csv", "task.kind=sequence_regression")
DOWNSTREAM = (
    *(*PROTEIN, *SHORT, "callbacks=[downstream]", "callbacks.downstream.dataset=labelled_csv"),
    *("callbacks.downstream.dataset_params={dataset_path: t.csv}", "callbacks.downstream.kind=sequence_regression"),
)
WRONG = {
    "task.on_invalid": (*EMBED, *PROTEIN, "task.input=t.csv"),
    "task.on_invalid ": (*EMBED, *MOLECULE, "task.input=m.csv"),
    "task.id_column": (*EMBED, *PROTEIN, "task.input=t.csv"),
    "task.text_form": (*EMBED, *PROTEIN, "task.input=t.csv"),
    "task.sampling_method": SAMPLE,
    "task.oracle": ("task=optimize", *MOLECULE, "task.input=m.csv"),
    "task.algorithm": ("task=optimize", *MOLECULE, "task.input=m.csv", "task.oracle=qed"),
    "task.measured": ("task=predict", *PROTEIN, "task.output=o.csv", "task.input=t.csv", "task.scoring=pseudo-ppl"),
    "data.id_column": LABELLED,
    "data.target_column": LABELLED,
    "data.mask_column": LABELLED,
    "data.on_invalid": LABELLED,
    "task.lora_targets": (*LABELLED, "task.encoder=lora"),
    "task.head": LABELLED,
    "callbacks.downstream.kind": DOWNSTREAM,
    "callbacks.downstream.head": DOWNSTREAM,
}
"""Keys and commands; a blank after a key tells two commands apart."""


@pytest.mark.usefixtures("inputs")
@pytest.mark.parametrize("key", list(WRONG))
def test_a_wrong_value_is_answered_with_its_own_key(key, capsys):
    typed = key.strip()
    value = {"task.lora_targets": "[nosuch]", "task.head": "convnet", "callbacks.downstream.head": "convnet"}
    command = [one for one in WRONG[key] if not one.startswith(f"{typed}=")]
    assert cli.main([*command, f"{typed}={value.get(typed, 'nosuch')}"]) in (2, 3)
    error = capsys.readouterr().err.rpartition("error[")[2]
    others = {one for one in WRONG if one.strip() != typed and f"{one.strip()} " in f"{error} "}
    assert typed in error
    assert not others, error
    if typed.endswith(("_column", ".measured")):
        assert "target" in error, "the columns that are there"


@pytest.mark.usefixtures("inputs")
def test_keys_of_a_head_that_is_not_named_are_refused(capsys):
    assert cli.main([*DOWNSTREAM, "callbacks.downstream.head_params={hidden_layer_size: 3}"]) == 2
    assert "head_params: not used without callbacks.downstream.head" in capsys.readouterr().err


@pytest.mark.usefixtures("inputs")
@pytest.mark.parametrize(
    ("command", "unwanted"),
    [
        ((*EMBED, *MOLECULE, "task.input=long_smiles.csv"), "window"),
        ((*EMBED, *PROTEIN, "task.input=gap.csv"), r"unk|on_gap|data\."),
        ((*EMBED, *PROTEIN, "task.input=column.csv"), r"data\."),
        ((*EMBED, *PROTEIN, "task.input=fasta.txt"), r"data\."),
    ],
)
def test_what_would_not_help_is_not_offered(command, unwanted, capsys):
    assert cli.main([*command]) in (2, 3)
    assert not re.search(unwanted, capsys.readouterr().err)
