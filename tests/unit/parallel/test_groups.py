"""Process groups of one process."""

import pytest
import torch
import torch.distributed as dist

from bionemo_core.parallel import groups
from bionemo_core.parallel.groups import start_groups


def test_one_process_binds_no_group_to_the_device_while_groups_are_made(monkeypatch: pytest.MonkeyPatch) -> None:
    start_groups()
    world, seen = dist.group.WORLD, []
    assert world is not None
    make = groups.parallel_state.initialize_model_parallel

    def watched(**options: object) -> None:
        seen.append(world.bound_device_id)
        make(**options)

    monkeypatch.setattr(groups.parallel_state, "initialize_model_parallel", watched)
    world.bound_device_id = torch.device("cpu", 0)
    try:
        groups._make_groups(1, 1)
        assert seen == [None], "torch would make a communicator for each group"
        assert world.bound_device_id == torch.device("cpu", 0), "a barrier needs the device"
    finally:
        world.bound_device_id = None
