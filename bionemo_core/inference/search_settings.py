"""How a latent space is searched.

No `from __future__ import annotations` here: OmegaConf reads these annotations at run time.
"""

from dataclasses import dataclass
from typing import Annotated

from bionemo_core.errors import ConfigError
from bionemo_core.ranges import Count, Natural, Positive, Range, Share, check_fields

ALGORITHMS = ("cma-es", "random")
Population = Annotated[int, Range(least=2)]


@dataclass(frozen=True, kw_only=True)
class SearchSettings:
    """How to search from each start; v1's names and defaults where it had them."""

    algorithm: str = "cma-es"  # cma-es, random (perturb the start's latent again and again)
    population: Population = 20  # candidates of a start in one iteration
    iterations: Count = 30
    sigma: Positive = 1.0  # standard deviation of the first candidates around the start's latent
    minimum_similarity: Share = 0.0  # a candidate less similar to the start is never the best
    scaled_radius: Positive = 1.0  # standard deviation of random perturbation
    diagonal: bool = False  # learn the variances of dimensions only: cheaper
    minimize: bool = False  # look for low scores
    seed: Natural = 1234
    key_prefix: str = ""  # what the keys begin with in messages: `task.` on the command line

    def __post_init__(self) -> None:
        """Check the algorithm and the ranges.

        Raises:
            ConfigError: the algorithm is unknown, or a number is out of its range.
        """
        if self.algorithm not in ALGORITHMS:
            known = ", ".join(ALGORITHMS)
            raise ConfigError(f"{self.key_prefix}algorithm: got {self.algorithm!r}, expected one of {known}.")
        check_fields(self, self.key_prefix)
