"""Which activations a training computes again in the backward pass, with v1's names."""

from __future__ import annotations

from dataclasses import dataclass

from bionemo_core.config.schema import Trainer
from bionemo_core.errors import ConfigError

GRANULARITIES = ("none", "selective", "full")
METHODS = ("uniform", "block")
_KEY = "trainer.activations_checkpoint"


@dataclass(frozen=True)
class Recompute:
    """The options of activation recomputation."""

    granularity: str = "none"
    """none, selective (core attention of each layer) or full (whole layers)."""
    method: str | None = None
    """Which layers `full` recomputes. uniform, the default: all. block: the first `num_layers` of each stack."""
    num_layers: int = 1

    def __post_init__(self) -> None:
        """Check the options.

        Raises:
            ConfigError: an option is unknown, or contradicts another.
        """
        if self.granularity not in GRANULARITIES:
            raise ConfigError(
                f"{_KEY}_granularity={self.granularity} is unknown; choose one of {', '.join(GRANULARITIES)}."
            )
        if self.method is not None and self.method not in METHODS:
            raise ConfigError(f"{_KEY}_method={self.method} is unknown; choose one of {', '.join(METHODS)}.")
        if self.method is not None and self.granularity != "full":
            raise ConfigError(
                f"{_KEY}_method={self.method} chooses among whole layers, and {_KEY}_granularity={self.granularity} "
                f"recomputes none. Set {_KEY}_granularity=full, or leave {_KEY}_method out."
            )
        if self.num_layers != 1 and self.method != "block":
            raise ConfigError(
                f"{_KEY}_num_layers={self.num_layers}: only {_KEY}_method=block counts layers; otherwise every layer "
                f"is recomputed by itself. Set {_KEY}_granularity=full {_KEY}_method=block, or leave {_KEY}_num_layers "
                "out."
            )

    @classmethod
    def of(cls, trainer: Trainer) -> Recompute:
        """Return the options of these settings.

        Raises:
            ConfigError: an option is unknown, or contradicts another.
        """
        return cls(
            trainer.activations_checkpoint_granularity,
            trainer.activations_checkpoint_method,
            trainer.activations_checkpoint_num_layers,
        )

    @property
    def any(self) -> bool:
        """Whether anything is recomputed."""
        return self.granularity != "none"
