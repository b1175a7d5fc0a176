"""Datasets with `draw_record`: their subsets draw too, and the kit takes their lengths as upper bounds."""

from collections.abc import Callable

import numpy as np
import pytest

from bionemo_core.data.batches.rng import RecordRng
from bionemo_core.data.store.record_store import Subset
from bionemo_core.data.tokenizer import CharacterTokenizer
from bionemo_core.testing.datasets import check_split

CLUSTERS = [["MKT", "MKTA"], ["LLLLL", "L"], ["ACD"]]


class Clusters:
    """A member of a cluster at each pass, its first one by index."""

    def __init__(self, lengths: list[int], choice: Callable[[int, RecordRng], int]) -> None:
        self.lengths = np.array(lengths, dtype=np.int32)
        self._choice = choice

    def __len__(self) -> int:
        return len(CLUSTERS)

    def __getitem__(self, index: int) -> str:
        return CLUSTERS[index][0]

    def draw_record(self, index: int, draw: RecordRng) -> str:
        members = CLUSTERS[index]
        return members[self._choice(len(members), draw)]


def fair(count: int, draw: RecordRng) -> int:
    return int(draw.integers(1, count)[0])


def test_a_part_of_a_dataset_that_draws_draws_its_own_records() -> None:
    whole = Clusters([4, 5, 3], fair)
    part = Subset(whole, np.array([2, 1]))  # type: ignore[arg-type]
    assert part.lengths.tolist() == [3, 5]
    for data_pass in range(20):
        draw = (0, data_pass, 1, "record")
        assert part.draw_record(1, RecordRng(*draw)) == whole.draw_record(1, RecordRng(*draw))
        assert part.draw_record(0, RecordRng(*draw)) == "ACD"
    assert {part.draw_record(1, RecordRng(0, data_pass, 1, "record")) for data_pass in range(20)} == {"LLLLL", "L"}
    with pytest.raises(IndexError, match="record 2 of 2"):
        part.draw_record(2, RecordRng(0, 0, 2, "record"))


def test_only_what_draws_offers_to() -> None:
    class Fixed:
        lengths = np.array([3, 3], dtype=np.int32)

    assert not hasattr(Subset(Fixed(), np.array([0])), "draw_record")  # type: ignore[arg-type]


def test_the_kit_takes_lengths_as_upper_bounds(tokenizer: CharacterTokenizer) -> None:
    check_split("data", Clusters([4, 5, 3], fair), Clusters([4, 5, 3], fair), tokenizer)
    check_split("data", Clusters([9, 9, 9], fair), Clusters([9, 9, 9], fair), tokenizer)


def test_the_kit_refuses_draws_beyond_their_bounds_or_of_chance(tokenizer: CharacterTokenizer) -> None:
    low = Clusters([3, 5, 3], lambda count, draw: count - 1)
    with pytest.raises(AssertionError, match="`lengths` says at most 3 tokens for record 0, but draw_record gave 4"):
        check_split("data", low, low, tokenizer)
    turns = iter(range(1000))
    chance = Clusters([4, 5, 3], lambda count, draw: next(turns) % count)
    with pytest.raises(AssertionError, match="for the same draw"):
        check_split("data", chance, chance, tokenizer)
