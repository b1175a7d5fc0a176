"""Keys of Hydra on the command line: those of sweeps work, and those that would have no effect are refused."""

from collections.abc import Sequence

from bionemo_core.config.v1.rewriting import SWEEP_FLAGS
from bionemo_core.errors import ConfigError

_ALWAYS = ("hydra.searchpath",)
_NEVER = ("hydra.run", "hydra.mode")
_OF_LIGHTNING = "hydra.job.name=train_ddp_process_"
"""Lightning adds this key, and others, where it starts the other ranks with the same command."""
_SHOWS = ("--cfg", "-c", "--info", "-i")
_ADVICE = {
    "hydra.run": "home=DIR and name=NAME say where a run is written.",
    "hydra.sweep": "home=DIR and name=NAME say where a run is written.",
    "hydra.job": "A run stays in the folder that it is started in.",
    "hydra.mode": "For a sweep, type -m.",
}


def refuse_keys_without_effect(arguments: Sequence[str]) -> None:
    """Check that each key of Hydra on the command line changes something.

    Raises:
        ConfigError: one does not; the message says what to type instead.
    """
    sweep = any(argument in SWEEP_FLAGS for argument in arguments)
    shows = any(argument.partition("=")[0] in _SHOWS for argument in arguments)
    if any(argument.startswith(_OF_LIGHTNING) for argument in arguments):
        return
    for argument in arguments:
        key = argument.partition("=")[0].lstrip("+~")
        dotted = key.replace("/", ".")
        if not dotted.startswith("hydra.") or _is_below(dotted, _ALWAYS) or shows:
            continue
        if not sweep or _is_below(dotted, _NEVER):
            advice = next((text for place, text in _ADVICE.items() if _is_below(dotted, (place,))), "")
            when = "" if _is_below(dotted, _NEVER) else " without -m, which starts a sweep"
            raise ConfigError(f"{key}: this key of Hydra has no effect{when}. {advice or 'Leave it out.'}")


def _is_below(key: str, places: Sequence[str]) -> bool:
    return any(key == place or key.startswith(f"{place}.") for place in places)
