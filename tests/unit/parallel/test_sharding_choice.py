"""How data-parallel ranks share the weights follows from the size of the model, and the plan says why."""

from types import SimpleNamespace

import pytest
import torch

from bionemo_core.errors import ConfigError
from bionemo_core.machine import GIB
from bionemo_core.parallel.sharding_choice import SharedRanks, choose_sharding, state_bytes
from bionemo_core.parallel.strategy import MegatronStrategy

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


def test_each_micro_batch_ends_with_shares_where_whole_gradients_take_more_than_a_quarter() -> None:
    for gradients, each_pass in ((20, False), (21, True)):
        for strategy, shares in (("full", True), ("hybrid", True), ("none", False)):
            chosen = choose_sharding(strategy, None, TWO_MACHINES, 100 * GIB, 80 * GIB, gradients * GIB)
            assert chosen.reduces_each_pass is (each_pass and shares)
            assert ("whole gradients take 21.00 GiB" in chosen.reason) is chosen.reduces_each_pass


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


@pytest.mark.parametrize(
    ("optimizer_bytes", "copy_bytes", "expected"),
    [(8.0, 0, 10 * 4 + 6 * 12), (8.0, 2, 10 * 6 + 6 * 12), (4.0, 2, 10 * 6 + 6 * 8)],
)
def test_frozen_weights_have_no_gradients_and_no_optimizer_state(
    optimizer_bytes: float, copy_bytes: int, expected: float
) -> None:
    frozen, trained = torch.nn.Parameter(torch.zeros(4), requires_grad=False), torch.nn.Parameter(torch.zeros(2, 3))
    assert state_bytes([frozen, trained], optimizer_bytes, copy_bytes) == expected


@pytest.mark.parametrize(
    ("optimizer_bytes", "frozen", "shared"), [(8.0, False, True), (0.0, False, False), (8.0, True, False)]
)
def test_a_run_counts_what_its_optimizer_keeps_of_the_trained_weights(
    monkeypatch: pytest.MonkeyPatch, optimizer_bytes: float, frozen: bool, shared: bool
) -> None:
    network = torch.nn.Linear(10, 10).requires_grad_(not frozen)
    strategy = MegatronStrategy(device_bytes=4 * 110 * 10, optimizer_bytes=optimizer_bytes, sharding_strategy="auto")
    groups = SimpleNamespace(data_size=2, tensor_size=1)
    monkeypatch.setattr(MegatronStrategy, "groups", groups)
    monkeypatch.setattr(MegatronStrategy, "root_device", torch.device("cpu"))
    monkeypatch.setattr("torch.distributed.get_world_size", lambda: 1)
    found = strategy.decide_sharding(SimpleNamespace(network=network))  # type: ignore[arg-type]
    assert (found.strategy == "full") is shared, found.reason
    assert found.reduces_each_pass is False  # 440 bytes are less than a quarter of the device
    strategy = MegatronStrategy(device_bytes=4 * 439, sharding_strategy="full")
    found = strategy.decide_sharding(SimpleNamespace(network=network))  # type: ignore[arg-type]
    assert found.reduces_each_pass is not frozen
