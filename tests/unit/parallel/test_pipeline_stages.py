"""How layers are split into stages, in which order a stage runs its passes, and what is refused."""

import pytest
import torch

from bionemo_core.errors import ConfigError
from bionemo_core.parallel.groups import Stage
from bionemo_core.parallel.pipeline.schedule import idle_share, one_forward_one_backward
from bionemo_core.parallel.pipeline.stages import plan_stages, split_layers


@pytest.mark.parametrize(("layers", "stages"), [(3, 2), (6, 4), (33, 8), (5, 5)])
def test_stages_are_consecutive_and_as_equal_as_possible(layers: int, stages: int) -> None:
    parts = split_layers(layers, stages)
    assert [layer for part in parts for layer in part] == list(range(layers))
    sizes = [len(part) for part in parts]
    assert max(sizes) - min(sizes) <= 1 and min(sizes) >= 1


def order(index: int, count: int, micro_batches: int) -> str:
    turns = one_forward_one_backward(Stage(index, count), micro_batches)
    return " ".join(f"{'F' if turn.is_forward else 'B'}{turn.micro_batch}" for turn in turns)


def test_a_stage_runs_ahead_by_the_stages_after_it() -> None:
    assert order(0, 3, 4) == "F0 F1 F2 B0 F3 B1 B2 B3"
    assert order(1, 3, 4) == "F0 F1 B0 F2 B1 F3 B2 B3"
    assert order(2, 3, 4) == "F0 B0 F1 B1 F2 B2 F3 B3"
    assert order(0, 3, 1) == "F0 B0"


def test_idle_share() -> None:
    assert idle_share(2, 1) == 0.5
    assert idle_share(4, 9) == 0.25


class Layers(torch.nn.Module):
    """A network with layers, of which no method says how they form stages."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.layers = torch.nn.ModuleList(torch.nn.Linear(2, 2) for _ in range(number))


class Staged(Layers):
    def pipeline_stages(self, count: int) -> dict[str, tuple[int, ...]]:
        raise AssertionError("not asked, because there are too few layers")


def test_a_network_that_names_no_stages_is_refused() -> None:
    with pytest.raises(ConfigError, match="pipeline_model_parallel_size=2: Layers cannot be split into stages"):
        plan_stages(Layers(4), 2)


def test_more_stages_than_layers_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"has 2 layers, and each stage needs one\. Set it to 2 or less"):
        plan_stages(Staged(2), 3)
