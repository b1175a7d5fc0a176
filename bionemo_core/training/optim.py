"""The optimizer as settings, and how a network's parameters are grouped for it.

No `from __future__ import annotations` here: the configuration reads these annotations at run time.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from bionemo_core.config.schema import RunSpec
from bionemo_core.errors import ConfigError
from bionemo_core.protocols import OptimizerSettings
from bionemo_core.ranges import Dropout, NotNegative

if TYPE_CHECKING:
    import torch

    from bionemo_core.parallel.sharding_choice import Sharding


@dataclass(frozen=True)
class AdamW:
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019); v1's `fused_adam` is this one."""

    lr: NotNegative = 1e-4  # the rate that the schedule scales
    weight_decay: NotNegative = 0.01  # decoupled weight decay; biases and norms are not decayed
    betas: list[Dropout] = field(default_factory=lambda: [0.9, 0.999])  # decay of the two moments
    eps: NotNegative = 1e-8  # added to the denominator

    def __post_init__(self) -> None:
        """Check the number of betas.

        Raises:
            ConfigError: there are not two.
        """
        if len(self.betas) != 2:
            raise ConfigError(f"optim.betas: got {self.betas}, expected two numbers.")

    def build(self, named_parameters: "Iterable[tuple[str, torch.nn.Parameter]]") -> "torch.optim.AdamW":
        """Make the fused torch optimizer; biases and norms are not decayed, as in v1."""
        import torch

        first, second = map(float, self.betas)

        decayed: list[torch.nn.Parameter] = []
        kept: list[torch.nn.Parameter] = []
        for _, parameter in named_parameters:
            if parameter.requires_grad:
                (decayed if parameter.dim() > 1 else kept).append(parameter)
        groups = [
            {"params": decayed, "weight_decay": self.weight_decay},
            {"params": kept, "weight_decay": 0.0},
        ]
        return torch.optim.AdamW(
            [group for group in groups if group["params"]], lr=self.lr, betas=(first, second), eps=self.eps, fused=True
        )


class OptimizerState(NamedTuple):
    """What an optimizer keeps of each parameter."""

    name: str
    bytes_per_parameter: float

    @property
    def with_weights(self) -> str:
        """Weights, gradients and this, in words."""
        return f"weights, gradients and {self.name}" if self.bytes_per_parameter else "weights and gradients"


ADAM_STATE = OptimizerState("Adam", 8.0)
"""Two moments in float32."""

_PROBE_SIZE = 64


def measure_state(optim: OptimizerSettings, name: str) -> OptimizerState:
    """Return what an optimizer keeps, found by a step on a small matrix; Adam's if that is not enough for it."""
    import torch

    weight = torch.nn.Parameter(torch.ones(_PROBE_SIZE, _PROBE_SIZE))
    weight.grad = torch.ones_like(weight)
    try:
        with torch.random.fork_rng(devices=[]):
            optimizer = optim.build([("weight", weight)])
            optimizer.step()
        kept = [value for value in optimizer.state[weight].values() if isinstance(value, torch.Tensor) and value.dim()]
    except Exception:  # a plugin's, which may need more than a matrix; the run itself will say what is wrong with it
        return ADAM_STATE
    per_parameter = sum(value.numel() * value.element_size() for value in kept) / weight.numel()
    return OptimizerState(ADAM_STATE.name if name == "adamw" else name, per_parameter)


def check_layout(spec: RunSpec, optim: OptimizerSettings, sharding: "Sharding") -> None:
    """Check that an optimizer which needs whole parameters has them on each rank.

    Raises:
        ConfigError: tensor parallelism or sharding divides the parameters.
    """
    divided = spec.parallel.tensor_model_parallel_size > 1 or (sharding.strategy != "none" and sharding.shard_size > 1)
    if divided and getattr(optim, "whole_parameters", False):
        raise ConfigError(
            f"optim={spec.optim.name}: it changes whole parameters, and here ranks share them. Choose "
            "parallel.sharding_strategy=none and parallel.tensor_model_parallel_size=1."
        )
