"""`task.input` takes what comes through a pipe."""

import gzip
import os
import threading
from typing import Any

import numpy as np
import pytest

from bionemo_core import cli
from bionemo_core.tasks.input_file import read_input
from bionemo_core.tasks.settings import Embed

esm1nv_tokenizer = pytest.importorskip("bionemo_esm.tokenizer").esm1nv_tokenizer

FASTA = b">a\nMKTAYIAK\n>b\nMKV\n"
MODEL = ("model=esm1nv_tiny", "model.num_layers=1", "model.hidden_size=16", "model.num_attention_heads=2")
COMMON = (*MODEL, "trainer.num_threads=1", "trainer.accelerator=cpu", "trainer.progress_bar=false", "seed=3")


@pytest.fixture
def stdin(monkeypatch, tmp_path):
    """Lets bytes come through standard input."""
    monkeypatch.setenv("BIONEMO_HOME", str(tmp_path / "home"))
    before = os.dup(0)

    def send(content: bytes) -> None:
        reader, writer = os.pipe()
        os.write(writer, content)
        os.close(writer)
        os.dup2(reader, 0)
        os.close(reader)

    yield send
    os.dup2(before, 0)
    os.close(before)


def records(path: str, **keys: Any) -> list[tuple[bytes, ...]]:
    """The ids and sequences that come through a path."""
    source, rules = read_input(path, Embed(input=path, output="o.npz", **keys), esm1nv_tokenizer())
    found = [record for one in source.paths for record in source.records(one)]
    return [(record.id, *rules.apply(record).sequences) for record in found]


def test_sequences_come_through_standard_input_or_a_named_pipe(stdin, tmp_path):
    expected = [(b"a", b"MKTAYIAK"), (b"b", b"MKV")]
    for path, content, keys in (
        ("-", FASTA, {}),
        ("/dev/stdin", FASTA, {}),
        ("-", gzip.compress(FASTA), {"format": "fasta"}),
        ("-", b"id,sequence\na,MKTAYIAK\nb,MKV\n", {"format": "csv"}),
    ):
        stdin(content)
        assert records(path, **keys) == expected
    os.mkfifo(tmp_path / "fifo")
    threading.Thread(target=(tmp_path / "fifo").write_bytes, args=[FASTA]).start()
    assert records(str(tmp_path / "fifo")) == expected


@pytest.mark.parametrize(
    ("sent", "arguments", "status", "said"),
    [
        (b"id,sequence\na,MKV\n", (), 2, "task.input=-: a pipe has no extension, and what came through it does not"),
        (b"", (), 3, "task.input=-: nothing came through the pipe"),
        (FASTA, ("trainer.devices=2",), 2, "task.input=-: a pipe has one reader"),
    ],
)
def test_what_cannot_be_read_is_said(stdin, tmp_path, capsys, sent, arguments, status, said):
    stdin(sent)
    assert cli.main(["task=embed", *COMMON, "task.input=-", f"task.output={tmp_path / 'o.npz'}", *arguments]) == status
    assert said in capsys.readouterr().err


def test_a_pipe_is_embedded_as_a_file_is(stdin, tmp_path):
    stdin(FASTA)
    output = tmp_path / "o.npz"
    assert cli.main(["task=embed", *COMMON, "task.input=-", f"task.output={output}"]) == 0
    with np.load(output) as found:
        assert found["embeddings"].shape == (2, 16)
