"""`bionemo-run completion bash|zsh|fish`: prints a script with which the shell completes choices and keys."""

from bionemo_core.errors import ConfigError

SHELLS = ("bash", "zsh", "fish")


def run(arguments: list[str]) -> int:
    """Print the script; `eval "$(bionemo-run completion bash)"` activates it.

    Raises:
        ConfigError: the shell is not one of the three.
    """
    if len(arguments) != 1 or arguments[0] not in SHELLS:
        raise ConfigError(f"completion: got {' '.join(arguments)!r}, expected one of {', '.join(SHELLS)}")
    from bionemo_core.cli import run as run_command

    return run_command.run(["-sc", f"install={arguments[0]}"])
