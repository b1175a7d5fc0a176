"""Y1: a user's YAML with a fault somewhere: status 2 with the file and the place or the key, and nothing runs."""

import random
from collections.abc import Callable
from pathlib import Path

import pytest
from matrix import row

from bionemo_core import cli

pytestmark = pytest.mark.faults

LINES = (
    "name: mine",
    "seed: 7",
    "trainer:",
    "  max_steps: 3",
    "  log_every_n_steps: 1",
    "batch:",
    "  micro_batch_size: 2",
    "optim:",
    "  lr: 1.0e-3",
)


def _insert(text: str) -> Callable[[random.Random], bytes]:
    def fault(draw: random.Random) -> bytes:
        place = draw.choice((0, 1, 2, 5, 7, 9))  # where a line of the top level may stand
        return "\n".join([*LINES[:place], text, *LINES[place:]]).encode()

    return fault


def _bytes(bad: bytes) -> Callable[[random.Random], bytes]:
    def fault(draw: random.Random) -> bytes:
        text = "\n".join(LINES).encode()
        place = draw.randrange(len(text))
        return text[:place] + bad + text[place:]

    return fault


FAULTS: dict[str, tuple[Callable[[random.Random], bytes], str]] = {
    "a tab": (_insert("model:\n\tnum_layers: 2"), "tab"),
    "an open bracket": (_insert("callbacks: [one, two"), "mine.yaml:"),
    "a tag": (_insert('extra: !!python/object/apply:os.system ["touch made"]'), "mine.yaml:"),
    "another tag": (_insert("extra: !mine 1"), "mine.yaml:"),
    "a key of Hydra": (_insert("hydra: {run: {dir: made}}"), "hydra.run.dir"),
    "a target": (_insert("model: {_target_: os.system}"), "model._target_"),
    "an unknown key": (_insert("trainr: {max_steps: 3}"), "trainr"),
    "a second document": (_insert("---\nseed: 8"), "mine.yaml:"),
    "Latin-1": (_bytes("é".encode("latin-1")), "not UTF-8"),
    "UTF-16": (_bytes(b"\xff\xfe"), "not UTF-8"),
    "a zero byte": (_bytes(b"\0"), "mine.yaml"),
    "a key that is null": (_insert("checkpoint: null"), "checkpoint"),
}


def test_y1_faults_in_a_users_yaml(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("BIONEMO_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    path = Path("conf/experiment/mine.yaml")
    path.parent.mkdir(parents=True)
    typed = ["--config-dir", str(tmp_path / "conf"), "+experiment=mine", "model=esm1nv_tiny"]
    path.write_text("\n".join(LINES))
    assert cli.main([*typed, "--cfg", "job"]) == 0, "without a fault it is read"
    assert "max_steps: 3" in capsys.readouterr().out
    matrix = row("Y1", subset=12, full=60)
    for number in range(matrix.n):
        what = list(FAULTS)[number % len(FAULTS)]
        fault, words = FAULTS[what]
        with matrix.case(f"{number}: {what}"):
            path.write_bytes(fault(matrix.draw(number)))
            assert cli.main(typed) == 2
            said = capsys.readouterr().err
            assert "error[config]: " in said
            assert words in said
            assert sorted(one.name for one in tmp_path.iterdir()) == ["conf"], "nothing ran"
    matrix.check()
