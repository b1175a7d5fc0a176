"""For any bytes: every record is used or counted, every failure is classified, nothing is read wrongly."""

import bz2
import csv
import gzip
import io
import lzma
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from record_counts import csv_rows, fasta_records, fastq_records, molecules

from bionemo_core.data.readers import (
    CsvSource,
    FastaSource,
    FastqSource,
    ParquetSource,
    Record,
    SmilesSource,
    Source,
    fasta_blocks,
    read_blocks,
    source_for,
)
from bionemo_core.data.sources.shard_ranges import expand_names
from bionemo_core.data.store.filtering import Tally, filter_blocks
from bionemo_core.data.store.prepare import prepare
from bionemo_core.data.store.record_store import PreparedStore
from bionemo_core.data.store.residue_filter import FilterResult, RecordFilter, ResidueFilter
from bionemo_core.errors import ConfigError, DataError
from bionemo_core.protocols import BuildContext

ALPHABET = "ABCDEFGHIKLMNOPQRSTUVWXYZ"
RULES = ResidueFilter(ALPHABET)


@pytest.fixture(autouse=True, scope="module")
def _without_fsync() -> Iterator[None]:
    """A busy disk would make up most of the time of these tests, and none of them cuts the power."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("bionemo_core.io.atomic.sync", lambda path: None)
        yield


OPTIONS = {
    "on_long": ("drop", "truncate", "window", "keep"),
    "lower_case": ("upper", "reject", "keep"),
    "on_stop": ("strip", "reject"),
    "on_gap": ("reject", "strip"),
    "on_invalid": ("skip", "unk"),
}
HOSTILE = [
    *(b"\0", b"\r", b"\xef\xbb\xbf", b"\xff\xfe", b">", b"\n>", b"\n\n"),
    *(b'"', b",", b"*", b"-", b"J", b"\xe9", b"\t"),
]

sequences = st.text(ALPHABET + "klm", min_size=1, max_size=90).map(str.encode)
names = st.text("abcXYZ019|_.:", min_size=1, max_size=12).map(str.encode)
records = st.lists(st.tuples(names, sequences), min_size=1, max_size=12, unique_by=lambda record: record[0])
line_ends = st.sampled_from([b"\n", b"\r\n", b"\r"])
mutations = st.lists(
    st.tuples(st.sampled_from(["flip", "cut", "insert", "copy"]), st.integers(0, 10**6), st.integers(0, 255)),
    max_size=4,
)


def zstd(text: bytes) -> bytes:
    return pa.compress(text, "zstd", asbytes=True)


def fasta_text(content: list[tuple[bytes, bytes]], end: bytes, width: int) -> bytes:
    lines = []
    for name, sequence in content:
        lines.append(b">" + name + b" some words")
        lines += [sequence[i : i + width] for i in range(0, len(sequence), width)]
    return end.join(lines) + end


def mutate(text: bytes, changes: list[tuple[str, int, int]]) -> bytes:
    for kind, place, value in changes:
        place %= len(text) + 1
        if kind == "flip":
            text = text[:place] + bytes([value]) + text[place + 1 :]
        elif kind == "cut":
            text = text[:place]
        elif kind == "insert":
            text = text[:place] + HOSTILE[value % len(HOSTILE)] + text[place:]
        else:
            text = text[:place] + text[place // 2 :]
    return text


def account(
    source: Source,
    text: bytes,
    rules: RecordFilter = RULES,
    alphabet: str | None = ALPHABET,
    count: Callable[[bytes], int] | None = None,
) -> list[bytes] | None:
    """The sequences that a source's one file gives, or None where it is refused as a whole.

    `count` counts the records of the text in another way; the reader must have met as many.
    """
    path = source.paths[0]
    path.write_bytes(text)
    tally, used, more = Tally(), [], 0
    try:
        for block in filter_blocks(read_blocks(source, path), rules, source.kind, path):
            used += block.sequences.values()
            tally.add(block.tally)
            more += sum(count - 1 for _, count in block.windows)
    except DataError as error:
        assert str(path) in str(error)
        return None
    assert tally.read == len(used) - more + sum(tally.rejected.values())
    assert count is None or tally.read == count(text)
    assert alphabet is None or all(set(sequence) <= set(alphabet.encode()) for sequence in used)
    return used


@given(records, line_ends, st.integers(1, 60), st.booleans())
def test_fasta_round_trip(content: list[tuple[bytes, bytes]], end: bytes, width: int, zipped: bool) -> None:
    text = fasta_text(content, end, width)
    with TemporaryDirectory() as folder:
        used = account(FastaSource(Path(folder) / "a.fasta"), gzip.compress(text) if zipped else text)
    assert used == [sequence.upper() for _, sequence in content]


@given(records, line_ends, st.integers(1, 60), mutations)
@settings(max_examples=300)
def test_mutated_fasta_is_accounted_for(
    content: list[tuple[bytes, bytes]], end: bytes, width: int, changes: list[tuple[str, int, int]]
) -> None:
    with TemporaryDirectory() as folder:
        text = mutate(fasta_text(content, end, width), changes)
        account(FastaSource(Path(folder) / "a.fasta"), text, count=fasta_records)


@given(records, mutations.filter(bool))
@settings(max_examples=300)
def test_mutated_gzip_gives_the_right_sequences_or_an_error(
    content: list[tuple[bytes, bytes]], changes: list[tuple[str, int, int]]
) -> None:
    zipped = mutate(gzip.compress(fasta_text(content, b"\n", 60), mtime=0), changes)
    with TemporaryDirectory() as folder:
        used = account(FastaSource(Path(folder) / "a.fasta"), zipped)
    if used is not None and zipped[:2] == b"\x1f\x8b":
        assert used == [sequence.upper() for _, sequence in content]


@given(records, st.lists(st.integers(0, 400), max_size=8))
def test_where_blocks_end_does_not_matter(content: list[tuple[bytes, bytes]], cuts: list[int]) -> None:
    text = fasta_text(content, b"\n", 7)
    places = sorted({0, len(text), *(cut % len(text) for cut in cuts)})
    blocks = [text[a:b] for a, b in pairwise(places)]
    found = [record for block in fasta_blocks(iter(blocks), "a") for record in block.records()]
    assert found == [record for block in fasta_blocks(iter([text]), "a") for record in block.records()]


def csv_text(content: list[tuple[bytes, bytes]], separator: str, end: bytes) -> bytes:
    stream = io.StringIO()
    writer = csv.writer(stream, delimiter=separator, lineterminator=end.decode())
    writer.writerow(["id", "words", "sequence"])
    writer.writerows([name.decode(), 'a "b", c;\td', sequence.decode()] for name, sequence in content)
    return stream.getvalue().encode()


@given(records, line_ends, st.sampled_from(",;\t"), st.sampled_from([2, "sequence"]), st.booleans())
def test_csv_round_trip(
    content: list[tuple[bytes, bytes]], end: bytes, separator: str, column: int | str, zipped: bool
) -> None:
    text = csv_text(content, separator, end)
    with TemporaryDirectory() as folder:
        source = CsvSource([Path(folder) / "x000.csv"], column, separator=separator)
        assert account(source, gzip.compress(text) if zipped else text) == [s.upper() for _, s in content]


@given(records, line_ends, mutations)
@settings(max_examples=300)
def test_mutated_csv_is_accounted_for(
    content: list[tuple[bytes, bytes]], end: bytes, changes: list[tuple[str, int, int]]
) -> None:
    with TemporaryDirectory() as folder:
        source = CsvSource([Path(folder) / "x000.csv"], 2)
        account(source, mutate(csv_text(content, ",", end), changes), count=csv_rows)


def fastq_text(content: list[tuple[bytes, bytes]], end: bytes, width: int) -> bytes:
    lines = []
    for name, sequence in content:
        quality = bytes(33 + (7 * i) % 94 for i in range(len(sequence)))
        lines += [b"@" + name + b" words", *wrapped(sequence, width), b"+", *wrapped(quality, width)]
    return end.join(lines) + end


def wrapped(text: bytes, width: int) -> list[bytes]:
    return [text[i : i + width] for i in range(0, len(text), width)]


@given(records, line_ends, st.integers(1, 90), st.booleans())
def test_fastq_round_trip(content: list[tuple[bytes, bytes]], end: bytes, width: int, zipped: bool) -> None:
    text = fastq_text(content, end, width)
    with TemporaryDirectory() as folder:
        used = account(FastqSource(Path(folder) / "a.fq"), gzip.compress(text) if zipped else text)
    assert used == [sequence.upper() for _, sequence in content]


@given(records, line_ends, st.integers(1, 90), mutations)
@settings(max_examples=300)
def test_mutated_fastq_is_accounted_for(
    content: list[tuple[bytes, bytes]], end: bytes, width: int, changes: list[tuple[str, int, int]]
) -> None:
    with TemporaryDirectory() as folder:
        text = mutate(fastq_text(content, end, width), changes)
        account(FastqSource(Path(folder) / "a.fq"), text, count=fastq_records)


smiles = st.text("CNOcn[]()=#@H+-123/\\\\", min_size=1, max_size=30).map(str.encode)


@dataclass(frozen=True)
class AnyText:
    """Rules that take every text with a letter in it, one by one."""

    deduplicate: bool = False

    def facts(self) -> dict[str, object]:
        return {}

    def apply(self, record: Record) -> FilterResult:
        reason = record.problem or ("" if record.sequence else "empty")
        return FilterResult((), reason) if reason else FilterResult((record.sequence,))


@given(st.lists(smiles, min_size=1, max_size=20), line_ends, st.sampled_from([b"", b" x", b"\tx y"]), st.booleans())
def test_smiles_round_trip(content: list[bytes], end: bytes, name: bytes, header: bool) -> None:
    text = (b"SMILES name" + end) * header + b"".join(molecule + name + end for molecule in content)
    with TemporaryDirectory() as folder:
        assert account(SmilesSource(Path(folder) / "a.smi"), text, AnyText(), None) == content


@given(st.lists(smiles, min_size=1, max_size=20), line_ends, mutations, st.booleans())
@settings(max_examples=300)
def test_mutated_smiles_are_accounted_for(
    content: list[bytes], end: bytes, changes: list[tuple[str, int, int]], zipped: bool
) -> None:
    text = mutate(b"".join(b"%s m%d" % (molecule, i) + end for i, molecule in enumerate(content)), changes)
    with TemporaryDirectory() as folder:
        packed = gzip.compress(text) if zipped else text
        used = account(SmilesSource(Path(folder) / "a.smi"), packed, AnyText(), None, molecules)
    assert used is None or not any(molecule.split() != [molecule] for molecule in used)


@given(records, st.sampled_from([bz2.compress, lzma.compress, zstd]), mutations.filter(bool))
@settings(max_examples=300)
def test_other_compressions_mutated_give_the_right_sequences_or_an_error(
    content: list[tuple[bytes, bytes]], compress: Callable[[bytes], bytes], changes: list[tuple[str, int, int]]
) -> None:
    mutated = mutate(packed := compress(fasta_text(content, b"\n", 60)), changes)
    with TemporaryDirectory() as folder:
        used = account(FastaSource(Path(folder) / "a.fasta"), mutated)
    if used is not None and mutated[:4] == packed[:4] and compress is not zstd:  # which has no checksum here
        assert set(used) <= {sequence.upper() for _, sequence in content}


@given(records, mutations)
@settings(max_examples=300)
def test_mutated_parquet_is_accounted_for(
    content: list[tuple[bytes, bytes]], changes: list[tuple[str, int, int]]
) -> None:
    sink = io.BytesIO()
    names_, sequences_ = zip(*content, strict=True)
    pq.write_table(pa.table({"id": names_, "sequence": sequences_}), sink)
    with TemporaryDirectory() as folder:
        source = ParquetSource(Path(folder) / "a.parquet", id_column="id")
        used = account(source, mutate(sink.getvalue(), changes))
    assert changes or used == [sequence.upper() for _, sequence in content]


ATOM = "ATOM  %5d  CA  %s %s%4d    %8.3f   0.000   0.000  1.00  0.00           C"
LONG_NAMES = {"A": "ALA", "G": "GLY", "K": "LYS", "W": "TRP", "Y": "TYR"}
chains = st.lists(st.text("AGKWY", min_size=1, max_size=15), min_size=1, max_size=3)


def pdb_text(content: list[str]) -> bytes:
    lines = []
    for chain, sequence in zip("ABC", content, strict=False):
        for number, letter in enumerate(sequence, start=1):
            lines.append(ATOM % (len(lines) + 1, LONG_NAMES[letter], chain, number, 3.8 * number))
        lines.append("TER")
    return "\n".join([*lines, "END", ""]).encode()


def flat_text(content: list[str], kind: str) -> bytes:
    from Bio import SeqIO
    from Bio.Seq import Seq
    from Bio.SeqRecord import SeqRecord

    stream = io.StringIO()
    facts = {"molecule_type": "protein"}
    entries = [SeqRecord(Seq(text), f"P{i}", f"P{i}", "a b", annotations=facts) for i, text in enumerate(content)]
    SeqIO.write(entries, stream, kind)
    return stream.getvalue().encode()


@given(chains, st.sampled_from(["pdb", "genbank", "embl"]), mutations)
@settings(max_examples=300)
def test_mutated_files_that_biopython_reads_are_accounted_for(
    content: list[str], kind: str, changes: list[tuple[str, int, int]]
) -> None:
    text = pdb_text(content) if kind == "pdb" else flat_text(content, kind)
    with TemporaryDirectory() as folder:
        used = account(source_for(Path(folder) / "a.txt", kind), mutate(text, changes))
    assert changes or used == [sequence.encode() for sequence in content]


@given(records, st.sampled_from(sorted(OPTIONS)), st.data())
@settings(max_examples=300)
def test_blocks_are_judged_as_single_records_are(
    content: list[tuple[bytes, bytes]], key: str, data: st.DataObject
) -> None:
    option = data.draw(st.sampled_from(OPTIONS[key]))
    limits = {"min_length": 2, "max_length": 20} | ({"window_overlap": 5} if option == "window" else {})
    rules = replace(RULES, **limits, **{key: option})
    marks = data.draw(st.lists(st.sampled_from([b"", b"*", b"-", b"j", b"J", b" "]), min_size=1, max_size=4))
    changed = [(name, text + marks[i % len(marks)] + text[:2]) for i, (name, text) in enumerate(content)]
    expected = []
    for name, text in changed:
        expected += rules.apply(Record(name, text, 1)).sequences
    with TemporaryDirectory() as folder:
        assert account(FastaSource(Path(folder) / "a.fasta"), fasta_text(changed, b"\n", 60), rules, None) == expected


@given(st.text("x_.", max_size=4), st.integers(0, 300), st.integers(0, 40), st.sampled_from(["[]", "()", "<>"]))
def test_ranges_round_trip(before: str, first: int, more: int, brackets: str) -> None:
    text = f"{before}{brackets[0]}{first:03d}..{first + more:03d}{brackets[1]}"
    assert expand_names(text) == [f"{before}{number:03d}.csv" for number in range(first, first + more + 1)]


@given(st.text("x0129[]()<>._OPCL", max_size=20) | st.text(max_size=10))
@settings(max_examples=300)
def test_any_range_is_names_or_a_config_error(text: str) -> None:
    with suppress(ConfigError):
        found = expand_names(text)
        assert len(found) == len(set(found)) >= 1


def prepared(folder: str, content: list[tuple[bytes, bytes]], deduplicate: bool = False) -> PreparedStore:
    path = Path(folder) / "a.fasta"
    path.write_bytes(fasta_text(content, b"\n", 60))
    return prepare(FastaSource(path), replace(RULES, deduplicate=deduplicate), BuildContext(home=folder))


@given(st.lists(st.tuples(names, st.text("ACD", min_size=1, max_size=3).map(str.encode)), min_size=1), st.booleans())
@settings(max_examples=60)
def test_store_keeps_the_first_of_each(content: list[tuple[bytes, bytes]], deduplicate: bool) -> None:
    expected: dict[bytes, bytes] = {}
    for name, sequence in content:
        expected.setdefault(name, sequence)
    if deduplicate:
        first = {sequence: name for name, sequence in reversed(expected.items())}
        expected = {name: sequence for name, sequence in expected.items() if first[sequence] == name}
    with TemporaryDirectory() as folder:
        store = prepared(folder, content, deduplicate)
        found = [(store.id(i).encode(), store[i]) for i in range(len(store))]
        counts = store.manifest["records"]
    assert found == list(expected.items())
    assert counts["read"] == len(content) == counts["used"] + sum(counts["rejected"].values())


@given(st.integers(0, 3), mutations.filter(bool), st.booleans())
@settings(max_examples=200)
def test_mutated_stores_are_never_read_wrongly(number: int, changes: list[tuple[str, int, int]], remove: bool) -> None:
    content = [(b"a", b"MKT"), (b"b", b"LLLA"), (b"c", b"MKT"), (b"d", b"AYIAKQ")]
    with TemporaryDirectory() as folder:
        store = prepared(folder, content, deduplicate=True)
        path = sorted(store.folder.iterdir())[number]
        before = path.read_bytes()
        path.unlink()
        if not remove:
            path.write_bytes(mutate(before, changes))
        if remove or path.read_bytes() != before:
            try:
                damaged = PreparedStore(store.folder, store.fingerprint)
            except DataError:
                pass
            else:  # white space in the manifest's JSON, at most
                assert path.name == "manifest.json" and damaged.manifest == store.manifest
        again = prepared(folder, content, deduplicate=True)
        assert [again[i] for i in range(len(again))] == [b"MKT", b"LLLA", b"AYIAKQ"]
        assert again.ids() == ["a", "b", "d"]
