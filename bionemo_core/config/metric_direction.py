"""Whether more or less of a metric is better, by its name."""

from typing import Literal, cast

from bionemo_core.errors import ConfigError

Mode = Literal["min", "max"]
"""Which values of a metric are better, the lowest or the highest."""

_LOWER = frozenset({"error", "invalid", "loss", "mae", "mse", "perplexity", "rmse"})
_HIGHER = frozenset({"accuracy", "auc", "f1", "mcc", "mrr", "pearson", "precision", "r2", "recall", "spearman"})


def choose_mode(monitor: str, mode: str | None) -> Mode:
    """Return `checkpoint.mode`, where it is null the one that follows from the name of the monitored metric.

    Raises:
        ConfigError: it is null, and the name has no word that says whether more or less is better.
    """
    if mode is not None:
        return cast(Mode, mode)  # checked with the configuration
    words = set(monitor.lower().split("_"))
    lower, higher = bool(words & _LOWER), bool(words & _HIGHER)
    if lower == higher:
        raise ConfigError(
            f"checkpoint.mode: the name of checkpoint.monitor={monitor} does not say whether more or less is better. "
            "Set checkpoint.mode=max or checkpoint.mode=min."
        )
    return "min" if lower else "max"
