"""The command `bionemo-run`: one module a subcommand, this one only finds it. Nothing heavy is imported here."""

import sys
from collections.abc import Sequence
from importlib import import_module

from bionemo_core.cli.failures import ExitStatus
from bionemo_core.errors import ConfigError

SUBCOMMANDS = {
    "help": "what can be chosen, and how",
    "plugins": "which plugins are installed, and what became of each",
    "doctor": "what works on this machine, what does not, and what to do",
    "runs": "what was run, and how far it got",
    "cluster": "group similar sequences of a FASTA file, for a split that does not leak",
    "new-plugin": "write a plugin that trains as it is, to start one's own from",
    "completion": "a script for the shell that completes choices and keys",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    typed = list(sys.argv[1:] if arguments is None else arguments)
    with ExitStatus() as status:
        subcommand, rest = _subcommand(typed)
        if subcommand == "version":
            from bionemo_core import __version__

            sys.stdout.write(f"bionemo-run {__version__}\n")
        else:
            status.value = import_module(f"bionemo_core.cli.{subcommand.replace('-', '_')}").run(rest)
        if not typed:
            raise ConfigError("nothing to do. Give a model, e.g. bionemo-run model=esm1nv_tiny")
    return status.value


def _subcommand(typed: list[str]) -> tuple[str, list[str]]:
    """Return the module that answers a command line, and the arguments for it."""
    if not typed:
        return "help", []
    first, rest = typed[0], typed[1:]
    if first == "--version":
        return "version", []
    if first in SUBCOMMANDS:
        return ("help", [first]) if {"-h", "--help"} & set(rest) else (first, rest)
    if {"-h", "--help"} & set(typed):
        return "help", [argument for argument in typed if not argument.startswith("-")]
    return "run", typed
