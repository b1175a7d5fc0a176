"""v1's file ranges in all their spellings."""

from pathlib import Path

import pytest

from bionemo_core.data.sources.shard_ranges import expand_names, expand_range
from bionemo_core.errors import ConfigError, DataError


@pytest.mark.parametrize("text", ["x[000..002]", "x(000..002)", "x<000..002>", "x_OP_000..002_CL_", "x[000..002].csv"])
def test_spellings_agree(text: str) -> None:
    assert expand_names(text) == ["x000.csv", "x001.csv", "x002.csv"]


def test_one_file_is_a_range_of_one() -> None:
    assert expand_names("x000") == ["x000.csv"]
    assert expand_names("x000.csv.gz") == ["x000.csv.gz"]


@pytest.mark.parametrize(
    "text", ["", "x[000..", "x[000..002", "x[000..002)", "x[a..b]", "x[3..1]", "x[0..1][2..3]", "x[0..9999999]"]
)
def test_other_things_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"data\.train"):
        expand_names(text, "data.train")


def test_a_missing_member_is_named(tmp_path: Path) -> None:
    (tmp_path / "x000.csv").touch()
    with pytest.raises(DataError, match=r"x001\.csv, which is not a file and 1 more of the 3"):
        expand_range(tmp_path, "x[000..002]")
