"""How data-parallel ranks share the weights follows from the size of the model, and the plan says why."""

import pytest

from bionemo_core.errors import ConfigError
from bionemo_core.machine import GIB
from bionemo_core.parallel.sharding_choice import SharedRanks, choose_sharding

ONE_MACHINE, TWO_MACHINES = SharedRanks(8, 8), SharedRanks(16, 8)


@pytest.mark.parametrize(
    ("ranks", "state_gib", "strategy", "shard_size"),
    [
        (ONE_MACHINE, 20, "none", 1),
        (ONE_MACHINE, 21, "full", 8),
        (TWO_MACHINES, 20, "none", 1),
        (TWO_MACHINES, 160, "hybrid", 8),
        (TWO_MACHINES, 161, "full", 16),
        (SharedRanks(1, 1), 161, "none", 1),
    ],
)
def test_auto_shards_over_no_more_ranks_than_the_model_needs(
    ranks: SharedRanks, state_gib: float, strategy: str, shard_size: int
) -> None:
    chosen = choose_sharding("auto", None, ranks, state_gib * GIB, 80 * GIB)
    assert chosen[:2] == (strategy, shard_size)
    assert f"{state_gib:.2f} GiB" in chosen.reason or ranks.size == 1


def test_hybrid_shares_a_copy_within_a_machine_or_as_wanted() -> None:
    assert choose_sharding("hybrid", None, TWO_MACHINES, 1, 1)[:2] == ("hybrid", 8)
    assert choose_sharding("hybrid", 4, TWO_MACHINES, 1, 1)[:2] == ("hybrid", 4)
    assert choose_sharding("hybrid", 8, ONE_MACHINE, 1, 1)[:2] == ("full", 8), "all ranks share one copy"
    assert choose_sharding("hybrid", 1, ONE_MACHINE, 1, 1)[:2] == ("none", 1), "each rank has a copy"


def test_groups_that_do_not_divide_the_ranks_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"parallel\.shard_size=3 does not divide the 8 data-parallel ranks"):
        choose_sharding("hybrid", 3, ONE_MACHINE, 1, 1)
    with pytest.raises(ConfigError, match=r"Set parallel\.shard_size to a divisor of 9"):
        choose_sharding("hybrid", None, SharedRanks(9, 6), 1, 1)
    assert choose_sharding("auto", None, SharedRanks(9, 6), GIB, GIB).strategy == "full"
