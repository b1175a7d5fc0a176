"""Defaults that fit the length of the run: a phase of a schedule is at most a tenth of `trainer.max_steps`.

In the configuration, such a default is an interpolation, so that a value of the user replaces it unchanged.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from omegaconf import DictConfig, OmegaConf

from bionemo_core.plugins import RegisteredComponent
from bionemo_core.plugins.configure import FITS_RUN, UNFITTED, ComponentConfig, ConfigKey

LONGEST_PHASE = 10
"""A phase takes at most one part in this many of the run: a tenth."""


def fit_defaults(registered: RegisteredComponent, keys: Sequence[ConfigKey]) -> list[ConfigKey]:
    """Return the keys with interpolations as defaults where the component's dataclass marks them with `fits_run`."""
    marks = _marks(registered.component.config)
    values = {key.name: key.default for key in keys}
    fitted = {name: _fitted(values[name]) for name, mark in marks.items() if mark.get(FITS_RUN)}
    for name, mark in marks.items():
        if other := mark.get(UNFITTED):
            fitted[name] = f"${{unfitted:{other},{values[other]}}}" if values[name] is None else values[name]
    # Hydra's --resolve goes from top to bottom, and `unfitted` must see the key beside it before it is resolved.
    ordered = sorted(keys, key=lambda key: UNFITTED not in marks.get(key.name, {}))
    return [key._replace(default=fitted.get(key.name, key.default)) for key in ordered]


def fit_to_run(steps: int, max_steps: int) -> int:
    """Return the steps of a phase, shortened to a tenth of a run of `max_steps`, but at least one."""
    return min(steps, max(1, max_steps // LONGEST_PHASE))


def unfitted_default(name: str, steps: int, *, _parent_: DictConfig) -> int | None:
    """Return `steps` while the key `name` beside this one has its fitted default, and None once the user gave it."""
    beside = OmegaConf.to_container(_parent_, resolve=False)
    assert isinstance(beside, dict)
    return steps if beside.get(name) == _fitted(steps) else None


RESOLVERS: dict[str, Callable[..., Any]] = {"fit_to_run": fit_to_run, "unfitted": unfitted_default}


def _fitted(steps: int) -> str:
    return f"${{fit_to_run:{steps},${{trainer.max_steps}}}}"


def _marks(config: Any) -> dict[str, Any]:
    owner = config.explained_by[0] if isinstance(config, ComponentConfig) else None
    if not isinstance(owner, type) or not dataclasses.is_dataclass(owner):
        return {}
    return {one.name: one.metadata for one in dataclasses.fields(owner)}
