"""`data=augmented`: records that are a function of the draw, bounds of their lengths, and what it refuses."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from bionemo_core.data.batches.rng import RecordRng
from bionemo_core.data.sources.augmented import augmented
from bionemo_core.data.sources.augmented_records import AugmentedRecords
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
        train: Any = SimpleNamespace(pairs=True) if choice.name == "pairs" else ["ACG", "TTG"]
        return DataSplits(train, ["A"], None, "abc")


def make(source: Any, augmentations: list[Any]) -> DataSplits:
    return augmented(source, augmentations, tokenizer=LETTERS, context=BuildContext(), registry=Registry())


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
        ("pairs", ["rotate"], r"data\.source: its records are pairs or have labels"),
    ],
)
def test_what_cannot_be_augmented_is_refused_by_its_key(source, augmentations, message):
    with pytest.raises(ConfigError, match=message):
        make(source, augmentations)
