"""Whatever bytes come in: every record is used or counted, every failure is classified, nothing is read wrongly."""

import csv
import gzip
import io
from contextlib import suppress
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import given, settings
from hypothesis import strategies as st

from bionemo_core.data.prepare import Cleaner, Rules, prepare
from bionemo_core.data.ranges import range_names
from bionemo_core.data.readers import CsvSource, FastaSource, Source, fasta_records
from bionemo_core.data.store import PreparedStore
from bionemo_core.errors import ConfigError, DataError
from bionemo_core.protocols import BuildContext

ALPHABET = "ABCDEFGHIKLMNOPQRSTUVWXYZ"
RULES = Rules(ALPHABET)
HOSTILE = [
    b"\0",
    b"\r",
    b"\xef\xbb\xbf",
    b"\xff\xfe",
    b">",
    b"\n>",
    b"\n\n",
    b'"',
    b",",
    b"*",
    b"-",
    b"J",
    b"\xe9",
    b"\t",
]

sequences = st.text(ALPHABET + "klm", min_size=1, max_size=90).map(str.encode)
names = st.text("abcXYZ019|_.:", min_size=1, max_size=12).map(str.encode)
records = st.lists(st.tuples(names, sequences), min_size=1, max_size=12, unique_by=lambda record: record[0])
line_ends = st.sampled_from([b"\n", b"\r\n", b"\r"])
mutations = st.lists(
    st.tuples(st.sampled_from(["flip", "cut", "insert", "copy"]), st.integers(0, 10**6), st.integers(0, 255)),
    max_size=4,
)


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


def account(source: Source, text: bytes, rules: Rules = RULES) -> list[bytes] | None:
    """The sequences that a source's one file gives, or None where it is refused as a whole."""
    path = source.paths[0]
    path.write_bytes(text)
    cleaner = Cleaner(rules, source.kind)
    used = []
    try:
        for record in source.records(path):
            sequence = cleaner.clean(record, path)
            if sequence is not None:
                used.append(sequence)
    except DataError as error:
        assert str(path) in str(error)
        return None
    assert cleaner.read == len(used) + sum(cleaner.rejected.values())
    assert all(set(sequence) <= set(ALPHABET.encode()) for sequence in used)
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
        account(FastaSource(Path(folder) / "a.fasta"), mutate(fasta_text(content, end, width), changes))


@given(records, mutations.filter(bool))
@settings(max_examples=300)
def test_mutated_gzip_gives_the_right_sequences_or_an_error(
    content: list[tuple[bytes, bytes]], changes: list[tuple[str, int, int]]
) -> None:
    zipped = mutate(gzip.compress(fasta_text(content, b"\n", 60), mtime=0), changes)
    with TemporaryDirectory() as folder:
        used = account(FastaSource(Path(folder) / "a.fasta"), zipped)
    if used is not None and zipped[:2] == b"\x1f\x8b":
        assert set(used) <= {sequence.upper() for _, sequence in content}


@given(records, st.lists(st.integers(0, 400), max_size=8))
def test_where_blocks_end_does_not_matter(content: list[tuple[bytes, bytes]], cuts: list[int]) -> None:
    text = fasta_text(content, b"\n", 7)
    places = sorted({0, len(text), *(cut % len(text) for cut in cuts)})
    blocks = [text[a:b] for a, b in pairwise(places)]
    assert list(fasta_records(iter(blocks), "a")) == list(fasta_records(iter([text]), "a"))


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
        account(source, mutate(csv_text(content, ",", end), changes))


@given(st.text("x_.", max_size=4), st.integers(0, 300), st.integers(0, 40), st.sampled_from(["[]", "()", "<>"]))
def test_ranges_round_trip(before: str, first: int, more: int, brackets: str) -> None:
    text = f"{before}{brackets[0]}{first:03d}..{first + more:03d}{brackets[1]}"
    assert range_names(text) == [f"{before}{number:03d}.csv" for number in range(first, first + more + 1)]


@given(st.text("x0129[]()<>._OPCL", max_size=20) | st.text(max_size=10))
@settings(max_examples=300)
def test_any_range_is_names_or_a_config_error(text: str) -> None:
    with suppress(ConfigError):
        found = range_names(text)
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
@settings(max_examples=80)
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
