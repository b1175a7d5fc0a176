"""Labelled sequences from v1's tables and FLIP's FASTA files."""

import gzip
import inspect
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bionemo_core.data.labelled_records import LabelledRecord
from bionemo_core.data.sources.labelled import labelled_csv
from bionemo_core.data.sources.labelled.flip import flip_fasta
from bionemo_core.data.sources.labelled.labelled_pairs import labelled_pairs
from bionemo_core.data.splits import table
from bionemo_core.errors import ConfigError, DataError

TABLE = "id,sequence,3state,resolved\na,MKV,CEH,110\nb,mkva,CCCC,1111\nc,MK!,CEH,111\n"


def folders(root: Path, text: str) -> Path:
    for split in ("train", "val", "test"):
        (root / split).mkdir(parents=True)
        (root / split / "x000.csv").write_text(text)
    return root


def test_v1_token_level_tables(tmp_path, tokenizer, context):
    root = folders(tmp_path / "ss", TABLE)
    splits = labelled_csv(
        str(root), target_column="3state", mask_column="resolved", tokenizer=tokenizer, context=context
    )
    assert splits.train.ids == ("a", "b")
    assert splits.train[0] == LabelledRecord(0, b"MKV", "CEH", "110", "a")
    assert splits.train[1].sequence == b"MKVA"
    assert [len(part) for part in splits.parts().values()] == [2, 2, 2]
    options = {"target_column": "3state", "mask_column": "resolved", "tokenizer": tokenizer, "context": context}
    assert labelled_csv(str(root), test_fraction=0.0, **options).fingerprint == splits.fingerprint
    with pytest.raises(ConfigError, match="val_fraction: has no effect, because each split has a folder"):
        labelled_csv(str(root), val_fraction=0.3, **options)
    with pytest.raises(DataError, match="record 'c': residue '!'"):
        labelled_csv(
            str(root),
            target_column="3state",
            mask_column="resolved",
            on_invalid="error",
            tokenizer=tokenizer,
            context=context,
        )


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1"])
def test_ids_and_labels_beyond_ascii_are_read(tmp_path, tokenizer, context, encoding):
    path = tmp_path / "t.csv"
    path.write_text("id,sequence,größe\n" + "".join(f"ä{n},MKV{'A' * n},fläche\n" for n in range(9)), encoding=encoding)
    splits = labelled_csv(str(path), target_column="größe", tokenizer=tokenizer, context=context)
    assert set(splits.train.labels) == {"fläche"}
    assert all(name.startswith("ä") for name in splits.train.ids)


def test_an_id_may_have_any_letter(tmp_path, tokenizer, context):
    path = tmp_path / "t.csv"
    path.write_text("id,sequence,target\n" + "".join(f"β{n},MKV{'A' * n},{n}\n" for n in range(9)), encoding="utf-8")
    splits = labelled_csv(str(path), tokenizer=tokenizer, context=context)
    assert all(name.startswith("β") for name in splits.train.ids)


@pytest.mark.parametrize(("name", "separator"), [("t.tsv", None), ("t.tsv.gz", None), ("t.csv", r"\t")])
def test_a_tsv_file_is_a_table_as_well(tmp_path, tokenizer, context, name, separator):
    text = "id\tsequence\ttarget\n" + "".join(f"r{n}\tMKV{'A' * n}\t{n}\n" for n in range(9))
    path = tmp_path / name
    path.write_bytes(gzip.compress(text.encode()) if name.endswith("gz") else text.encode())
    splits = labelled_csv(str(path), data_sep=separator, tokenizer=tokenizer, context=context)
    assert sorted(name for part in splits.parts().values() for name in part.ids) == [f"r{n}" for n in range(9)]
    with pytest.raises(DataError, match="expected one character"):
        labelled_csv(str(path), data_sep="tab", tokenizer=tokenizer, context=context)


def test_a_parquet_file_is_a_table_as_well(tmp_path, tokenizer, context):
    path = tmp_path / "t.parquet"
    rows = [(f"r{n}", f"MKV{'A' * n}", n / 2) for n in range(9)]
    names, sequences, labels = zip(*rows, strict=True)
    pq.write_table(pa.table({"id": names, "sequence": sequences, "target": labels}), path)
    splits = labelled_csv(str(path), tokenizer=tokenizer, context=context)
    found = {part.ids[row]: float(part.labels[row]) for part in splits.parts().values() for row in range(len(part))}
    assert found == {f"r{n}": n / 2 for n in range(9)}


def test_one_table_is_split_the_same_every_time(tmp_path, tokenizer, context):
    path = tmp_path / "delaney.csv"
    path.write_text("smiles,expt\n" + "".join(f"{'MKV' + 'A' * n},{n}.5\n" for n in range(40)))
    options = {"sequence_column": "smiles", "target_column": "expt", "tokenizer": tokenizer, "context": context}
    first, second = (labelled_csv(str(path), **options) for _ in range(2))
    assert [len(part) for part in first.parts().values()] == [28, 6, 6]
    assert first.fingerprint == second.fingerprint
    assert first.train.ids == second.train.ids
    everyone = [name for part in first.parts().values() for name in part.ids]
    assert len(set(everyone)) == 40
    other = labelled_csv(str(path), **options, split_seed=1)
    assert other.fingerprint != first.fingerprint


def test_too_few_rows_name_the_keys_of_this_source(tmp_path, tokenizer, context):
    (tmp_path / "t.csv").write_text("sequence,target\nMKV,1\nMKL,2\n")
    with pytest.raises(ConfigError, match=r"nothing of 2 to .*Lower data\.val_fraction and data\.test_fraction \(0"):
        labelled_csv(str(tmp_path / "t.csv"), tokenizer=tokenizer, context=context)
    with pytest.raises(ConfigError, match=r"Lower data\.val_fraction \(0: none\), or"):
        labelled_csv(str(tmp_path / "t.csv"), val_fraction=0.9, test_fraction=0.0, tokenizer=tokenizer, context=context)


def test_shards_of_one_file_are_refused(tmp_path, tokenizer, context):
    with pytest.raises(ConfigError, match=r"data\.val: names shards of a folder, and data\.dataset_path is one file"):
        labelled_csv(str(one_table(tmp_path)), val="x001", tokenizer=tokenizer, context=context)


def test_several_columns_of_labels(tmp_path, tokenizer, context):
    path = tmp_path / "several.csv"
    path.write_text("id,sequence,a,b\nx,MKV,1.5,\ny,MKA,,\nz,MKL,NA,2\nw,MKS,0,1\n")
    options = {"tokenizer": tokenizer, "context": context, "val_fraction": 0.0, "test_fraction": 0.0}
    several = labelled_csv(str(path), **options, target_columns=["b", "a"]).train
    assert several.targets == ("b", "a")
    assert [several[row].label for row in range(3)] == ["\t1.5", "2\tNA", "1\t0"], "y has no label at all"
    assert several.select([2]).targets == ("b", "a")
    other = labelled_csv(str(path), **options, target_columns=["a", "b"]).train
    assert other.fingerprint() != several.fingerprint()
    for wrong, message in (
        ({"target_columns": []}, "expected the names of different columns"),
        ({"target_columns": ["a", "a"]}, "expected the names of different columns"),
        ({"target_columns": ["a"], "target_column": "b"}, "both given"),
        ({"target_columns": ["a"], "mask_column": "b"}, "Leave one of them out"),
    ):
        with pytest.raises(ConfigError, match=message):
            labelled_csv(str(path), **options, **wrong)


def one_table(folder: Path, extra: str = "") -> Path:
    """Forty rows in pairs of relatives, that start with the same letter."""
    path = folder / "table.csv"
    kinds = ("train", "Valid", "test")
    rows = (f"r{n},{'ACDEFGHIKLMNPQRSTVWY'[n // 2]}{'K' * (1 + n % 2)},{n}.5,{kinds[n % 3]}\n" for n in range(40))
    path.write_text("id,sequence,target,part\n" + "".join(rows) + extra)
    return path


def test_a_column_of_one_table_names_the_split(tmp_path, tokenizer, context):
    path = one_table(tmp_path)
    splits = labelled_csv(str(path), split_column="part", tokenizer=tokenizer, context=context)
    for place, part in enumerate(splits.parts().values()):
        assert part.ids == tuple(f"r{n}" for n in range(40) if n % 3 == place)
    for key, value in {"val_fraction": 0.3, "test_fraction": 0.0, "split_seed": 1}.items():
        with pytest.raises(ConfigError, match=f"data.{key}: has no effect, because data.split_column decides"):
            labelled_csv(str(path), split_column="part", **{key: value}, tokenizer=tokenizer, context=context)
    path = one_table(tmp_path, "last,MK,1.0,tset\n")
    with pytest.raises(DataError, match=r"data.split_column: record 'last' has 'tset', expected one of train"):
        labelled_csv(str(path), split_column="part", tokenizer=tokenizer, context=context)


FLIP = """sequence,target,set,validation
MKT,1.5,train,
MKV,2.5,train,True
MKA,0.5,test,
MKL,3.5,train,False
"""
"""A table as the FLIP benchmark publishes its splits."""


def test_a_table_of_flip_is_split_as_published(tmp_path, tokenizer, context):
    path = tmp_path / "one_vs_rest.csv"
    path.write_text(FLIP)
    options = {"split_column": "set", "tokenizer": tokenizer, "context": context}
    splits = labelled_csv(str(path), validation_column="validation", **options)
    parts = {name: list(part.labels) for name, part in splits.parts().items()}
    assert parts == {"train": ["1.5", "3.5"], "val": ["2.5"], "test": ["0.5"]}
    without = labelled_csv(str(path), **options)
    assert (len(without.train), without.val, len(without.test)) == (3, None, 1)
    with pytest.raises(ConfigError, match=r"data\.validation_column.*data\.split_column"):
        labelled_csv(str(path), validation_column="validation", tokenizer=tokenizer, context=context)


def test_lines_above_the_header_are_skipped(tmp_path, tokenizer, context):
    path = tmp_path / "table.csv"
    path.write_text('{"made by": "a robot"}\n' + FLIP)
    options = {"split_column": "set", "tokenizer": tokenizer, "context": context}
    assert len(labelled_csv(str(path), header_lines=2, **options).train) == 3
    with pytest.raises(DataError, match=r"Set data\.header_lines=2"):
        labelled_csv(str(path), **options)


def test_clusters_of_one_table_lie_in_one_split(tmp_path, tokenizer, context):
    path, table = one_table(tmp_path), tmp_path / "clusters.tsv"
    table.write_text("".join(f"c{n // 2}\tr{n}\n" for n in range(40)))
    splits = labelled_csv(str(path), clusters=str(table), tokenizer=tokenizer, context=context)
    assert [len(part) for part in splits.parts().values()] == [28, 6, 6]
    for part in splits.parts().values():
        assert all(f"r{int(name[1:]) ^ 1}" in part.ids for name in part.ids)


def test_relatives_that_the_tokenizer_tells_lie_in_one_split(tmp_path, tokenizer, context, monkeypatch):
    path = one_table(tmp_path)
    monkeypatch.setattr(type(tokenizer), "families", {"first": lambda text: text[:1]}, raising=False)
    splits = labelled_csv(str(path), clusters="first", tokenizer=tokenizer, context=context)
    letters = [{sequence[:1] for sequence in part.sequences} for part in splits.parts().values()]
    assert [len(part) for part in splits.parts().values()] == [28, 6, 6]
    assert not (letters[0] & letters[1] or letters[0] & letters[2] or letters[1] & letters[2])
    with pytest.raises(ConfigError, match=r"data.clusters: frist: there is no such file.*or one of: first"):
        labelled_csv(str(path), clusters="frist", tokenizer=tokenizer, context=context)


def test_keys_that_are_empty_name_no_way_to_split(tmp_path, tokenizer, context):
    path = one_table(tmp_path)
    plain = labelled_csv(str(path), tokenizer=tokenizer, context=context)
    empty = labelled_csv(str(path), clusters="", split_column="", tokenizer=tokenizer, context=context)
    assert empty.fingerprint == plain.fingerprint


def test_ways_to_split_that_contradict_are_refused(tmp_path, tokenizer, context):
    both = {"clusters": "c.tsv", "split_column": "part", "tokenizer": tokenizer, "context": context}
    with pytest.raises(ConfigError, match=r"data.clusters and data.split_column: are different ways"):
        labelled_csv(str(one_table(tmp_path)), **both)
    root = folders(tmp_path / "ss", TABLE)
    for key in ("clusters", "split_column"):
        with pytest.raises(ConfigError, match=rf"data.{key}: data.dataset_path has a folder for each split"):
            labelled_csv(str(root), **{**both, "clusters": None, "split_column": None, key: "x"})


def test_flip_headers_say_which_split(tmp_path, tokenizer, context):
    path = tmp_path / "scl.fasta"
    path.write_text(
        ">a TARGET=Nucleus SET=train VALIDATION=False\nMKV\n"
        ">b TARGET=Membrane SET=train VALIDATION=True\nMKVA\n"
        ">c TARGET=Nucleus SET=test VALIDATION=False\nMKVAA\n"
    )
    splits = flip_fasta(str(path), tokenizer=tokenizer, context=context)
    assert {name: part.ids for name, part in splits.parts().items()} == {"train": ("a",), "val": ("b",), "test": ("c",)}
    assert splits.train[0].label == "Nucleus"
    path.write_text(">a SET=train VALIDATION=False\nMKV\n")
    with pytest.raises(DataError, match=r"the header of 'a' has no TARGET="):
        flip_fasta(str(path), tokenizer=tokenizer, context=context)


def test_labels_must_be_as_long_as_the_sequence(tmp_path, tokenizer, context):
    (tmp_path / "s.fasta").write_text(">a\nMKV\n")
    (tmp_path / "l.fasta").write_text(">a SET=train VALIDATION=False\nCE\n")
    with pytest.raises(DataError, match="'a' has 3 residues and 2 labels"):
        flip_fasta(str(tmp_path / "s.fasta"), str(tmp_path / "l.fasta"), tokenizer=tokenizer, context=context)


def test_what_has_no_label_or_mask_is_left_out_aloud(tmp_path, tokenizer, context, caplog):
    root = folders(tmp_path / "classes", "id,sequence,target\na,MKV,up\nb,MKVA,\nc,MK,down\n")
    splits = labelled_csv(str(root), tokenizer=tokenizer, context=context)
    assert splits.train.ids == ("a", "c")
    assert "read 3 = used 2 + rejected 1 (no label 1 (first: b))" in caplog.text
    header = "SET=train VALIDATION=False"
    (tmp_path / "s.fasta").write_text(">a\nMKV\n>b\nMKV\n")
    (tmp_path / "l.fasta").write_text(f">a {header}\nCEH\n>b {header}\nCEH\n>z {header}\nC\n")
    (tmp_path / "m.fasta").write_text(">a\n110\n")
    files = [str(tmp_path / f"{name}.fasta") for name in "slm"]
    assert flip_fasta(*files, tokenizer=tokenizer, context=context).train.ids == ("a",)
    assert "read 3 = used 1 + rejected 2 (no mask 1 (first: b), a label without a sequence 1 (first: z))" in caplog.text


def test_flip_secondary_structure_as_published(realdata, tokenizer, context):
    folder = realdata / "flip_secondary_structure"
    splits = flip_fasta(
        *(str(folder / f"{name}.fasta.gz") for name in ("sequences", "sampled", "mask")),
        tokenizer=tokenizer,
        context=context,
    )
    assert {name: len(part) for name, part in splits.parts().items()} == {"train": 9712, "val": 1080, "test": 364}
    record = splits.train[0]
    assert len(record.sequence) == len(record.label) == len(record.mask)
    assert set("".join(splits.test.labels)) == {"C", "E", "H"}


def test_dropped_long_sequences_are_logged(tmp_path, tokenizer, context, caplog):
    root = folders(tmp_path / "ss", TABLE)
    splits = labelled_csv(str(root), target_column="3state", tokenizer=tokenizer, context=context)
    kept = splits.drop_longer(3)
    assert kept.train.ids == ("a",)
    assert "dropped 1 of 2 sequences, which are longer than the model's limit of 3 letters" in caplog.text
    with pytest.raises(DataError, match="every sequence is longer"):
        splits.drop_longer(2)
    assert splits.drop_longer(3, _TwoLetters()) is not None
    assert splits.drop_longer(2, _TwoLetters()).train.ids == ("a", "b")  # type: ignore[arg-type]


class _TwoLetters:
    """Every token is two letters."""

    def encode(self, text: bytes) -> list[int]:
        return [0] * -(-len(text) // 2)


def test_equal_sequences_in_two_splits_are_counted_or_kept_together(tmp_path, tokenizer, context, caplog):
    path = tmp_path / "table.csv"
    rows = "".join(f"r{n},{'mk' if n % 2 else 'MK'}{'ACDEFGHIKL'[n // 6]},{n}\n" for n in range(60))
    path.write_text("id,sequence,target\n" + rows)  # six rows for each sequence, in two spellings
    splits = labelled_csv(str(path), tokenizer=tokenizer, context=context)
    training = set(splits.train.sequences)
    for name in ("val", "test"):
        shared = sum(sequence in training for sequence in splits.parts()[name].sequences)
        assert f"data: {shared} of the 9 {name} sequences are in the training split too. Keep equal" in caplog.text
    assert shared
    caplog.clear()
    splits = labelled_csv(str(path), clusters="identical", tokenizer=tokenizer, context=context)
    parts = [set(part.sequences) for part in splits.parts().values()]
    assert sum(map(len, parts)) == len(set().union(*parts)) == 10
    assert "training split too" not in caplog.text


def test_a_table_of_pairs_without_a_column_is_answered_with_the_key_that_names_it(tmp_path, tokenizer, context):
    path = tmp_path / "pairs.csv"
    path.write_text("a,second,target\nMKV,MKA,1\n")
    with pytest.raises(DataError, match=r"column 'first' is not in the header.* with data\.first_column\."):
        labelled_pairs(str(path), tokenizer=tokenizer, context=context)
    path.write_text("first,b,target\nMKV,MKA,1\n")
    with pytest.raises(DataError, match=r"column 'second' is not in the header.* with data\.second_column\."):
        labelled_pairs(str(path), tokenizer=tokenizer, context=context)


@pytest.mark.parametrize("component", [labelled_csv, labelled_pairs])
def test_keys_of_random_splits_are_typed_if_they_differ_from_the_defaults_of_the_components(component):
    defaults = {name: inspect.signature(component).parameters[name].default for name in table._OF_RANDOM_SPLITS}
    assert defaults == table._OF_RANDOM_SPLITS
