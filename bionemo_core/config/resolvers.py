"""The interpolations that v1's files use besides `oc.env` and Hydra's `now`; importing this module registers them."""

from pathlib import Path
from typing import Any

from omegaconf import OmegaConf


def multiply(*factors: Any) -> int | float:
    """The product, an integer where it is whole: `${multiply:${trainer.max_steps},0.01}` is a number of steps."""
    product: int | float = 1
    for factor in factors:
        product *= factor
    return int(product) if float(product).is_integer() else product


def expanduser(path: str) -> str:
    """The absolute path with `~` replaced; Hydra would make a folder called `~`."""
    return str(Path(path).expanduser().absolute())


OmegaConf.register_new_resolver("multiply", multiply, replace=True)
OmegaConf.register_new_resolver("expanduser", expanduser, replace=True)
