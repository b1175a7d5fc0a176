"""The dataset of the documentation, in a plugin of its own, is drawn from by a run."""

import os

from documents import PROJECT, pretend_installed, write_named_blocks
from runs import read_metrics


def test_the_dataset_of_the_documentation_trains(home, tmp_path):
    assert write_named_blocks(PROJECT / "docs/data.md", tmp_path) == ["pyproject.toml", "bionemo_peptides/__init__.py"]
    pretend_installed(tmp_path)
    environment = {"PYTHONPATH": os.fspath(tmp_path), "BIONEMO_LOAD_PLUGINS": "bionemo-esm,bionemo-peptides"}
    run = home.finish(
        "name=peptides",
        "model=esm1nv_tiny",
        "tokenizer=letters",
        "data=peptides",
        "data.length=12",
        "trainer.max_steps=3",
        "trainer.val_check_interval=3",
        **environment,
    )
    assert "peptides: 45 train, 9 val" in run.output()
    assert list(read_metrics(run.folder)) == [1, 2, 3]
