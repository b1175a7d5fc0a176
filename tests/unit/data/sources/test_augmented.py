"""`data=augmented`: records that are a function of the draw, bounds of their lengths, and what it refuses."""

from dataclasses import fields, replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from bionemo_core.data.augmented_labels import AugmentedLabels
from bionemo_core.data.batches.rng import RecordRng
from bionemo_core.data.labelled_records import LabelledRecords, LabelledSplits
from bionemo_core.data.sources.augmented import augmented
from bionemo_core.data.sources.augmented_records import AugmentedPairs, AugmentedRecords
from bionemo_core.data.tokenizer import CharacterTokenizer
from bionemo_core.errors import ConfigError
from bionemo_core.protocols import BuildContext, DataSplits

PIECES = ["<pad>", "<s>", "</s>", "<unk>", "<mask>", *"ACGT"]
LETTERS = CharacterTokenizer(PIECES, pad_id=0, bos_id=1, eos_id=2, unk_id=3, mask_id=4)


def rotate(record: bytes, draw: RecordRng) -> bytes:
    start = int(draw.integers(1, len(record))[0])
    return record[start:] + record[:start]


def double(record: bytes, draw: RecordRng) -> bytes:
    return record * 2


double.longest = lambda length: 2 * length  # type: ignore[attr-defined]


def drawn(records: Any, data_pass: int) -> list[bytes]:
    return [records.draw_record(index, RecordRng(7, data_pass, index, "record")) for index in range(len(records))]


def test_each_pass_has_other_records_of_the_same_letters_and_the_same_ones_again():
    source = ["ACGTACGGTA", "CCGATTTA"]
    records = AugmentedRecords(source, [rotate, double], LETTERS)
    first, second = drawn(records, 0), drawn(records, 1)
    assert first == drawn(records, 0)
    assert first != second
    assert [sorted(record) for record in first] == [sorted((text * 2).encode()) for text in source]
    assert [records[0], records[1]] == source, "without a draw a record is as it was"


def test_lengths_are_bounds_after_all_changes():
    assert AugmentedRecords(["ACG", "A"], [rotate], LETTERS).lengths.tolist() == [3, 1]
    longer = AugmentedRecords(["ACG", "A"], [rotate, double, double], LETTERS).lengths
    assert (longer[np.array([1, 0])].tolist(), longer[0], len(longer), longer.shape) == ([4, 12], 12, 2, (2,))


class Pairs(list[bytes]):
    """Pairs whose lengths are known."""

    pairs = True

    @property
    def lengths(self) -> Any:
        return np.array([[len(side) for side in pair.split(b"\t")] for pair in self], dtype=np.int32)


@pytest.mark.parametrize(("sides", "places"), [("source", [0]), ("target", [1]), ("both", [0, 1])])
def test_only_the_named_sides_of_pairs_change(sides: str, places: list[int]) -> None:
    source = Pairs([b"ACGTACGGTA\tTTGACCA", b"CCGATTTA\tGATTACA"])
    records = AugmentedPairs(source, [rotate, double], LETTERS, sides)
    assert records.pairs and records[1] == source[1]
    first, second = ([one.split(b"\t") for one in drawn(records, data_pass)] for data_pass in (0, 1))
    assert [b"\t".join(pair) for pair in first] == drawn(records, 0)
    stored = [pair.split(b"\t") for pair in source]
    for place in (0, 1):
        own, one, other = ([pair[place] for pair in pairs] for pairs in (stored, first, second))
        assert (one != other) == (place in places), "differently in each pass"
        assert [sorted(text) for text in one] == [sorted(text * (2 if place in places else 1)) for text in own]
    bounds = source.lengths * np.array([2 if place in places else 1 for place in (0, 1)])
    assert records.lengths[np.array([1, 0])].tolist() == bounds[::-1].tolist()
    assert (records.lengths[0].tolist(), np.asarray(records.lengths).tolist()) == (bounds[0].tolist(), bounds.tolist())


ROWS = [("a", b"ACGTACGGTA", "1", ""), ("b", b"CCGATTTA", "2", "")]
LABELLED = LabelledSplits.from_parts(
    replace(LabelledRecords.of(ROWS, "x"), seconds=(b"TTGACCA", b"GATTACA")), LabelledRecords.of(ROWS[:1], "x"), None
)


class Registry:
    """Two sources, and the augmentation `rotate`."""

    def find(self, group: str, name: str) -> Any:
        return name

    def get(self, group: str, name: str) -> Any:
        if name != "rotate":
            raise ConfigError(f"no augmentation is called {name!r}.")
        return SimpleNamespace(name=name, distribution="d", version="1", complete=dict)

    def build(self, choice: Any, **runtime: Any) -> Any:
        if choice.group == "augmentation":
            return rotate
        if choice.name == "labelled":
            return LABELLED
        kinds: dict[str, Any] = {"pairs": Pairs([b"ACG\tTTG"])}
        return DataSplits(kinds.get(choice.name, ["ACG", "TTG"]), ["A"], None, "abc")


def make(source: Any, augmentations: list[Any], **keys: Any) -> DataSplits:
    return augmented(source, augmentations, tokenizer=LETTERS, context=BuildContext(), registry=Registry(), **keys)


def test_only_the_training_split_changes_and_the_fingerprint_knows_how():
    splits = make("sample", ["rotate"])
    assert (splits.val, splits.test) == (["A"], None)
    assert splits.fingerprint not in ("", "abc")
    assert make({"data": "sample"}, [{"augmentation": "rotate"}]).fingerprint == splits.fingerprint
    assert make("sample", ["rotate", "rotate"]).fingerprint != splits.fingerprint


@pytest.mark.parametrize(
    ("source", "augmentations", "message"),
    [
        ("sample", [], r"data\.augmentations: is empty"),
        ("sample", ["rotat"], r"data\.augmentations\[0\]: no augmentation is called 'rotat'"),
        ("sample", ["rotate", 3], r"data\.augmentations\[1\]: 3 names none"),
        ({"path": "x"}, ["rotate"], r"data\.source: .* does not name a data component"),
    ],
)
def test_what_cannot_be_augmented_is_refused_by_its_key(source, augmentations, message):
    with pytest.raises(ConfigError, match=message):
        make(source, augmentations)


def test_pairs_by_their_sides() -> None:
    splits = make("pairs", ["rotate"])
    assert isinstance(splits.train, AugmentedPairs) and splits.val == ["A"]
    assert make("pairs", ["rotate"], sides="source").fingerprint == splits.fingerprint
    assert make("pairs", ["rotate"], sides="both").fingerprint != splits.fingerprint
    with pytest.raises(ConfigError, match=r"data\.sides: got 'left', expected one of source, target, both"):
        make("pairs", ["rotate"], sides="left")
    with pytest.raises(ConfigError, match=r"data\.sides: got 'both', the records of data\.source are no pairs"):
        make("sample", ["rotate"], sides="both")


@pytest.mark.parametrize(("sides", "places"), [(None, [0]), ("first", [0]), ("second", [1]), ("both", [0, 1])])
def test_labelled_pairs_change_and_keep_their_labels(sides: Any, places: list[int]) -> None:
    splits = make("labelled", ["rotate"], sides=sides)
    train: Any = splits.train
    assert splits.val is LABELLED.val and splits.fingerprint not in ("", LABELLED.fingerprint)
    for records in (train, train.select([1, 0]), train.swapped().swapped()):
        first, second = drawn(records, 0), drawn(records, 1)
        assert first == drawn(records, 0)
        for one, other, own in zip(first, second, (records[row] for row in range(2)), strict=True):
            assert (one.id, one.label, one.number) == (own.id, own.label, own.number)
            for place, name in enumerate(("sequence", "second")):
                texts = [getattr(record, name) for record in (one, other, own)]
                assert len(set(map(bytes, map(sorted, texts)))) == 1
                assert (len(set(texts)) > 1) == (place in places), "differently in each pass"
    whole = train.unchanged()
    assert all(getattr(whole, one.name) is getattr(LABELLED.train, one.name) for one in fields(LABELLED.train))
    with pytest.raises(ConfigError, match=r"data\.sides: got 'source', expected one of first, second, both"):
        make("labelled", ["rotate"], sides="source")


def test_a_labelled_sequence_stays_as_it_was_if_the_model_could_not_read_the_changed_one() -> None:
    changes: Any = {0: (double,), 1: (double,)}
    records = AugmentedLabels.of_records(LABELLED.train, changes)
    assert records.lengths.tolist() == [20, 16] and records.side_lengths.tolist() == [[20, 14], [16, 14]]
    limited = replace(records, limits={0: (LETTERS, 16), 1: (LETTERS, 13)})
    assert [len(one.sequence) for one in drawn(limited, 0)] == [10, 16]
    assert [len(one.second) for one in drawn(limited, 0)] == [7, 7]
    assert limited.lengths.tolist() == [16, 16] and limited.letters.tolist() == [10, 8]
    assert len(limited.drop_longer(9, "train", LETTERS)) == 1, "by the sequences as they were read"
