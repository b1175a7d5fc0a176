"""The core's data components, as a configuration calls them."""

import copy
import subprocess
import sys
from pathlib import Path

import pytest

from bionemo_core.data import sources
from bionemo_core.data.clusters import cluster_fasta
from bionemo_core.data.splits import read_clusters
from bionemo_core.data.tokenizer import CharacterTokenizer
from bionemo_core.errors import ConfigError, DataError
from bionemo_core.plugins.factories import configure
from bionemo_core.protocols import BuildContext, RecordDataset


def test_sample_needs_nothing_else(tokenizer: CharacterTokenizer, context: BuildContext) -> None:
    splits = sources.sample(tokenizer=tokenizer, context=context)
    assert [len(split) for split in (splits.train, splits.val, splits.test)] == [448, 32, 32]
    assert isinstance(splits.train, RecordDataset)
    everything = {split[i] for split in (splits.train, splits.val, splits.test) for i in range(len(split))}
    assert len(everything) > 500
    assert all(len(splits.train[i]) == splits.train.lengths[i] for i in range(448))
    assert splits.fingerprint == sources.sample(tokenizer=tokenizer, context=context).fingerprint
    assert splits.fingerprint != sources.sample(seed=1, tokenizer=tokenizer, context=context).fingerprint
    twin = copy.deepcopy(splits.train)  # by the way that a spawned worker gets it
    assert [twin[i] for i in range(9)] == [splits.train[i] for i in range(9)]


def test_sample_that_the_tokenizer_cannot_read(context: BuildContext) -> None:
    pieces = ["<unk>", "<s>", "</s>", "<pad>", "<mask>", *"LASGVERTDIPKNFQYHMC"]
    without_w = CharacterTokenizer(pieces, pad_id=3, bos_id=1, eos_id=2, unk_id=0, mask_id=4)
    with pytest.raises(DataError, match=r"not in the tokenizer's alphabet .* another tokenizer") as caught:
        sources.sample(tokenizer=without_w, context=context)
    assert "on_invalid" not in str(caught.value)


def test_home_comes_from_the_environment(
    tmp_path: Path, tokenizer: CharacterTokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BIONEMO_HOME", str(tmp_path / "elsewhere"))
    sources.sample(tokenizer=tokenizer, context=BuildContext())
    assert len(list((tmp_path / "elsewhere/prepared").glob("*/manifest.json"))) == 1


def _write(path: Path, records: dict[str, str]) -> str:
    path.write_text("".join(f">{name}\n{sequence}\n" for name, sequence in records.items()))
    return str(path)


def test_fasta_with_files_of_their_own(tmp_path: Path, tokenizer: CharacterTokenizer, context: BuildContext) -> None:
    train = _write(tmp_path / "t.fasta", {f"t{i}": "MKT" for i in range(10)})
    val = _write(tmp_path / "v.fasta", {"v": "LLL"})
    splits = sources.fasta(train, val_path=val, test_fraction=0, tokenizer=tokenizer, context=context)
    assert (len(splits.train), len(splits.val), splits.test) == (10, 1, None)
    other = sources.fasta(train, val_path=val, test_fraction=0.2, tokenizer=tokenizer, context=context)
    assert (len(other.train), len(other.test)) == (8, 2)
    assert other.fingerprint != splits.fingerprint


def test_fasta_by_clusters(
    realdata: Path, tmp_path: Path, tokenizer: CharacterTokenizer, context: BuildContext
) -> None:
    path, table = realdata / "uniprot_sample_512.fasta", tmp_path / "clusters.tsv"
    cluster_fasta(path, table)
    cluster_of = read_clusters(table)
    splits = sources.fasta(
        str(path), val_fraction=0.1, test_fraction=0.1, clusters=str(table), tokenizer=tokenizer, context=context
    )
    sides = [{cluster_of[name] for name in split.ids()} for split in (splits.train, splits.val, splits.test)]
    assert not (sides[0] & sides[1] or sides[0] & sides[2] or sides[1] & sides[2])
    assert sum(len(split) for split in (splits.train, splits.val, splits.test)) == 512


def test_csv_in_the_layout_of_v1(tmp_path: Path, tokenizer: CharacterTokenizer, context: BuildContext) -> None:
    for split, count in (("train", 3), ("val", 1), ("test", 1)):
        (tmp_path / split).mkdir()
        for shard in range(count):
            text = f"record_id,record_name,sequence_length,sequence\n{shard},n,3,MK{'LAS'[shard]}\n"
            (tmp_path / split / f"x00{shard}.csv").write_text(text)
    ranges = {"train": "x[000..002]", "val": "x000", "test": "x_OP_000..000_CL_"}
    splits = sources.csv(str(tmp_path), **ranges, tokenizer=tokenizer, context=context)
    assert [splits.train[i] for i in range(3)] == [b"MKL", b"MKA", b"MKS"]
    assert (len(splits.val), len(splits.test)) == (1, 1)
    with pytest.raises(DataError, match=r"data\.train: .*x003\.csv"):
        sources.csv(str(tmp_path), "x[000..003]", tokenizer=tokenizer, context=context)
    with pytest.raises(ConfigError, match=r"data\.train"):
        sources.csv(str(tmp_path), "", tokenizer=tokenizer, context=context)


def test_configurations_are_typed() -> None:
    from omegaconf import OmegaConf

    config = OmegaConf.structured(configure(sources.fasta))
    assert OmegaConf.is_missing(config, "path")
    config.max_length = "512"
    assert config.max_length == 512


def test_listing_the_sources_is_light() -> None:
    code = (
        "import sys, bionemo_core.data.sources; print([m for m in ('torch', 'pyarrow', 'numpy') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
