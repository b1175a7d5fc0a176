"""`examples/bionemo-oas`: its reader trains and embeds on data units as they are downloaded, and passes the kit."""

import gzip
import shutil
from pathlib import Path

import numpy as np
import pytest
from documents import PROJECT, pass_own_tests, pretend_installed, python_path
from runs import Home

from bionemo_core.errors import DataError

ABOUT = '"{""Run"": ""ERR1"", ""Species"": ""human""}"'
FRAME = "EVQLVESGGGLVQPGGSLRLSCAASGFTFS"
UNPAIRED = [
    "locus,productive,sequence_alignment_aa",
    *(f"H,{'TF'[n % 5 == 4]},{FRAME[n:]}-{FRAME[:n]}" for n in range(20)),
]
PAIRED = [
    "sequence_id_heavy,productive_heavy,sequence_alignment_aa_heavy,sequence_id_light,sequence_alignment_aa_light",
    f"one,T,{FRAME},two,{FRAME[::-1]}",
]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("oas") / "site"
    shutil.copytree(PROJECT / "examples/bionemo-oas", folder)
    pretend_installed(folder)
    return folder


def write(path: Path, *rows: str) -> Path:
    with gzip.open(path, "wt") as file:
        file.write("\n".join([ABOUT, *rows]) + "\n")
    return path


def test_units_are_trained_on_and_embedded(home: Home, site: Path, tmp_path: Path) -> None:
    unpaired, paired = write(tmp_path / "u.csv.gz", *UNPAIRED), write(tmp_path / "p.csv.gz", *PAIRED)
    plugins = {"PYTHONPATH": python_path(site), "BIONEMO_LOAD_PLUGINS": "bionemo-esm,bionemo-oas"}
    data = ("data=records", "data.format=oas", f"data.path={unpaired}", "data.val_size=2", "scheduler=constant")
    short = (
        "trainer.max_steps=2",
        "trainer.val_check_interval=2",
        "batch.micro_batch_size=1",
        "~scheduler.warmup_steps",
    )
    run = home.finish("name=antibodies", *data, *short, **plugins)
    assert "not productive 4" in run.output()
    output = tmp_path / "out.npz"
    asked = (
        "task=embed",
        "name=embedded",
        f"restore_from_path={run.folder}",
        f"task.input={paired}",
        "task.format=oas",
    )
    embedded = home.task(*asked, f"task.output={output}", **plugins)
    assert embedded.wait() == 0, embedded.output()
    with np.load(output) as found:
        assert found["ids"].tolist() == ["one", "two"]
        assert found["lengths"].tolist() == [len(FRAME)] * 2


def test_the_kit_passes_and_the_plugin_is_as_small_as_it_says(home: Home, site: Path) -> None:
    lines = [line for path in (site / "bionemo_oas").glob("*.py") for line in path.read_text().splitlines()]
    assert len(lines) < 80
    pass_own_tests(home, site)


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (["locus,productive", "H,T"], "the header has no column sequence_alignment_aa"),
        (["locus,sequence_alignment_aa", 'H,"' + "A" * 200_000], "field larger than field limit"),
    ],
)
def test_what_is_no_unit_is_said(site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows, words: str) -> None:
    monkeypatch.syspath_prepend(site)
    from bionemo_oas.reader import OasReader

    with gzip.open(write(tmp_path / "x.csv.gz", *rows)) as stream, pytest.raises(DataError, match=words):
        list(OasReader().records(stream, "oas: x.csv.gz"))
