"""An interrupted `task=embed` keeps what it has computed, says so, and goes on."""

import json
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch.distributed as dist

from bionemo_core import cli
from bionemo_core.errors import Stopped
from bionemo_core.inference import outputs
from bionemo_core.inference.embedding import Embedder
from bionemo_core.parallel.ranks import Ranks

pytest.importorskip("bionemo_esm")


@pytest.fixture
def embed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Return a function that embeds eight proteins, one at a time, and returns the exit status of the command."""
    monkeypatch.setenv("BIONEMO_HOME", str(tmp_path / "home"))
    draw = np.random.default_rng(0)
    proteins = ["".join(draw.choice(list("LAGVSERTIDPK"), size=12)) for _ in range(8)]
    (tmp_path / "in.csv").write_text("id,sequence\n" + "".join(f"p{i},{text}\n" for i, text in enumerate(proteins)))
    model = ["model=esm1nv", "model.num_layers=1", "model.hidden_size=16", "model.num_attention_heads=2"]
    common = ["task=embed", "trainer.accelerator=cpu", "task.tokens_per_batch=1", f"task.input={tmp_path / 'in.csv'}"]
    return lambda name, *more: cli.main([*common, *model, f"task.output={tmp_path / name}", *more])


def interrupt_at(call: int, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Interrupt the embedder's n-th call; return a list that gets the number of sequences of each call."""
    run, sizes = Embedder.run, []

    def counted(self, sequences, names=()):
        if len(sizes) == call:
            raise Stopped(signal.SIGINT)
        sizes.append(len(sequences))
        return run(self, sequences, names)

    monkeypatch.setattr(Embedder, "run", counted)
    return sizes


@pytest.mark.parametrize("seconds_per_part", [0.0, 3600.0])
def test_an_interrupted_embedding_says_what_is_saved_and_goes_on(
    embed, seconds_per_part, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(outputs, "SECONDS_PER_PART", seconds_per_part)
    assert embed("whole.npz") == 0
    with monkeypatch.context() as patch:
        interrupt_at(5, patch)
        assert embed("cut.npz") == 75
    said = capsys.readouterr().err
    assert "stopped by SIGINT; 5 of 8 sequences are saved in" in said
    assert "Run the same command again" in said
    parts = list((tmp_path / "cut.npz.parts").glob("*.safetensors"))
    assert len(parts) == (5 if seconds_per_part == 0 else 1)
    with monkeypatch.context() as patch:
        sizes = interrupt_at(100, patch)
        assert embed("cut.npz") == 0
    assert sizes == [1, 1, 1]
    assert (tmp_path / "cut.npz").read_bytes() == (tmp_path / "whole.npz").read_bytes()
    assert not (tmp_path / "cut.npz.parts").exists()


def test_a_damaged_part_is_computed_again(embed, tmp_path, monkeypatch):
    monkeypatch.setattr(outputs, "SECONDS_PER_PART", 0.0)
    assert embed("whole.parquet") == 0
    with monkeypatch.context() as patch:
        interrupt_at(5, patch)
        assert embed("cut.parquet") == 75
    parts = sorted((tmp_path / "cut.parquet.parts").glob("*.safetensors"))
    parts[1].write_bytes(parts[1].read_bytes()[:-1])
    with monkeypatch.context() as patch:
        sizes = interrupt_at(100, patch)
        assert embed("cut.parquet") == 0
    assert sizes == [1] * 4
    assert (tmp_path / "cut.parquet").read_bytes() == (tmp_path / "whole.parquet").read_bytes()


def test_an_interrupt_before_anything_is_computed_says_so(embed, monkeypatch, capsys):
    interrupt_at(0, monkeypatch)
    assert embed("none.npz") == 130
    assert "No result was written; run the same command" in capsys.readouterr().err


def test_a_lost_rank_is_explained_and_the_same_command_goes_on(embed, tmp_path, monkeypatch, capsys):
    def lose(self):
        raise dist.DistBackendError("[../gloo/transport/tcp/pair.cc:547] Connection closed by peer [127.0.0.1]:1")

    with monkeypatch.context() as patch:
        patch.setattr(Ranks, "barrier", lose)
        assert embed("lost.npz") == 8
    said = capsys.readouterr().err
    assert "another rank of this job died or does not answer" in said
    assert "run the same command again" in said
    assert "resume=last" not in said
    assert embed("lost.npz") == 0
    assert (tmp_path / "lost.npz").exists()


def test_the_command_writes_the_chosen_layers_under_their_names(embed, tmp_path, capsys):
    assert embed("layers.npz", "task.layers=[-1,0]", "task.pooling=cls") == 0
    assert "embeddings_layer1, embeddings_layer0 of 8 sequences" in capsys.readouterr().out
    with np.load(tmp_path / "layers.npz") as got:
        assert got["embeddings_layer1"].shape == got["embeddings_layer0"].shape == (8, 16)
        facts = json.loads(str(got["facts"]))
    assert facts["settings"]["layers"] == [1, 0]
    assert facts["settings"]["pooling"] == "state of the first terminal token"
    assert embed("wrong.npz", "task.layers=[2]") == 2
    assert "task.layers: got 2" in capsys.readouterr().err
