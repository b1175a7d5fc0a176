"""One rank of a run that the kit starts: `python -m bionemo_core.testing.rank run.json`."""

import sys
from pathlib import Path

from bionemo_core.builtin import load_registry
from bionemo_core.config.spec import from_json


def main() -> None:
    """Train the run that the file describes."""
    from bionemo_core.tasks.train import train

    train(from_json(Path(sys.argv[1]).read_text()), load_registry())


if __name__ == "__main__":
    main()
