"""Hydra as this project uses it: its public API alone, on Hydra 1.3 and 1.4."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import hydra
import hydra.utils
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf, open_dict

from bionemo_core.config.store import CONFIG_NAME

VERSION_OPTIONS: dict[str, Any] = {"version_base": "1.3"} if hydra.__version__.startswith("1.3.") else {}
"""Hydra 1.3 warns unless it is given the version whose defaults apply; 1.4 warns if it is given one."""


@contextmanager
def composer() -> Iterator[Callable[[list[str]], DictConfig]]:
    """Yield a function that composes the configuration of a list of overrides.

    Raises:
        HydraException: (from the function) an override or a file cannot be used.
    """
    with hydra.initialize(config_path=None, **VERSION_OPTIONS), _store_not_copied():
        yield _compose


@contextmanager
def _store_not_copied() -> Iterator[None]:
    """Let copies of Hydra's sources share the store.

    Hydra copies its sources, and with them every node of every group, each time that it composes. This takes most of
    the time, and nothing changes the store: it hands out copies of its nodes.
    """
    store: Any = ConfigStore
    store.__deepcopy__ = lambda store, memo: store
    try:
        yield
    finally:
        del store.__deepcopy__


def _sweep_remembered() -> AbstractContextManager[Any]:
    """Let Hydra make the callback that our configuration names; from 1.4 on it warns of what is on no list."""
    allow = getattr(hydra.utils, "execution_whitelist", None)
    return nullcontext() if allow is None else allow("bionemo_core.cli.sweep.RememberSweep")


def _compose(overrides: list[str]) -> DictConfig:
    config = hydra.compose(CONFIG_NAME, overrides=overrides, return_hydra_config=True)
    HydraConfig.instance().set_config(config)  # `${hydra:...}` in a user's file is looked up here
    OmegaConf.set_readonly(config, False)
    with open_dict(config):
        del config["hydra"]
    return config


def launch(job: Callable[[DictConfig], Any], arguments: list[str]) -> None:
    """Run Hydra's own command line, which handles flags: sweeps (`-m`), `--cfg`, `--info`, completion.

    Raises:
        HydraException: an argument or a file cannot be used.
    """
    # By default Hydra prints an error itself and exits with 1; with this variable it raises the error.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    typed = list(sys.argv)

    def as_typed(config: DictConfig) -> Any:
        # Lightning starts the other ranks of this machine with sys.argv, so it must hold the command as it was typed.
        sys.argv = typed
        return job(config)

    # `hydra.main` reads its arguments from sys.argv; there is no public way to pass others.
    sys.argv = [typed[0], *arguments]
    try:
        with _store_not_copied(), _sweep_remembered():
            hydra.main(config_path=None, config_name=CONFIG_NAME, **VERSION_OPTIONS)(as_typed)()
    finally:
        sys.argv = typed
