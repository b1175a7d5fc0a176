"""Every record is used or counted with a reason; every unreadable file is a classified error."""

import gzip
import json
import logging
import multiprocessing
import os
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from bionemo_core.data.readers import CsvSource, FastaSource
from bionemo_core.data.store import prepare as prepare_module
from bionemo_core.data.store.prepare import prepare, record_prepared_stores
from bionemo_core.data.store.record_store import PreparedStore
from bionemo_core.data.store.report import draw_lengths, summary
from bionemo_core.data.store.residue_filter import ResidueFilter
from bionemo_core.data.tokenizer import CharacterTokenizer
from bionemo_core.errors import BioNeMoError, ConfigError, DataError, StorageError
from bionemo_core.io import atomic
from bionemo_core.io.hashing import seal
from bionemo_core.protocols import BuildContext

Prepare = Callable[..., PreparedStore]


@pytest.fixture
def prepared(tmp_path: Path, tokenizer: CharacterTokenizer, context: BuildContext) -> Prepare:
    def run(text: bytes, name: str = "a.fasta", **options: Any) -> PreparedStore:
        path = tmp_path / name
        path.write_bytes(text)
        return prepare(FastaSource(path), ResidueFilter.of(tokenizer, **options), context)

    return run


def contents(store: PreparedStore) -> dict[str, bytes]:
    return dict(zip(store.ids(), [store[i] for i in range(len(store))], strict=True))


def test_records_are_cleaned(prepared: Prepare) -> None:
    store = prepared(b">a some words\nmkt\nAY IA\n\n>b|c\r\nMKT*\r\n>d\rLL\r")
    assert contents(store) == {"a": b"MKTAYIA", "b|c": b"MKT", "d": b"LL"}
    assert store.lengths.tolist() == [7, 3, 2]
    assert store.manifest["records"]["notes"] == {"stop removed from the end": 1}


def test_reading_is_used_plus_rejected(prepared: Prepare, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "bionemo")
    text = b">a\nMKT\n>b\nMJT\n>c\n\n>d\nM*T\n>a\nLLL\n>\nMKT\n>e\nMKTMKT\n>f\nM\n>g\nMKT\n>h\nM\0T\n"
    store = prepared(text, deduplicate=True, min_length=2, max_length=5)
    records = store.manifest["records"]
    assert contents(store) == {"a": b"MKT"}
    assert records["rejected"] == {
        "residue outside the alphabet": 2,
        "stop inside": 1,
        "empty sequence": 1,
        "no id": 1,
        "longer than 5": 1,
        "shorter than 2": 1,
        "duplicate id": 1,
        "duplicate sequence": 1,
    }
    assert records["read"] == 10 == records["used"] + sum(records["rejected"].values())
    assert "a.fasta: read 10 = used 1 + rejected 9 (residue outside the alphabet 2," in caplog.text
    examples = store.manifest["examples"]["residue outside the alphabet"]
    assert examples[0] == "a.fasta:3 record 'b': residue 'J' at position 2"


def test_invalid_residues_can_stop_or_stay(prepared: Prepare, tokenizer: CharacterTokenizer) -> None:
    text = b">a\nMKT\n>P12345 x\nMKJT\n"
    with pytest.raises(DataError, match=r"a\.fasta:3 record 'P12345': residue 'J' at position 3 .*25 letters.*skip"):
        prepared(text, on_invalid="error")
    store = prepared(text, on_invalid="unk")
    assert tokenizer.encode(contents(store)["P12345"]).tolist()[2] == tokenizer.unk_id
    with pytest.raises(ConfigError, match="skip, error, unk"):
        prepared(text, on_invalid="drop")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "has no record"),
        (b"\n \n", "has no record"),
        (b"MKT\n", "starts with b'MKT"),
        ("\ufeff>a\nMKT\n".encode("utf-16"), "UTF-16"),
        (gzip.compress(b">a\nMKT\n" * 99, mtime=0)[:-20], "ends in the middle"),
        (gzip.compress(b">a\nMKT\n", mtime=0)[:-8] + b"\0" * 8, "damaged"),
        (gzip.compress(b"", mtime=0), "has no record"),
        (b">a\n>b\n", "none of 2 records can be used .empty sequence 2"),
        (b"PK\x03\x04zip", "zip archive"),
        (b"PK zip", "expected '>'"),
    ],
)
def test_unreadable_files_are_named(prepared: Prepare, text: bytes, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        prepared(text, "bad.fasta")
    assert "bad.fasta" in str(caught.value)


def test_missing_file_and_folder_are_named(
    tmp_path: Path, tokenizer: CharacterTokenizer, context: BuildContext
) -> None:
    for path in (tmp_path / "none.fasta", tmp_path):
        with pytest.raises(DataError, match="cannot be read"):
            prepare(FastaSource(path), ResidueFilter.of(tokenizer), context)


def test_byte_order_mark_gzip_and_line_ends_change_nothing(prepared: Prepare) -> None:
    text = b">a\nMKT\n>b\nLLA\n"
    variants = [text, b"\xef\xbb\xbf" + text, text.replace(b"\n", b"\r\n"), text.replace(b"\n", b"\r")]
    variants += [gzip.compress(text), gzip.compress(text[:7]) + gzip.compress(text[7:])]
    assert [contents(prepared(v)) for v in variants] == [{"a": b"MKT", "b": b"LLA"}] * len(variants)


def test_records_across_blocks(prepared: Prepare, monkeypatch: pytest.MonkeyPatch) -> None:
    text = b"".join(b">r%d\r\nMKT%s\r\nAY\r\n" % (i, b"L" * (i % 7)) for i in range(50))
    expected = {f"r{i}": b"MKT" + b"L" * (i % 7) + b"AY" for i in range(50)}
    for size in (1, 2, 3, 5, 8, 13, 64):
        monkeypatch.setattr("bionemo_core.data.readers.decompress.BLOCK_BYTES", size)
        assert contents(prepared(text, f"{size}.fasta", min_length=1 + size % 2)) == expected


def test_store_is_reused_until_the_source_changes(prepared: Prepare, monkeypatch: pytest.MonkeyPatch) -> None:
    first = prepared(b">a\nMKT\n")
    before = (first.folder / "manifest.json").stat().st_mtime_ns
    again = prepared(b">a\nMKT\n")
    assert again.folder == first.folder and (again.folder / "manifest.json").stat().st_mtime_ns == before
    changed = prepared(b">a\nMKL\n")
    assert contents(changed) == {"a": b"MKL"}
    assert changed.fingerprint != first.fingerprint
    assert prepared(b">a\nMKT\n", min_length=2).fingerprint != first.fingerprint


def test_equal_files_share_a_store_and_keep_their_names(prepared: Prepare) -> None:
    text = b">a\nMKT\n>b\nMJT\n"
    first, second, again = prepared(text, "a.fasta"), prepared(text, "other.fa"), prepared(text, "a.fasta")
    assert first.folder == second.folder
    for store, name in ((first, "a.fasta"), (second, "other.fa"), (again, "a.fasta")):
        assert summary(store.manifest).startswith(f"{name}: read 2 = used 1 + rejected 1")
        (example,) = store.manifest["examples"]["residue outside the alphabet"]
        assert example.startswith(f"{name}:3 record 'b'")


def test_foreign_version_is_prepared_again(prepared: Prepare) -> None:
    store = prepared(b">a\nMKT\n")
    path = store.folder / "manifest.json"
    path.write_text(json.dumps(seal({**store.manifest, "version": 1})))
    with pytest.raises(DataError, match="has version 1, expected 2"):
        PreparedStore(store.folder)
    assert contents(prepared(b">a\nMKT\n")) == {"a": b"MKT"}
    assert json.loads(path.read_text())["version"] == 2


def test_store_with_another_fingerprint_is_refused(prepared: Prepare) -> None:
    store, other = prepared(b">a\nMKT\n"), prepared(b">a\nMKL\n")
    for path in store.folder.iterdir():
        path.write_bytes((other.folder / path.name).read_bytes())
    assert contents(prepared(b">a\nMKT\n")) == {"a": b"MKT"}


def test_a_source_that_changes_during_preparation_is_refused(
    prepared: Prepare, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = prepare_module.filter_blocks

    def meddle(blocks: Any, rules: Any, kind: str, path: Path, pool: Any) -> Any:
        with path.open("ab") as stream:
            stream.write(b">late\nMKT\n")
        return real(blocks, rules, kind, path, pool)

    monkeypatch.setattr(prepare_module, "filter_blocks", meddle)
    with pytest.raises(DataError, match="changed while it was read"):
        prepared(b">a\nMKT\n")


def test_a_failure_leaves_no_files(prepared: Prepare, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path) -> None:
        raise OSError(28, "No space left on device", str(path))

    with monkeypatch.context() as patch:
        patch.setattr(atomic, "sync", full)
        with pytest.raises(StorageError, match="No space left on device"):
            prepared(b">a\nMKT\n")
    assert [p.name for p in (tmp_path / "home/prepared").iterdir() if p.is_dir()] == []
    assert contents(prepared(b">a\nMKT\n")) == {"a": b"MKT"}


def test_a_home_that_is_a_file_is_a_storage_error(tmp_path: Path, tokenizer: CharacterTokenizer) -> None:
    (tmp_path / "home").touch()
    (tmp_path / "a.fasta").write_bytes(b">a\nMKT\n")
    with pytest.raises(StorageError, match="BIONEMO_HOME"):
        prepare(
            FastaSource(tmp_path / "a.fasta"), ResidueFilter.of(tokenizer), BuildContext(home=str(tmp_path / "home"))
        )


def _prepare_and_report(path: Path, rules: ResidueFilter, context: BuildContext, queue: Any) -> None:
    try:
        store = prepare(FastaSource(path), rules, context)
        queue.put((len(store), store[len(store) - 1]))
    except BioNeMoError as error:
        queue.put(str(error))


@pytest.mark.processes
def test_processes_may_prepare_the_same_store_at_once(
    tmp_path: Path, tokenizer: CharacterTokenizer, context: BuildContext
) -> None:
    path = tmp_path / "a.fasta"
    path.write_bytes(b"".join(b">r%d\nMKTAYIAKQR\n" % i for i in range(20_000)))
    fork = multiprocessing.get_context("fork")
    queue = fork.Queue()
    arguments = (path, ResidueFilter.of(tokenizer), context, queue)
    processes = [fork.Process(target=_prepare_and_report, args=arguments) for _ in range(4)]
    for process in processes:
        process.start()
    results = [queue.get(timeout=60) for _ in processes]
    for process in processes:
        process.join()
    assert results == [(20_000, b"MKTAYIAKQR")] * 4
    assert len([p for p in (Path(context.home) / "prepared").iterdir() if p.is_dir()]) == 1


@pytest.mark.processes
def test_a_killed_preparation_leaves_no_store(
    tmp_path: Path, tokenizer: CharacterTokenizer, context: BuildContext
) -> None:
    path = tmp_path / "a.fasta"
    path.write_bytes(b">a\nMKT\n>b\nMKL\n")
    child = os.fork()
    if child == 0:
        os.rename = lambda *_: os.kill(os.getpid(), 9)
        prepare(FastaSource(path), ResidueFilter.of(tokenizer), context)
    os.waitpid(child, 0)
    parent = Path(context.home) / "prepared"
    assert [p.name[0] for p in parent.iterdir() if p.is_dir()] == ["."]
    assert contents(prepare(FastaSource(path), ResidueFilter.of(tokenizer), context)) == {"a": b"MKT", "b": b"MKL"}
    assert len([p for p in parent.iterdir() if p.is_dir()]) == 1


def _csv(tmp_path: Path, text: str, name: str = "x000.csv") -> Path:
    path = tmp_path / name
    path.write_bytes(text.encode("latin-1"))
    return path


def test_csv_by_number_and_by_name(tmp_path: Path, tokenizer: CharacterTokenizer, context: BuildContext) -> None:
    path = _csv(tmp_path, 'record_id,name,n,sequence\n0,"a, b",3,MKT\n\n1,\xe9,2,ll\n2,c\n3,d,1,J\n')
    for column in (3, "sequence"):
        store = prepare(CsvSource([path], column), ResidueFilter.of(tokenizer), context)
        assert contents(store) == {"x000.csv:2": b"MKT", "x000.csv:4": b"LL"}
        assert store.manifest["records"]["rejected"] == {"too few columns": 1, "residue outside the alphabet": 1}


@pytest.mark.parametrize(
    ("text", "column", "message"),
    [
        ('id,sequence\n0,"MKT\n1,LLL\n', 1, "Check the quotes"),
        ('id,sequence\n0,"MKT\n1",LLL\n', 1, "continues to line 3"),
        ("id,sequence\n0,MKT\n", "seq", "'seq' is not in the header, which has id, sequence"),
        ("0," + "MKT" * 20 + "\n", 1, "looks like a sequence"),
        ("", 1, "has no record, expected at least one"),
        ("id,sequence\n0,MKT\n", 3, "no row has a column 3, .*The header has id, sequence.*data.column"),
    ],
)
def test_bad_tables_are_named(
    tmp_path: Path, tokenizer: CharacterTokenizer, context: BuildContext, text: str, column: int | str, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        prepare(CsvSource([_csv(tmp_path, text)], column), ResidueFilter.of(tokenizer), context)


def test_columns_of_the_source_come_back(tmp_path: Path, tokenizer: CharacterTokenizer, context: BuildContext) -> None:
    path = tmp_path / "a.fasta"
    path.write_bytes(b">a SET=train\nMKT\n>b SET=test\nMJ\n>c SET=test VALIDATION=True\nMKTLL\n>d\nLL\n")
    rules = ResidueFilter.of(tokenizer, max_length=3, on_long="window")
    store = prepare(FastaSource(path, ["description"]), rules, context)
    assert store.columns == ("description",)
    found = [(store.id(i), store[i], store.column(i, "description")) for i in range(len(store))]
    assert found == [
        ("a", b"MKT", b"SET=train"),
        ("c/1", b"MKT", b"SET=test VALIDATION=True"),
        ("c/2", b"LL", b"SET=test VALIDATION=True"),
        ("d", b"LL", b""),
    ]
    with pytest.raises(DataError, match="no column 'SET', expected description"):
        store.column(0, "SET")
    assert prepare(FastaSource(path), rules, context).columns == ()


def test_a_windowed_record_counts_once(prepared: Prepare) -> None:
    text = b">a\nMKTAY\n>b\nMKTLL\n>a\nSSSSS\n>c\nAYMKT\n>d\nAY\n"
    store = prepared(text, max_length=3, on_long="window", deduplicate=True)
    assert contents(store) == {"a/1": b"MKT", "a/2": b"AY", "b/2": b"LL", "c/1": b"AYM", "c/2": b"KT"}
    records = store.manifest["records"]
    assert records["rejected"] == {"duplicate id": 1, "duplicate sequence": 1}
    assert (records["read"], records["used"], records["rows"]) == (5, 3, 5)
    assert records["notes"] == {"cut into windows": 4, "with duplicate windows, dropped": 1}


def test_duplicate_ids_by_option(prepared: Prepare) -> None:
    text = b">a\nMKT\n>b\nLL\n>a\nAY\n"
    assert contents(prepared(text)) == {"a": b"MKT", "b": b"LL"}
    kept = prepared(text, on_duplicate_id="keep")
    assert kept.ids() == ["a", "b", "a"]
    assert kept.manifest["records"]["notes"] == {"with the id of an earlier record, kept": 1}
    with pytest.raises(DataError, match=r"a\.fasta: id 'a' is repeated, expected each id once; repeated ids: 1\."):
        prepared(text, on_duplicate_id="error")


def test_lengths_are_counted(prepared: Prepare) -> None:
    store = prepared(b"".join(b">r%d\n%s\n" % (i, b"M" * i) for i in range(1, 101)))
    lengths = store.manifest["lengths"]
    assert (lengths["shortest"], lengths["longest"], lengths["mean"], lengths["total"]) == (1, 100, 50.5, 5050)
    assert sum(lengths["counts"]) == 100
    # One sequence of each length: a bin of n lengths holds n.
    assert [b - a for a, b in pairwise(lengths["edges"])] == lengths["counts"]
    for number, sequences in enumerate((["M" * 7], ["M", "M" * 5000])):
        text = "".join(f">{i}\n{s}\n" for i, s in enumerate(sequences)).encode()
        draw_lengths(prepared(text).manifest, store.folder / f"{number}.png")
        assert (store.folder / f"{number}.png").stat().st_size > 5000


def test_other_processes_prepare_the_same_store(
    tmp_path: Path, tokenizer: CharacterTokenizer, context: BuildContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bionemo_core.data.readers.decompress.BLOCK_BYTES", 4096)
    path = tmp_path / "a.fasta"
    path.write_bytes(b"".join(b">r%d x\n%s\n" % (i % 900, b"MKTJ*"[: 3 + i % 3] * (i % 5)) for i in range(1000)))
    rules = ResidueFilter.of(tokenizer, max_length=10, on_long="window", deduplicate=True)
    stores = [
        prepare(FastaSource(path), rules, replace(context, home=str(tmp_path / str(n)), preparation_workers=n))
        for n in (0, 2)
    ]
    files = [sorted((p.name, p.read_bytes()) for p in store.folder.iterdir()) for store in stores]
    assert files[0] == files[1]
    with pytest.raises(DataError, match=r"a\.fasta:\d+ record 'r\d+': residue 'J'"):
        prepare(FastaSource(path), replace(rules, on_invalid="error"), replace(context, preparation_workers=1))
    with pytest.raises(ConfigError, match=r"task\.num_workers: -1"):
        prepare(FastaSource(path), replace(rules, min_length=2), replace(context, preparation_workers=-1))


def test_a_bar_is_shown_on_a_terminal(
    prepared: Prepare, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bionemo_core.data.store.report._WORTH_A_BAR_BYTES", 1)
    prepared(b">a\nMKT\n")
    assert capsys.readouterr().err == ""
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    prepared(b">b\nMKT\n", "name.fasta")
    assert "prepare name.fasta" in capsys.readouterr().err


def test_prepared_stores_are_recorded(prepared: Prepare) -> None:
    with record_prepared_stores() as stores:
        first = prepared(b">a\nMKT\n")
        prepared(b">a\nMKT\n")
    prepared(b">b\nMKT\n")
    assert [store.folder for store in stores] == [first.folder] * 2


@pytest.mark.processes
def test_a_preparation_killed_at_any_time_starts_clean(
    tmp_path: Path, tokenizer: CharacterTokenizer, context: BuildContext
) -> None:
    path = tmp_path / "a.fasta"
    path.write_bytes(b"".join(b">r%d\nMKTAYIAKQR\n" % i for i in range(50_000)))
    rules = ResidueFilter.of(tokenizer)
    parent = Path(context.home) / "prepared"
    for after_s in (0.01, 0.03, 0.06):
        child = os.fork()
        if child == 0:
            prepare(FastaSource(path), rules, context)
            os._exit(0)
        time.sleep(after_s)
        os.kill(child, 9)
        os.waitpid(child, 0)
    assert len(prepare(FastaSource(path), rules, context)) == 50_000
    assert [p.name for p in parent.iterdir() if p.is_dir() and p.name.startswith(".")] == []


def test_real_proteins(realdata: Path, tokenizer: CharacterTokenizer, context: BuildContext) -> None:
    store = prepare(
        FastaSource(realdata / "uniprot_16k.fasta.gz"), ResidueFilter.of(tokenizer, deduplicate=True), context
    )
    assert summary(store.manifest) == (
        "uniprot_16k.fasta.gz: read 16,000 = used 15,178 + rejected 822 (duplicate sequence 822)"
    )
    flip = FastaSource(realdata / "flip_secondary_structure/sequences.fasta.gz")
    store = prepare(flip, ResidueFilter.of(tokenizer), context)
    assert summary(store.manifest) == "sequences.fasta.gz: read 11,156 = used 11,156 + rejected 0"
    assert len(store) == 11_156


@pytest.mark.parametrize(
    ("sequence", "last", "words"),
    [
        ("ACGTUNacgt" * 5, "AC", "the first 4 sequences have no other letters than A, C, G, T, U and N"),
        ("ACGTUNacgt" * 5, "MKT", ""),
        ("ACGT", "AC", ""),  # too few letters to say
        ("MJ", "MKT", "the tokenizer cannot read 3 of 4 records, which were rejected"),
        ("MKT", "MJ", ""),
    ],
)
def test_what_looks_like_no_protein_gives_a_warning(
    prepared: Prepare, caplog: pytest.LogCaptureFixture, sequence: str, last: str, words: str
) -> None:
    prepared("".join(f">{name}\n{sequence}\n" for name in "abc").encode() + f">d\n{last}\n".encode())
    warned = [one.getMessage() for one in caplog.records if one.levelno == logging.WARNING]
    assert [words in one for one in warned] == [True] * bool(words)


def test_letters_of_an_alphabet_of_nucleotides_give_no_warning(tmp_path, context, caplog) -> None:
    (tmp_path / "dna.fasta").write_bytes(b">a\n" + b"ACGTN" * 30)
    prepare(FastaSource(tmp_path / "dna.fasta"), ResidueFilter("ACGNT"), context)
    assert not [one for one in caplog.records if one.levelno == logging.WARNING]


def test_many_repeated_ids_give_a_warning(tmp_path, tokenizer, context, caplog):
    for number, (repeated, warned) in enumerate(((1, False), (40, True))):
        path = tmp_path / f"{number}.fasta"
        path.write_text("".join(f">{0 if i < repeated else i}\nMKV{'A' * (i % 9)}\n" for i in range(100)))
        caplog.clear()
        prepare(FastaSource(path), ResidueFilter.of(tokenizer), context)
        assert ("repeat the id of an earlier one and were rejected" in caplog.text) == warned
