"""The command `bionemo-run`. Each subcommand has a module; this one finds it and imports nothing heavy."""

from __future__ import annotations

import sys
from importlib import import_module

from bionemo_core._early_signals import EndOnSignals

TYPE_CHECKING = False  # type checkers know this name; every import here is a moment in which Ctrl-C is not handled
if TYPE_CHECKING:
    from collections.abc import Sequence

SUBCOMMANDS = {
    "help": "show the choices, their keys and examples",
    "plugins": "list the installed plugins and the status of each",
    "doctor": "report what works on this machine, what doesn't, and how to fix it",
    "models": "list published weights that can be opened by name, with length, tasks, licence and address",
    "runs": "list the runs, and how far each got",
    "serve": "answer requests over HTTP with a model: task=serve as a command",
    "cluster": "group similar sequences of a FASTA file, for a split without leakage",
    "new-plugin": "write a working plugin as a starting point for your own",
    "check-plugin": "check an installed plugin with the conformance kit",
    "completion": "print a script that completes choices and keys in your shell",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    typed = list(sys.argv[1:] if arguments is None else arguments)
    with EndOnSignals():
        from bionemo_core.cli.failures import ExitStatus
        from bionemo_core.cli.log import log_to_stderr
        from bionemo_core.errors import ConfigError
        from bionemo_core.io.std_streams import guard
        from bionemo_core.training.signals import StopSignal

        guard()
        stop = StopSignal(remember=False)
        with ExitStatus() as status, log_to_stderr():
            stop.install()
            subcommand, rest = _subcommand(typed)
            if subcommand == "version":
                from bionemo_core import __version__

                sys.stdout.write(f"bionemo-run {__version__}\n")
            else:
                status.value = import_module(f"bionemo_core.cli.{subcommand.replace('-', '_')}").run(rest)
            if not typed:
                raise ConfigError("nothing to do. Give a model, e.g. bionemo-run model=esm1nv_tiny")
        if stop.requested is None:  # else a second signal would end the process before its status is known
            stop.restore()
        return status.value


def _subcommand(typed: list[str]) -> tuple[str, list[str]]:
    """Return the module that answers a command line, and the arguments for it."""
    if not typed:
        return "help", []
    first, rest = typed[0], typed[1:]
    if first == "--version":
        return "version", []
    if first == "serve":
        return ("help", ["task=serve"]) if {"-h", "--help"} & set(rest) else ("run", ["task=serve", *rest])
    if first in SUBCOMMANDS:
        return ("help", [first]) if {"-h", "--help"} & set(rest) else (first, rest)
    if {"-h", "--help"} & set(typed):
        return "help", [argument for argument in typed if not argument.startswith("-")]
    return "run", typed
