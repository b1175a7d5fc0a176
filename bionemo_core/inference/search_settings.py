"""How a latent space is searched.

No `from __future__ import annotations` here: OmegaConf reads these annotations at run time.
"""

import math
from dataclasses import dataclass

from bionemo_core.errors import ConfigError

ALGORITHMS = ("cma-es", "random")


@dataclass(frozen=True, kw_only=True)
class SearchSettings:
    """How to search from each start; v1's names and defaults where it had them."""

    algorithm: str = "cma-es"  # cma-es, random (perturb the start's latent again and again)
    population: int = 20  # candidates of a start in one iteration
    iterations: int = 30
    sigma: float = 1.0  # standard deviation of the first candidates around the start's latent
    minimum_similarity: float = 0.0  # a candidate less similar to the start is never the best
    scaled_radius: float = 1.0  # standard deviation of random perturbation
    diagonal: bool = False  # learn the variances of dimensions only: cheaper
    minimize: bool = False  # look for low scores
    seed: int = 1234
    key_prefix: str = ""  # what the keys begin with in messages: `task.` on the command line

    def __post_init__(self) -> None:
        """Check the ranges.

        Raises:
            ConfigError: a value is out of its range.
        """
        if self.algorithm not in ALGORITHMS:
            known = ", ".join(ALGORITHMS)
            raise ConfigError(f"{self.key_prefix}algorithm: got {self.algorithm!r}, expected one of {known}.")
        for name, least in (("population", 2), ("iterations", 1), ("seed", 0)):
            if getattr(self, name) < least:
                raise ConfigError(f"{self.key_prefix}{name}: got {getattr(self, name)}, expected {least} or more.")
        for name in ("sigma", "scaled_radius"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0.0):
                raise ConfigError(f"{self.key_prefix}{name}: got {value}, expected a number above 0.")
        if not 0.0 <= self.minimum_similarity <= 1.0:
            raise ConfigError(f"{self.key_prefix}minimum_similarity: got {self.minimum_similarity}, expected 0 to 1.")
