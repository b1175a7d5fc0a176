"""`bionemo-run plugins [--trace]`: lists every plugin, its status and the reason."""

import sys

from bionemo_core.builtin import load_registry
from bionemo_core.errors import ConfigError
from bionemo_core.plugins import PluginRecord

GROUP_ORDER = (
    "model",
    "tokenizer",
    "data",
    "connector",
    "callbacks",
    "head",
    "loss",
    "augmentation",
    "oracle",
    "reader",
    "optim",
    "scheduler",
    "logger",
    "task",
)


def run(arguments: list[str]) -> int:
    """Print the table; with `--trace`, also print the import time of each plugin and the tracebacks of failures.

    Raises:
        ConfigError: an argument is unknown.
    """
    trace = "--trace" in arguments
    for argument in arguments:
        if argument != "--trace":
            raise ConfigError(f"plugins: unknown argument {argument!r}. Usage: bionemo-run plugins [--trace]")
    records = load_registry().records
    width = max(len(f"{record.distribution} {record.version}") for record in records)
    for record in records:
        sys.stdout.write(_lines(record, width, trace))
    if len(records) == 1:
        sys.stdout.write(
            "No plugin is installed. Install one, for example: "
            "pip install -c constraints.txt -e . -e plugins/bionemo-esm\n"
        )
    return 0


def _lines(record: PluginRecord, width: int, trace: bool) -> str:
    seconds = f"  {record.seconds:.3f} s" if trace else ""
    lines = [f"{f'{record.distribution} {record.version}':<{width}}  {record.status:<12}  {record.module}{seconds}"]
    if record.reason:
        lines.append(f"    {record.reason}")
    for group in GROUP_ORDER:
        names = [one.name for one in record.components if one.group == group]
        if names:
            lines.append(f"    {group}: {', '.join(names)}")
    if trace and record.trace:
        lines += ["", *(f"    {line}" for line in record.trace.rstrip().splitlines()), ""]
    return "\n".join(lines) + "\n"
