"""Hydra as this project uses it: its public API alone, on Hydra 1.3 and 1.4."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf, open_dict

from bionemo_core.config.store import CONFIG_NAME

VERSION_OPTIONS: dict[str, Any] = {"version_base": "1.3"} if hydra.__version__.startswith("1.3.") else {}
"""Hydra 1.3 wants to be told whose defaults to follow; 1.4 warns if it is."""


@contextmanager
def composer() -> Iterator[Callable[[list[str]], DictConfig]]:
    """Give a function that composes the run which some overrides describe.

    Raises:
        HydraException: (the function) an override or a file cannot be used.
    """
    with hydra.initialize(config_path=None, **VERSION_OPTIONS):
        yield _compose


def _compose(overrides: list[str]) -> DictConfig:
    config = hydra.compose(CONFIG_NAME, overrides=overrides, return_hydra_config=True)
    HydraConfig.instance().set_config(config)  # where `${hydra:...}` in a user's file looks
    OmegaConf.set_readonly(config, False)
    with open_dict(config):
        del config["hydra"]
    return config


def launch(job: Callable[[DictConfig], None], arguments: list[str]) -> None:
    """Have Hydra's own command line do what has flags: sweeps (`-m`), `--cfg`, `--info`, completion.

    Raises:
        HydraException: an argument or a file cannot be used.
    """
    # Hydra would print failures in its own words and exit with 1; asked for the whole error it lets them through.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    typed = list(sys.argv)

    def as_typed(config: DictConfig) -> None:
        # Lightning starts this machine's other ranks by repeating sys.argv, v1 spellings and --config-dir included.
        sys.argv = typed
        job(config)

    # `hydra.main` reads its arguments from sys.argv and has no public way to be given others.
    sys.argv = [typed[0], *arguments]
    try:
        hydra.main(config_path=None, config_name=CONFIG_NAME, **VERSION_OPTIONS)(as_typed)()
    finally:
        sys.argv = typed
