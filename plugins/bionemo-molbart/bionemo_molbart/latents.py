"""MolMIM's latent space: how hidden states become a distribution, and what the distribution costs.

Shape letters: K latents, B sequences, H hidden. All of it is computed in float32 at least.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from bionemo_core.errors import ConfigError
from bionemo_core.inference.philox import RowRng

if TYPE_CHECKING:
    from bionemo_core.megatron import TransformerConfig

_LOG_2PI = math.log(2 * math.pi)


class Latents(NamedTuple):
    """q(z|x), a Gaussian a latent, and the point that the decoder gets."""

    mean: Tensor
    """Shape [K, B, H], float32 or wider."""
    logvar: Tensor
    """The logarithm of the variance; broadcasts to the shape of `mean`."""
    z: Tensor
    """A draw, mean + exp(logvar / 2) * noise, if there is a generator to draw from; else the mean."""

    @classmethod
    def draw(cls, mean: Tensor, logvar: Tensor, rng: RowRng | None) -> Latents:
        """Return the Gaussian with a point drawn from each sequence's stream; without `rng` the point is the mean."""
        if rng is None:
            return cls(mean, logvar, mean)
        noise = rng.normal_like("latent noise", mean.transpose(0, 1)).transpose(0, 1)
        return cls(mean, logvar, mean + torch.exp(logvar / 2) * noise)


class ConditionalGaussian(nn.Module):
    """Mean and variance are linear in the hidden state (v1: `cond_gaussian`)."""

    def __init__(self, config: TransformerConfig, min_logvar: float, max_logvar: float) -> None:
        super().__init__()
        self.min_logvar = min_logvar
        self.hiddens_to_mean_logvar = _linear(config, 2 * config.hidden_size)

    def forward(self, hidden: Tensor, rng: RowRng | None = None) -> Latents:
        """Return the latents of hidden states [K, B, H]; without `rng` nothing is drawn."""
        mean, logvar = _wide(self.hiddens_to_mean_logvar(hidden)).chunk(2, dim=-1)
        return Latents.draw(mean, logvar.clamp(min=self.min_logvar), rng)


class InterpolatedGaussian(ConditionalGaussian):
    """Mean and log variance are drawn towards N(0, 1) by a share of their own (v1: `interp_var_cond_gaussian`).

    The share is uniform, one a sequence.
    """

    def forward(self, hidden: Tensor, rng: RowRng | None = None) -> Latents:
        """Return the latents of hidden states [K, B, H]; without `rng` nothing is drawn."""
        mean, logvar = _wide(self.hiddens_to_mean_logvar(hidden)).chunk(2, dim=-1)
        if rng is not None:
            share = _share(rng, mean)
            mean, logvar = share * mean, share * logvar
        return Latents.draw(mean, logvar.clamp(min=self.min_logvar), rng)


class SampledVarianceGaussian(nn.Module):
    """The mean is linear in the hidden state, the variance is drawn (v1: `sampled_var_cond_gaussian`).

    The log variance is uniform between its bounds, one a sequence; where nothing is drawn, it is the lower bound.
    """

    def __init__(self, config: TransformerConfig, min_logvar: float, max_logvar: float) -> None:
        super().__init__()
        if max_logvar < min_logvar:
            raise ConfigError(f"model.max_logvar: {max_logvar} is below model.min_logvar {min_logvar}.")
        self.min_logvar, self.max_logvar = min_logvar, max_logvar
        self.hiddens_to_mean = _linear(config, config.hidden_size)

    def forward(self, hidden: Tensor, rng: RowRng | None = None) -> Latents:
        """Return the latents of hidden states [K, B, H]; without `rng` nothing is drawn."""
        mean = _wide(self.hiddens_to_mean(hidden))
        logvar = torch.full_like(mean[:1, :, :1], self.min_logvar)
        if rng is not None:
            logvar = logvar + _share(rng, mean) * (self.max_logvar - self.min_logvar)
        return Latents.draw(mean, logvar, rng)


def _share(rng: RowRng, like: Tensor) -> Tensor:
    """Return a uniform number in [0, 1) for each sequence, shape [1, B, 1]."""
    return rng.uniform("latent share", 1).to(like.dtype)[None]


def _wide(values: Tensor) -> Tensor:
    return values if values.dtype == torch.float64 else values.float()


def _linear(config: TransformerConfig, width: int) -> nn.Linear:
    linear = nn.Linear(config.hidden_size, width, dtype=config.params_dtype)
    config.init_method(linear.weight)
    nn.init.zeros_(linear.bias)
    return linear


TRANSFORMS: Mapping[str, Callable[[TransformerConfig, float, float], nn.Module]] = {
    "cond_gaussian": ConditionalGaussian,
    "sampled_var_cond_gaussian": SampledVarianceGaussian,
    "interp_var_cond_gaussian": InterpolatedGaussian,
}
"""v1's transforms by their names."""


def log_normal(z: Tensor, mean: Tensor, logvar: Tensor) -> Tensor:
    """Return the log density of each dimension of `z` under N(mean, exp(logvar)), in nats; the shape of `z`."""
    return -0.5 * ((z - mean).square() * torch.exp(-logvar) + logvar + _LOG_2PI)


def a_mim(latents: Latents) -> Tensor:
    """-1/2 (log P(z) + log q(z|x)) of each dimension, P = N(0, I) (Livne et al. 2019)."""
    zero = latents.z.new_zeros(())
    return -0.5 * (log_normal(latents.z, zero, zero) + log_normal(latents.z, latents.mean, latents.logvar))


def vae(latents: Latents) -> Tensor:
    """KL(q(z|x) || N(0, I)) of each dimension, in closed form (Kingma and Welling 2014)."""
    return 0.5 * (latents.logvar.exp() + latents.mean.square() - 1.0 - latents.logvar)


LOSSES: Mapping[str, Callable[[Latents], Tensor]] = {"a_mim": a_mim, "vae": vae}
"""v1's latent losses by their names; each gives [K, B, H]."""
AGGREGATIONS = ("mean", "sum")


def per_sequence(values: Tensor, aggregation: str) -> Tensor:
    """Return one value for each sequence, shape [B]: the mean or sum over H, then the mean over K."""
    over_hidden = values.mean(dim=-1) if aggregation == "mean" else values.sum(dim=-1)
    return over_hidden.mean(dim=0)
