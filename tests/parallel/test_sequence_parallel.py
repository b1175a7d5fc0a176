"""Tokens split over two tensor-parallel ranks between the layers: the same gradients, in less memory."""

from pathlib import Path
from typing import Any

import pytest
from runs import Home, found_by_two_ranks

from bionemo_core.errors import ConfigError
from bionemo_core.parallel.sequence import split_sequences


@pytest.fixture(scope="module")
def ranks(home: Home, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each of two ranks found."""
    return found_by_two_ranks(home, Path(__file__).with_name("sequence_ranks.py"), tmp_path_factory.mktemp("store"))


@pytest.mark.parametrize("kind", ["packed", "padded"])
def test_gradients_are_those_of_tensor_parallelism_alone(ranks, kind: str) -> None:
    assert max(rank[kind]["worst"] for rank in ranks) < 1e-5


@pytest.mark.parametrize("kind", ["packed", "padded"])
def test_sums_are_scattered_and_less_is_kept(ranks, kind: str) -> None:
    for rank in ranks:
        assert rank[kind]["scatters"] == [False, True]
        whole, part = rank[kind]["kept"]
        assert part < 0.95 * whole


def test_recomputed_parts_drop_the_same(ranks) -> None:
    assert [rank["recomputed"] for rank in ranks] == [0.0, 0.0]


def test_each_rank_drops_out_its_own_tokens(ranks) -> None:
    assert ranks[0]["draw"] != ranks[1]["draw"]


@pytest.mark.parametrize("split", ["false", "true"])
def test_layers_are_compiled_as_one_graph_each_with_their_exchanges(ranks, split: str) -> None:
    for rank in ranks:
        loss, largest = rank["compiled"][split]
        assert abs(loss) < 1e-3
        assert largest < 1e-5


def test_gradients_that_nobody_needs_are_not_exchanged(ranks) -> None:
    assert [rank["input gradients"] for rank in ranks] == [[True, False]] * 2


def test_a_decision_of_one_rank_is_that_of_all(ranks) -> None:
    assert [rank["any"] for rank in ranks] == [[False, True]] * 2


def test_a_network_that_cannot_split_its_sequences_is_refused() -> None:
    import torch

    with pytest.raises(ConfigError, match="Linear cannot split its sequences"):
        split_sequences(torch.nn.Linear(2, 2))
