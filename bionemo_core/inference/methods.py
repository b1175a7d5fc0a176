"""v1's five methods to sample around hidden states: their names, options and defaults, and the noise that they add."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from torch import Tensor

from bionemo_core.errors import ConfigError
from bionemo_core.inference.choosing import TokenSampling
from bionemo_core.inference.philox import RowRng
from bionemo_core.plugins.did_you_mean import did_you_mean

NOISE = "noise"
SINGLE_SAMPLE = "beam-search-single-sample"
_BEAM = {"beam_size": 5, "keep_only_best_tokens": False, "beam_alpha": 0.0}

SAMPLING_METHODS: Mapping[str, Mapping[str, Any]] = {
    "greedy-perturbate": {},
    "topkp-perturbate": asdict(TokenSampling()),
    "beam-search-perturbate": {**_BEAM, "keep_only_best_tokens": True},
    SINGLE_SAMPLE: {**_BEAM, "beam_size": None},  # as many beams as samples
    "beam-search-perturbate-sample": _BEAM,
}
"""v1's methods by name, with their options and defaults."""


def add_noise(hiddens: Tensor, rng: RowRng, scaled_radius: float) -> Tensor:
    """Add Gaussian noise of standard deviation `scaled_radius` to `hiddens` [rows, T, H], from each row's stream."""
    return hiddens if scaled_radius == 0.0 else hiddens + scaled_radius * rng.normal_like(NOISE, hiddens)


def method_options(
    method: str, options: Mapping[str, Any], num_samples: int, scaled_radius: float, key_prefix: str = ""
) -> dict[str, Any]:
    """Return all options of a sampling method: the given ones, and defaults for the others.

    `key_prefix` is what the keys begin with in messages: `task.` on the command line.

    Raises:
        ConfigError: the method or an option is unknown, or a value is out of its range.
    """
    if method not in SAMPLING_METHODS:
        known = ", ".join(SAMPLING_METHODS)
        close = did_you_mean(method, SAMPLING_METHODS)
        raise ConfigError(f"{key_prefix}sampling_method: got {method!r}.{close} Known: {known}.")
    defaults = SAMPLING_METHODS[method]
    for name in options:
        if name not in defaults:
            raise ConfigError(
                f"{key_prefix}sampling_method={method}: no option {name!r}.{did_you_mean(name, defaults)} "
                f"It has: {', '.join(key_prefix + own for own in defaults) or 'none'}."
            )
    if num_samples < 1:
        raise ConfigError(f"{key_prefix}num_samples: got {num_samples}, expected 1 or more.")
    if not (math.isfinite(scaled_radius) and scaled_radius >= 0.0):
        raise ConfigError(f"{key_prefix}scaled_radius: got {scaled_radius}, expected a number of 0 or more.")
    settings = {**defaults, **options}
    if method == SINGLE_SAMPLE:
        if settings["beam_size"] not in (None, num_samples):
            raise ConfigError(
                f"{key_prefix}sampling_method={method}: {key_prefix}beam_size={settings['beam_size']} differs from "
                f"{key_prefix}num_samples={num_samples}, but the samples of this method are its beams. Leave "
                f"{key_prefix}beam_size out."
            )
        settings["beam_size"] = num_samples
    return settings


def select_kept_beams(beams: list[list[str]], settings: Mapping[str, Any]) -> list[Any]:
    """Return the best hypothesis of each list, or all hypotheses if the method keeps them."""
    return [hypotheses[0] for hypotheses in beams] if settings.get("keep_only_best_tokens", True) else list(beams)


def parse_max_length(hiddens_to_seq_kwargs: Mapping[str, Any] | None) -> int | None:
    """Return the `max_length` in v1's `hiddens_to_seq_kwargs`, if any.

    Raises:
        ConfigError: an option is unknown.
    """
    given = dict(hiddens_to_seq_kwargs or {})
    length: int | None = given.pop("max_length", None)
    if given:
        raise ConfigError(f"hiddens_to_seq_kwargs: no option {next(iter(given))!r}. It has: max_length.")
    return length
