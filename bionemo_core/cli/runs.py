"""`bionemo-run runs [NAME] [home=DIR]`: lists the runs, how far each got, and which can be resumed."""

import csv
import json
import os
import sys
from pathlib import Path

from bionemo_core.errors import ConfigError
from bionemo_core.plugins.did_you_mean import did_you_mean

COLUMNS = ("name", "started", "model", "step", "val_loss", "status")


def run(arguments: list[str]) -> int:
    """Print one line for each run under `home`, oldest first; with a name, only the runs of that name.

    Raises:
        ConfigError: an argument is neither one name nor `home=DIR`.
    """
    home = os.environ.get("BIONEMO_HOME", "~/.bionemo")
    names: list[str] = []
    for argument in arguments:
        if argument.startswith("home="):
            home = argument.removeprefix("home=")
        elif argument.startswith("-") or "=" in argument or names:
            raise ConfigError(f"runs: unknown argument {argument!r}. Usage: bionemo-run runs [NAME] [home=DIR]")
        else:
            names.append(argument)
    root = Path(home).expanduser() / "runs"
    folders = sorted(path.parent for path in root.glob(f"{names[0] if names else '*'}/*/run.json"))
    if not folders:
        others = sorted({path.parent.parent.name for path in root.glob("*/*/run.json")})
        of_name = f" of the name {names[0]}" if names else ""
        sys.stdout.write(f"No runs{of_name} in {root}.{did_you_mean(names[0], others) if names else ''}\n")
        return 0
    rows = [COLUMNS, *(describe_run(folder) for folder in folders)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(COLUMNS))]
    for row in rows:
        sys.stdout.write("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() + "\n")
    return 0


def describe_run(folder: Path) -> tuple[str, ...]:
    """Return the cells of one run's line; unreadable values are shown as `?` or `-`, so a bad folder is no error."""
    spec = _json(folder / "run.json")
    summary = _json(folder / "summary.json")
    last = _last_values(folder / "metrics.csv")
    chosen = spec.get("model")
    model = str(chosen.get("name", "?")) if isinstance(chosen, dict) else "?"
    saved = _saved_steps(folder / "checkpoints")
    # A killed run has no summary; its metrics and checkpoints show how far it got.
    step = summary.get("steps", last.get("step", "-"))
    losses = summary.get("val_loss")
    loss = losses.get("last") if isinstance(losses, dict) else last.get("val_loss", "-")
    # The summary of any other task than training has no status. It is written last, so the run is done.
    status = (
        summary.get("status")
        or ("done" if summary else "")
        or (f"unfinished, saved at step {max(saved)}" if saved else "unfinished, nothing saved")
    )
    return (folder.parent.name, folder.name, model, str(step), _short(loss), str(status))


def _json(path: Path) -> dict[str, object]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _last_values(path: Path) -> dict[str, str]:
    """Return the newest value of each column of `metrics.csv`; a row may leave columns empty."""
    newest: dict[str, str] = {}
    try:
        with path.open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                newest.update({key: value for key, value in row.items() if key and value})
    except (OSError, ValueError, csv.Error):
        return newest
    return newest


def _saved_steps(checkpoints: Path) -> list[int]:
    names = [path.name.removeprefix("step-") for path in checkpoints.glob("step-*")]
    return [int(name) for name in names if name.isdigit()]


def _short(value: object) -> str:
    try:
        return f"{float(str(value)):.4f}"
    except ValueError:
        return "-"
