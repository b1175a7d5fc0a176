"""Another process that builds a dataset: `python -m bionemo_core.testing.records_seen JSON` prints what it sees."""

import json
import sys
from pathlib import Path

from bionemo_core.testing.datasets import build_splits, records_seen, tokenizer_for
from bionemo_core.testing.subject import KitSettings, Subject


def main() -> None:
    """Print the records of the dataset that the argument names: its plugin, name, parameters and folder."""
    plugin, name, parameters, folder = json.loads(sys.argv[1])
    subject = Subject(KitSettings(plugin, parameters=parameters), Path(folder))
    registered = subject.component("data", name)
    splits = build_splits(subject, registered, tokenizer_for(subject, registered), "elsewhere")
    sys.stdout.write(f"{json.dumps(records_seen(splits))}\n")


if __name__ == "__main__":
    main()
