"""The command `bionemo-run`: one module a subcommand, this one only finds it. Nothing heavy is imported here."""

import sys
from collections.abc import Sequence
from importlib import import_module

from bionemo_core.cli.failures import reported

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
    """Runs the command line and returns its exit status."""
    typed = list(sys.argv[1:] if arguments is None else arguments)
    return reported(lambda: _dispatch(typed))


def _dispatch(typed: list[str]) -> int:
    if not typed:
        _run("help", [])
        sys.stderr.write("error[config]: nothing to do. Give a model, e.g. bionemo-run model=esm1nv_tiny\n")
        return 2
    first, rest = typed[0], typed[1:]
    if first == "--version":
        from bionemo_core import __version__

        sys.stdout.write(f"bionemo-run {__version__}\n")
        return 0
    if first in SUBCOMMANDS:
        return _run("help", [first]) if {"-h", "--help"} & set(rest) else _run(first, rest)
    if {"-h", "--help"} & set(typed):
        return _run("help", [argument for argument in typed if not argument.startswith("-")])
    return _run("run", typed)


def _run(subcommand: str, arguments: list[str]) -> int:
    status: int = import_module(f"bionemo_core.cli.{subcommand.replace('-', '_')}").run(arguments)
    return status
