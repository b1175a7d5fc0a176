"""Kept states are published whole, taken again, and made anew where they are damaged."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from bionemo_core.data.labelled_records import LabelledRecords
from bionemo_core.finetuning import state_cache
from bionemo_core.finetuning.state_cache import load_or_compute_states
from bionemo_core.inference.embedding import HIDDENS, Embedder, EmbeddingSettings
from bionemo_core.parallel.ranks import Ranks
from bionemo_core.protocols import BuildContext

presets = pytest.importorskip("bionemo_esm.presets")


@pytest.fixture
def job(tmp_path):
    """What asks for the states of three sequences, and counts how often they are computed."""
    tokenizer = presets.esm1nv_alphabet()
    sizes = {"num_layers": 1, "hidden_size": 16, "num_attention_heads": 2, "seq_length": 32}
    module = presets.esm1nv(**sizes, tokenizer=tokenizer, context=BuildContext())
    embedder = Embedder(module, tokenizer, EmbeddingSettings(outputs=(HIDDENS,)))
    sequences = (b"MKTAYIAK", b"GSHMLE", b"LLLLLLLLLL")
    records = LabelledRecords(("a", "b", "c"), sequences, ("", "", ""), (), np.arange(3))
    runs = []
    compute = embedder.run

    def counted(*arguments):
        runs.append(arguments)
        return compute(*arguments)

    embedder.run = counted

    def ask():
        before = len(runs)
        kept = load_or_compute_states(tmp_path, records, embedder, "weights", True, "float32", Ranks())
        return kept, len(runs) - before

    return ask


def test_states_are_kept_whole_and_taken_again(job, tmp_path):
    first, computed = job()
    table = first.table.clone()
    assert computed and first.offsets.tolist() == [0, 8, 14, 24] and first.table.shape == (24, 16)
    (folder,) = (tmp_path / "states").iterdir()
    again, computed = job()
    assert not computed and torch.equal(again.table, table)
    (folder / "states.npy").write_bytes(b"damaged")
    mended, computed = job()
    assert computed and torch.equal(mended.table, table)
    assert [path.name for path in (tmp_path / "states").iterdir()] == [folder.name]


def test_a_failure_leaves_nothing_behind(job, tmp_path, monkeypatch):
    def full(*arguments, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np.lib.format, "open_memmap", full)
    with pytest.raises(Exception, match="No space left"):
        job()
    assert list((tmp_path / "states").iterdir()) == []


def test_what_a_killed_run_has_left_goes_at_the_next_start_and_what_a_live_one_makes_stays(job, tmp_path):
    with subprocess.Popen([sys.executable, "-c", ""]) as killed:
        killed.wait()
    machine = os.uname().nodename
    for process in (killed.pid, os.getppid(), os.getpid()):
        (tmp_path / "states" / f"abc.{machine}.{process}").mkdir(parents=True)
    (tmp_path / "states" / f"abc.another-{machine}.{killed.pid}").mkdir()
    job()
    left = {path.name for path in (tmp_path / "states").iterdir() if path.name.startswith("abc.")}
    assert left == {f"abc.{machine}.{os.getppid()}", f"abc.another-{machine}.{killed.pid}"}


def two_ranks_main(rank, folder):
    """One of two ranks that keep states together, one sequence at a time; it writes what it computed."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    tokenizer = presets.esm1nv_alphabet()
    sizes = {"num_layers": 1, "hidden_size": 16, "num_attention_heads": 2, "seq_length": 32}
    torch.manual_seed(0)
    module = presets.esm1nv(**sizes, tokenizer=tokenizer, context=BuildContext())
    embedder = Embedder(module, tokenizer, EmbeddingSettings(outputs=(HIDDENS,)))
    records = LabelledRecords(("a", "b", "c"), (b"MKTAYIAK", b"GSHMLE", b"LLLLLLLLLL"), ("", "", ""), (), np.arange(3))
    compute, computed = embedder.run, []
    embedder.run = lambda texts, ids: computed.append(list(ids)) or compute(texts, ids)
    state_cache._PART_SEQUENCES = 1
    kept = load_or_compute_states(Path(folder), records, embedder, "weights", True, "float32", Ranks(rank, 2))
    alone = [compute([text], [name]).arrays[HIDDENS] for text, name in zip(records.sequences, records.ids, strict=True)]
    same = np.array_equal(kept.table.numpy(), np.concatenate(alone))
    Path(folder, str(rank)).write_text(f"{computed[1:]} {same}")  # the first run finds the width


@pytest.mark.slow
def test_two_ranks_compute_their_parts_of_the_states(tmp_path):
    mp.start_processes(two_ranks_main, (str(tmp_path),), nprocs=2, start_method="spawn")
    assert [(tmp_path / str(rank)).read_text() for rank in range(2)] == ["[['a'], ['c']] True", "[['b']] True"]
