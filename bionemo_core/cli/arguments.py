"""The arguments of subcommands that take more than one word."""

import argparse
from typing import NoReturn

from bionemo_core.errors import ConfigError


class ArgumentParser(argparse.ArgumentParser):
    """A parser whose errors are `ConfigError`s, and that leaves `--help` to the command.

    Args:
        command: the name of the subcommand.
        usage: the line that shows its arguments.
    """

    def __init__(self, command: str, usage: str) -> None:
        super().__init__(prog=command, usage=usage, add_help=False)

    def error(self, message: str) -> NoReturn:
        """Refuse the arguments.

        Raises:
            ConfigError: always.
        """
        raise ConfigError(f"{self.prog}: {message}. Usage: {self.usage}")
