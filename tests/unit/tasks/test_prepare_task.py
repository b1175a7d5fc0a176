"""`task=prepare`, as it is typed."""

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bionemo_core import cli
from bionemo_core.errors import Stopped
from bionemo_core.tasks import prepare

COMMAND = """
import json, sys
from bionemo_core.cli import main
status = main(sys.argv[1:])
sys.stderr.write("\\n" + json.dumps([status, sorted({name.partition(".")[0] for name in sys.modules})]))
"""


def typed(home: Path, *arguments: str) -> tuple[int, set[str], str, str]:
    command = [sys.executable, "-c", COMMAND, "task=prepare", f"home={home}", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    status, modules = json.loads(done.stderr.splitlines()[-1])
    return status, set(modules), done.stdout, done.stderr


@pytest.mark.processes
def test_a_tokenizer_is_enough_and_torch_is_not_needed(tmp_path: Path) -> None:
    path = tmp_path / "a.fasta"
    path.write_text("".join(f">r{i}\n{'MKT' * (i % 9 + 1)}\n" for i in range(200)) + ">bad\nMJ\n")
    arguments = (f"data.path={path}", "data=fasta", "data.deduplicate=true", "data.val_fraction=0.2")
    status, modules, out, err = typed(tmp_path / "home", "tokenizer=esm1nv", *arguments)
    assert status == 0, err
    # pyarrow imports pandas where it is installed.
    assert not {"torch", "megatron", "pytorch_lightning", "transformers", "rdkit"} & modules
    lines = out.splitlines()
    assert lines[0] == (
        "a.fasta: read 201 = used 9 + rejected 192 (duplicate sequence 191, residue outside the alphabet 1)"
    )
    assert "  residue outside the alphabet: a.fasta:401 record 'bad': residue 'J' at position 2" in lines
    assert lines[-1] == "splits: 6 train, 2 val, 1 test"
    (store,) = (tmp_path / "home/prepared").glob("*/manifest.json")
    assert f"  store {store.parent}" in lines
    assert "  lengths in characters: 3 to 27, mean 15.0, 135 in total; drawn in lengths.png" in lines
    assert (store.parent / "lengths.png").read_bytes().startswith(b"\x89PNG")
    assert sum(json.loads(store.read_text())["lengths"]["counts"]) == 9


@pytest.mark.processes
def test_what_was_read_is_said_where_nothing_can_be_split(tmp_path: Path) -> None:
    path = tmp_path / "a.fasta"
    path.write_text(">a\nMKT\n>b\nMKJ\n>c\nMKL\n")
    status, _, out, err = typed(tmp_path / "home", "tokenizer=esm1nv", "data=fasta", f"data.path={path}")
    assert status == 2 and "leave nothing of 2 to train on. Lower data.val_fraction" in err
    assert out.startswith("a.fasta: read 3 = used 2 + rejected 1 (residue outside the alphabet 1)\n")


@pytest.mark.processes
def test_without_model_and_tokenizer_it_says_so(tmp_path: Path) -> None:
    status, _, _, err = typed(tmp_path / "home", "data=sample")
    assert status == 2 and "neither model= nor tokenizer= is given" in err


def test_a_signal_while_the_lengths_are_drawn_says_that_the_store_is_kept(monkeypatch, tmp_path, capsys) -> None:
    def stop(*_: Any, **__: Any) -> None:
        raise Stopped(signal.SIGINT)

    monkeypatch.setattr(prepare, "draw_lengths", stop)
    (tmp_path / "a.fasta").write_text(">a\nMKT\n>b\nMKV\n>c\nMKL\n")
    arguments = ["tokenizer=esm1nv", "data=fasta", f"data.path={tmp_path / 'a.fasta'}", f"home={tmp_path / 'home'}"]
    assert cli.main(["task=prepare", *arguments]) == 75
    assert "stopped by SIGINT; 1 of the stores are complete" in capsys.readouterr().err
    assert list((tmp_path / "home/prepared").glob("*/manifest.json"))
