"""Two stages of a pipeline have the gradients of one rank, and each holds its layers only."""

from pathlib import Path
from typing import Any

import pytest
from pipeline_ranks import CASES
from runs import Home, found_by_two_ranks


@pytest.fixture(scope="module")
def ranks(home: Home, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each of two ranks found."""
    return found_by_two_ranks(home, Path(__file__).with_name("pipeline_ranks.py"), tmp_path_factory.mktemp("store"))


@pytest.mark.parametrize("case", CASES)
def test_losses_gradients_and_norm_are_those_of_one_rank(ranks: list[dict[str, Any]], case: str) -> None:
    loose = 1000 if case == "bf16" else 1
    for rank in ranks:
        assert abs(rank[case]["loss"]) < 1e-6 * loose
        assert rank[case]["gradients"] < 1e-5 * loose
        assert abs(rank[case]["norm"]) < 1e-6 * loose
        assert rank[case]["reached"], "every parameter has a gradient"
        assert rank[case]["evaluated"] == ranks[0][case]["evaluated"] > 0


def test_each_stage_holds_its_layers_and_both_the_tied_table(ranks: list[dict[str, Any]]) -> None:
    first, last = (rank["dropout"]["names"] for rank in ranks)
    assert set(first) & set(last) == {"embedding.word_embeddings.weight"}
    assert {name.split(".")[2] for name in first if name.startswith("encoder.layers")} == {"0"}
    assert {name.split(".")[2] for name in last if name.startswith("encoder.layers")} == {"1", "2"}
    assert any(name.startswith("head.") for name in last) and not any(name.startswith("head.") for name in first)
    assert not set(ranks[0]["untied"]["names"]) & set(ranks[1]["untied"]["names"])


def test_16_bit_weights_are_copied_once_a_step(ranks: list[dict[str, Any]]) -> None:
    one_step, evaluation = 1, 1
    assert [rank["bf16"]["copies"] for rank in ranks] == [one_step + evaluation] * 2
