"""The core's data components, as a configuration calls them."""

import copy
import subprocess
import sys
from pathlib import Path

import pytest
from file_server import Answer, serving

from bionemo_core import cli
from bionemo_core.data import sources
from bionemo_core.data.splits.clustering import cluster_fasta
from bionemo_core.data.splits.indices import read_clusters
from bionemo_core.data.tokenizer import CharacterTokenizer
from bionemo_core.errors import ConfigError, DataError
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


class Codons(CharacterTokenizer):
    """Letters of DNA, with a sample of its own."""

    def sample_texts(self) -> list[str]:
        return ["ACG" * (i % 7 + 1) for i in range(100)]


def test_sample_of_the_tokenizer_knows_its_lengths(context: BuildContext) -> None:
    pieces = ["<pad>", "<s>", "</s>", "<unk>", "<mask>", *"ACGT"]
    tokenizer = Codons(pieces, pad_id=0, bos_id=1, eos_id=2, unk_id=3, mask_id=4)
    splits = sources.sample(tokenizer=tokenizer, context=context)
    assert [len(split) for split in (splits.train, splits.val, splits.test)] == [36, 32, 32]
    twin = copy.deepcopy(splits.train)  # by the way that a spawned worker gets it
    assert [len(text) for text in twin] == twin.lengths.tolist() == splits.train.lengths.tolist()
    assert sources.sample(val_size=0, tokenizer=tokenizer, context=context).val is None


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
    splits = sources.records(dataset_path=str(tmp_path), data_col=3, **ranges, tokenizer=tokenizer, context=context)
    assert [splits.train[i] for i in range(3)] == [b"MKL", b"MKA", b"MKS"]
    assert (len(splits.val), len(splits.test)) == (1, 1)
    with pytest.raises(DataError, match=r"data\.train: .*x003\.csv"):
        sources.records(dataset_path=str(tmp_path), train="x[000..003]", tokenizer=tokenizer, context=context)
    with pytest.raises(ConfigError, match=r"data\.train"):
        sources.records(dataset_path=str(tmp_path), train="", tokenizer=tokenizer, context=context)


def test_the_column_named_sequence_is_never_passed_over_for_v1s_number(tmp_path, tokenizer, context):
    options = {"tokenizer": tokenizer, "context": context}
    (tmp_path / "a.csv").write_text("id,sequence,x,family\n" + "".join(f"{n},MK{'A' * n},1,KINASE\n" for n in range(9)))
    with pytest.raises(DataError, match=r"which is 'family', but the header has a column 'sequence'.*column=sequence"):
        sources.csv(str(tmp_path / "a.csv"), **options)
    assert sources.csv(str(tmp_path / "a.csv"), column="sequence", **options).train[0].startswith(b"MK")
    assert sources.csv(str(tmp_path / "a.csv"), column="family", **options).train[0] == b"KINASE"


def test_the_rejected_are_counted_where_nothing_is_left_to_train_on(tmp_path, tokenizer, context):
    (tmp_path / "a.csv").write_text("sequence\nMKT\n" + "M1\n" * 5)
    with pytest.raises(ConfigError, match=r"leave nothing of 1 to train on.*read 6 = used 1 \+ rejected 5"):
        sources.records(str(tmp_path / "a.csv"), tokenizer=tokenizer, context=context)


def test_shards_without_their_folder_are_refused(tmp_path, tokenizer, context):
    _write(tmp_path / "a.fasta", {"a": "MKT", "b": "MKL", "c": "MKV"})
    with pytest.raises(ConfigError, match=r"data\.val: names shards of data\.dataset_path.*data\.val_path"):
        sources.records(str(tmp_path / "a.fasta"), val="x000", tokenizer=tokenizer, context=context)


def test_one_csv_table_is_split(tmp_path: Path, tokenizer: CharacterTokenizer, context: BuildContext) -> None:
    (tmp_path / "a.csv").write_text("name,protein\n" + "".join(f"p{i},{'MKT' * (i + 1)}\n" for i in range(20)))
    options = {"format": "csv", "column": "protein", "id_column": "name", "val_fraction": 0.2, "test_size": 1}
    splits = sources.records(str(tmp_path / "a.csv"), **options, tokenizer=tokenizer, context=context)
    assert [len(part) for part in (splits.train, splits.val, splits.test)] == [15, 4, 1]
    assert {splits.train[i] for i in range(15)} < {b"MKT" * (i + 1) for i in range(20)}
    assert splits.test.ids()[0].startswith("p")


def test_files_can_be_named_in_many_ways(
    tmp_path: Path, tokenizer: CharacterTokenizer, context: BuildContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for number in range(3):
        _write(Path(f"x00{number}.fasta"), {f"r{number}": "MK" + "LAS"[number]})
    (tmp_path / "deep/er").mkdir(parents=True)
    _write(Path("deep/er/y.fa"), {"y": "WWW"})

    def ids(path: object, **options: object) -> list[str]:
        none = {"val_size": 0, "test_size": 0, "tokenizer": tokenizer, "context": context}
        return sources.fasta(path, **none, **options).train.ids()

    for names in ("x[000..002].fasta", "x_OP_000..002_CL_.fasta", "x[000..002]", "x*.fasta", "x00?.fasta"):
        assert ids(names) == ["r0", "r1", "r2"]
        assert ids(str(tmp_path / names)) == ["r0", "r1", "r2"]
    assert ids(["x002.fasta", "deep/**/*.fa"]) == ["r2", "y"]
    assert ids(("x001.fasta", (tmp_path / "x000.fasta").as_uri())) == ["r1", "r0"]
    _write(Path("x000.fasta"), {"new": "MKT"})
    assert ids((tmp_path / "x000.fasta").as_uri()) == ["new"]
    _write(Path("x000.fasta"), {"r0": "MKL"})
    for names, error, message in (
        ("x[000..003].fasta", DataError, r"x003\.fasta, which is not a file"),
        ("x005.fasta", DataError, r"data\.path: x005\.fasta: cannot be read"),
        ("z*.fasta", DataError, r"no file matches z\*\.fasta"),
        ("file:///none.fasta", DataError, r"/none\.fasta: cannot be read"),
        (["x000.fasta", "x*.fasta"], ConfigError, r"x000\.fasta is named twice"),
        ("deep", ConfigError, r"deep is a folder. Name its files, as in data\.path='deep/\*"),
        ([], ConfigError, "names no file"),
        (7, ConfigError, "7 names no file"),
        ("s3://bucket/x.fasta", ConfigError, "expected an address with http"),
    ):
        with pytest.raises(error, match=message):
            ids(names)


def test_the_same_records_in_every_format(tmp_path: Path, tokenizer: CharacterTokenizer, context: BuildContext) -> None:
    import gzip

    import pyarrow as pa
    import pyarrow.parquet as pq

    proteins = {f"p{i}": "MKT" + "LASGV"[i] * (i + 1) for i in range(5)}
    fastq = "".join(f"@{name}\n{one}\n+\n{'I' * len(one)}\n" for name, one in proteins.items())
    (tmp_path / "a.fq.gz").write_bytes(gzip.compress(fastq.encode()))
    (tmp_path / "a.tsv").write_text("id\tsequence\n" + "".join(f"{n}\t{s}\n" for n, s in proteins.items()))
    pq.write_table(pa.table({"id": list(proteins), "sequence": list(proteins.values())}), tmp_path / "a.parquet")
    _write(tmp_path / "a.fasta", proteins)
    for name, options in (
        ("a.fq.gz", {}),
        ("a.fasta", {}),
        ("a.tsv", {"id_column": "id"}),
        ("a.parquet", {"id_column": "id"}),
    ):
        none = {"val_size": 0, "test_size": 0, "tokenizer": tokenizer, "context": context}
        train = sources.records(str(tmp_path / name), **options, **none).train
        assert dict(zip(train.ids(), [train[i].decode() for i in range(5)], strict=True)) == proteins


def test_shards_of_fasta_in_the_layout_of_v1(
    tmp_path: Path, tokenizer: CharacterTokenizer, context: BuildContext
) -> None:
    for split in ("train", "val", "test"):
        (tmp_path / split).mkdir()
        for shard in range(2):
            _write(tmp_path / split / f"x00{shard}.fasta", {f"{split}{shard}": "MKT"})
    ranges = {"train": "x[000..001]", "val": "x000", "test": ""}
    splits = sources.records(dataset_path=str(tmp_path), **ranges, tokenizer=tokenizer, context=context)
    assert (splits.train.ids(), splits.val.ids(), splits.test) == (["train0", "train1"], ["val0"], None)
    with pytest.raises(ConfigError, match="its folders are the splits"):
        sources.records(dataset_path=str(tmp_path), **ranges, val_size=1, tokenizer=tokenizer, context=context)
    with pytest.raises(ConfigError, match="neither is given"):
        sources.records(tokenizer=tokenizer, context=context)


def test_an_address_is_downloaded_or_ends_the_command_with_8(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setenv("BIONEMO_HOME", str(tmp_path / "home"))
    content = "".join(f">p{i}\nMKT{'L' * i}\n" for i in range(200)).encode()
    with serving(content, answers=[Answer(404)]) as server:
        command = ["task=prepare", "model=esm1nv", "data=fasta", f"data.path={server.url('/p.fasta', 'me:canary@')}"]
        assert cli.main(command) == 8
        output = capsys.readouterr()
        assert (
            f"error[network]: download: http://***@127.0.0.1:{server.port}/p.fasta: the server answered 404"
            in output.err
        )
        assert "canary" not in output.err + output.out
        assert cli.main(command) == 0
        assert "p.fasta: read 200 = used 200 + rejected 0" in capsys.readouterr().out
    assert len(server.requests) == 2


def test_configurations_are_typed() -> None:
    from omegaconf import OmegaConf

    config = OmegaConf.structured(sources.fasta.structured())
    assert OmegaConf.is_missing(config, "path")
    config.max_length = "512"
    assert config.max_length == 512


@pytest.mark.processes
def test_listing_the_sources_is_light() -> None:
    code = (
        "import sys, bionemo_core.data.sources; print([m for m in ('torch', 'pyarrow', 'numpy') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
