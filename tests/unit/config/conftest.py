"""Fixtures that compose a configuration as the command does, in this process."""

from collections.abc import Callable
from pathlib import Path

import pytest
from omegaconf import DictConfig

from bionemo_core.builtin import load_registry
from bionemo_core.cli.overrides import component_keys, prepare_command_line
from bionemo_core.config.hydra_session import composer
from bionemo_core.config.schema import RunSpec
from bionemo_core.config.spec import make_spec
from bionemo_core.config.store import fill_store
from bionemo_core.config.v1.user_yaml import use_folders
from bionemo_core.plugins import Registry

pytest.importorskip("bionemo_esm")


@pytest.fixture(scope="session")
def registry() -> Registry:
    registry = load_registry()
    fill_store(registry)
    return registry


@pytest.fixture(scope="session")
def composed(registry: Registry) -> Callable[..., DictConfig]:
    def _composed(*typed: str, folder: Path | None = None) -> DictConfig:
        command = prepare_command_line([*typed, *(["--config-dir", str(folder)] if folder else [])], registry)
        use_folders(command.folders, component_keys(registry))
        with composer() as compose:
            return compose(command.arguments)

    return _composed


@pytest.fixture(scope="session")
def spec_of(composed: Callable[..., DictConfig], registry: Registry) -> Callable[..., RunSpec]:
    def _spec_of(*typed: str, folder: Path | None = None) -> RunSpec:
        return make_spec(composed(*typed, folder=folder), registry)

    return _spec_of
