"""Ranks that open the same files: those of a host check each file once, and a damaged one stops all of them."""

from pathlib import Path

import pytest
import torch

from bionemo_core.checkpoint.blocks import whole_part
from bionemo_core.checkpoint.load import open_checkpoint, open_newest_valid
from bionemo_core.checkpoint.rank_agreement import Openers, opening_together
from bionemo_core.checkpoint.save import save
from bionemo_core.config.schema import Choice
from bionemo_core.errors import ArtefactError, CheckpointError
from bionemo_core.interop import artefact
from bionemo_core.interop.artefact import Artefact, open_artefact, write_artefact
from bionemo_core.interop.stored import ModelSpec, Vocabulary

RANKS = 3
MODEL = Artefact(
    ModelSpec(Choice("model", "mine", {}, "bionemo-mine", "1"), Choice("tokenizer", "mine", {}, "bionemo-mine", "1")),
    Vocabulary.of(["<pad>"]),
)


def damage(path: Path) -> None:
    """Change the last bit of a file."""
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An artefact of four files."""
    tensors = {f"weight.{number}": torch.full((8,), float(number)) for number in range(4)}
    write_artefact(tmp_path / "model", MODEL, tensors, shard_bytes=32)
    return tmp_path / "model"


@pytest.fixture
def open_on_ranks(on_ranks):
    """A function that opens something on all ranks, which are on two hosts; it returns the names or the failures."""

    def open_all(open_one, hosts=((0, 2), (1, 2), (0, 1))):
        def action(peers):
            with opening_together(Openers(peers, *hosts[peers.rank])):
                opened = open_one()
            opened.close()
            return opened

        return on_ranks(RANKS, action)

    return open_all


@pytest.fixture
def hashed(monkeypatch) -> list[str]:
    names: list[str] = []
    hash_file = artefact.hash_file
    monkeypatch.setattr(artefact, "hash_file", lambda path, **how: names.append(path.name) or hash_file(path, **how))
    return names


def test_the_ranks_of_a_host_hash_each_file_once(folder, open_on_ranks, hashed):
    assert all(len(opened.tensors.names) == 4 for opened in open_on_ranks(lambda: open_artefact(folder)))
    files = sorted(path.name for path in folder.glob("*.safetensors"))
    assert len(files) == 4 and sorted(hashed) == sorted([*files, *files]), "once on each of the two hosts"
    hashed.clear()
    open_artefact(folder).close()
    assert sorted(hashed) == files, "a process that opens alone checks all"


@pytest.mark.parametrize("number", range(1, 5))
def test_a_damaged_file_stops_every_rank_and_is_named(folder, open_on_ranks, number):
    damaged = folder / f"weights-{number:05d}-of-00004.safetensors"
    damage(damaged)
    for failure in open_on_ranks(lambda: open_artefact(folder), hosts=((0, 3), (1, 3), (2, 3))):
        assert isinstance(failure, ArtefactError)
        assert f"{damaged}: damaged or edited" in str(failure)


def test_one_file_is_hashed_by_one_rank_of_a_host(tmp_path, open_on_ranks):
    path = tmp_path / "model.safetensors"
    write_artefact(path, MODEL, {"weight": torch.ones(8)})
    assert all(opened.tensors.names == {"weight"} for opened in open_on_ranks(lambda: open_artefact(path)))
    damage(path)
    for failure in open_on_ranks(lambda: open_artefact(path)):
        assert "the SHA-256 of its data differs" in str(failure)


def test_ranks_skip_the_same_damaged_checkpoint(tmp_path, open_on_ranks):
    _, newest = (save(tmp_path, step, [whole_part("w", torch.ones(8))], {}) for step in (1, 2))
    damage(max(newest.glob("*.safetensors"), key=lambda path: path.stat().st_size))
    failures = open_on_ranks(lambda: open_checkpoint(newest))
    assert all(isinstance(failure, CheckpointError) and "is damaged" in str(failure) for failure in failures)
    assert [reader.step for reader in open_on_ranks(lambda: open_newest_valid(tmp_path)[0])] == [1, 1, 1]
