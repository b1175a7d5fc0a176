"""`task=embed` as a user has it: order and ids kept, killed and continued, on two ranks, and from Python."""

import time
from pathlib import Path

import numpy as np
import pytest
from runs import Home, Run

from bionemo_core.io.locks import lock_folder

pytest.importorskip("bionemo_esm")

RESIDUES = list("LAGVSERTIDPKQNFYMHWC")


@pytest.fixture(scope="session")
def pretrained(home: Home) -> Path:
    """The folder of a run of a few steps."""
    return home.finish("name=pre", "trainer.max_steps=2", "trainer.val_check_interval=2").folder


@pytest.fixture(scope="session")
def proteins(home: Home) -> Path:
    """Sixty proteins, an id that occurs twice, lower case among them."""
    draw = np.random.default_rng(3)
    names = [f"p{number}" for number in range(59)] + ["p7"]
    rows = ["".join(draw.choice(RESIDUES, size=size)) for size in draw.integers(5, 100, size=60)]
    rows[4] = rows[4].lower()
    path = home.path / "proteins.fasta"
    path.write_text("".join(f">{name} note\n{row}\n" for name, row in zip(names, rows, strict=True)))
    return path


def embed(home: Home, model: Path, *arguments: str) -> str:
    common = ("task=embed", f"restore_from_path={model}", "trainer.num_threads=1", "trainer.accelerator=cpu")
    return home.command(*common, *arguments)


def test_order_and_ids_are_those_of_the_file_and_python_agrees(home, pretrained, proteins):
    output = home.path / "all.npz"
    said = embed(
        home, pretrained, f"task.input={proteins}", f"task.output={output}", "task.outputs=[embeddings,hiddens]"
    )
    assert "read 60 = used 60 + rejected 0" in said
    with np.load(output) as got:
        assert got["ids"].tolist() == [*(f"p{number}" for number in range(59)), "p7"]
        assert got["lengths"].sum() == len(got["hiddens"])
        means = [rows.mean(axis=0) for rows in np.split(got["hiddens"], got["offsets"][1:-1])]
        assert np.abs(np.stack(means) - got["embeddings"]).max() < 1e-5
        embeddings = got["embeddings"]
    import bionemo_core

    sequences = [row.partition("\n")[2].strip().upper() for row in proteins.read_text().split(">")[1:]]
    from_python = bionemo_core.embed(str(pretrained), sequences)
    assert np.abs(from_python - embeddings).max() < 1e-6 * np.abs(embeddings).max()


def test_a_killed_embedding_goes_on_and_ends_the_same(home, pretrained, proteins):
    whole, killed = home.path / "whole.npz", home.path / "killed.npz"
    many = (f"task.input={proteins}", "task.tokens_per_part=60", "task.tokens_per_batch=1")
    embed(home, pretrained, *many, f"task.output={whole}")
    log = home.path / "killed.log"
    common = ["task=embed", f"restore_from_path={pretrained}", "trainer.num_threads=1", "trainer.accelerator=cpu"]
    variables = {"BIONEMO_HOME": str(home.path)}
    started = home.ask({"start": [*common, *many, f"task.output={killed}"], "environment": variables, "log": str(log)})
    run = Run(home, "killed", log, started["pid"])
    parts = home.path / "killed.npz.parts"
    until = time.monotonic() + 60
    while len(list(parts.glob("*.json"))) < 5 and time.monotonic() < until:
        time.sleep(0.005)
    run.kill()
    kept = {path.name: path.stat().st_mtime_ns for path in parts.glob("*.json")}
    assert len(kept) >= 5, run.output()
    assert not killed.exists()
    embed(home, pretrained, *many, f"task.output={killed}")
    assert killed.read_bytes() == whole.read_bytes()
    assert not parts.exists()


def test_a_second_embedding_to_the_same_output_is_refused(home, pretrained, proteins):
    output = home.path / "held.npz"
    parts = home.path / "held.npz.parts"
    parts.mkdir()
    with lock_folder(parts, "test"):
        said = embed(home, pretrained, f"task.input={proteins}", f"task.output={output}")
    assert "error[config]: embedding: another process is writing to" in said and not output.exists()
    embed(home, pretrained, f"task.input={proteins}", f"task.output={output}")
    assert output.is_file() and not parts.exists()


def test_two_ranks_share_the_work(home, pretrained, proteins):
    one, two = home.path / "one.npz", home.path / "two.npz"
    many = (f"task.input={proteins}", "task.tokens_per_part=200")
    embed(home, pretrained, *many, f"task.output={one}")
    said = embed(home, pretrained, *many, f"task.output={two}", "trainer.devices=2")
    assert two.is_file(), said
    assert two.read_bytes() == one.read_bytes()


def test_what_is_there_is_not_overwritten_unasked(home, pretrained, proteins, tmp_path):
    output = home.path / "there.npz"
    output.write_text("mine")
    said = embed(home, pretrained, f"task.input={proteins}", f"task.output={output}")
    assert "already exists, and was not made from this input" in said
    assert output.read_text() == "mine"
    assert "error[data]" in embed(
        home, pretrained, f"task.input={_bad(tmp_path)}", f"task.output={tmp_path / 'bad.npz'}"
    )
    skipped = embed(
        home, pretrained, f"task.input={_bad(tmp_path)}", f"task.output={tmp_path / 'bad.npz'}", "task.on_invalid=skip"
    )
    assert "read 2 = used 1 + rejected 1" in skipped


def _bad(folder: Path) -> Path:
    path = folder / "bad.csv"
    path.write_text("id,sequence\na,MKV\nb,MK5V\n")
    return path
