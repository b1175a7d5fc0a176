"""The model card of a converted run: every fact in it is that of the run, and its lines open the folder."""

import csv
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from bionemo_core import cli
from bionemo_core.interop.connector import Reading
from bionemo_esm.connector import EsmHuggingFace

transformers = pytest.importorskip("transformers")

SMALL = (
    *("model=esm2_8m", "model.num_layers=2", "model.hidden_size=40", "model.num_attention_heads=4"),
    *("model.seq_length=64", "batch.seq_length=64", "batch.micro_batch_size=2", "batch.num_workers=0"),
    *("trainer.max_steps=3", "trainer.val_check_interval=2", "checkpoint.every_n_steps=2", "seed=4321"),
    *("trainer.limit_val_batches=1", "trainer.limit_test_batches=1", "trainer.log_every_n_steps=1"),
    *("trainer.accelerator=cpu", "trainer.num_threads=1", "trainer.progress_bar=false", "task.do_testing=true"),
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("home")
    (home / "secret place").mkdir()
    (home / "secret place" / "mine.fasta").write_text(
        "".join(f">p{i}\n{'MKTAYIAKQR' * (2 + i % 3)}{'ACDEFGHIKL'[i % 10]}\n" for i in range(60))
    )
    data = ("data=fasta", f"data.path='{home}/secret place/mine.fasta'", "data.val_size=8", "data.test_size=8")
    assert cli.main([*SMALL, *data, "name=first", f"home={home}"]) == 0
    return next((home / "runs" / "first").iterdir())


def convert(source: Path, target: Path, *more: str) -> str:
    arguments = ["task=convert", f"restore_from_path={source}", "task.to=huggingface", f"task.output={target}"]
    assert cli.main([*arguments, *more]) == 0
    return (target / "README.md").read_text()


def header_of(card: str) -> dict[str, Any]:
    return yaml.safe_load(card.split("---\n")[1])


def rows_of(card: str) -> dict[str, str]:
    return dict(re.findall(r"^\| ([^|]+) \| (.+) \|$", card, re.MULTILINE))


def test_every_fact_is_that_of_the_run(run: Path, tmp_path: Path) -> None:
    card = convert(run, tmp_path / "mine", "task.license=apache-2.0")
    assert header_of(card) == {
        "library_name": "transformers",
        "tags": ["bionemo-run", "esm"],
        "pipeline_tag": "fill-mask",
        "license": "apache-2.0",
    }
    rows = rows_of(card)
    manifest = json.loads((run / "checkpoints" / "step-00000003" / "manifest.json").read_text())
    model = transformers.EsmForMaskedLM.from_pretrained(tmp_path / "mine")
    logged = list(csv.DictReader((run / "metrics.csv").read_text().splitlines()))
    assert rows["run"] == "first" and rows["steps"] == "3" and rows["seed"] == "4321"
    assert rows["sequences"] == logged[-1]["consumed_samples"].removesuffix(".0")
    assert rows["fingerprint of the data"] == manifest["facts"]["data_fingerprint"]
    assert "mine.fasta" in rows["data"] and "secret" not in card and str(tmp_path) not in card
    for metric in ("reduced_train_loss", "val_loss", "test_loss"):
        last = [row[metric] for row in logged if row[metric]][-1]
        assert float(rows[metric]) == pytest.approx(float(last), rel=1e-5)
    assert rows["num_layers"] == "2" and rows["hidden_size"] == "40"
    shared = sum(one.numel() for name, one in model.named_parameters() if "contact_head" not in name)
    assert rows["numbers"] == f"{shared:,}"
    assert f"({shared:,} numbers) are equal" in card


def test_of_an_earlier_checkpoint_the_metrics_are_its_own(run: Path, tmp_path: Path) -> None:
    rows = rows_of(convert(run / "checkpoints" / "step-00000002", tmp_path / "earlier"))
    logged = {row["step"]: row for row in csv.DictReader((run / "metrics.csv").read_text().splitlines())}
    assert rows["steps"] == "2" and "test_loss" not in rows
    assert float(rows["reduced_train_loss"]) == pytest.approx(float(logged["2"]["reduced_train_loss"]), rel=1e-5)


def test_its_lines_open_the_folder(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    card = convert(run, tmp_path / "mine")
    monkeypatch.chdir(tmp_path)
    opened: dict[str, Any] = {}
    exec(re.findall(r"```python\n(.*?)```", card, re.DOTALL)[0], opened)
    masked = opened["tokenizer"]("MKTAY<mask>AKQR", return_tensors="pt")
    assert opened["model"](**masked).logits.shape == (1, 12, 33)
    (command,) = re.findall(r"```sh\nbionemo-run (.*?)\n```", card)
    (tmp_path / "p.fasta").write_text(">p\nMKTAYIAKQR\n")
    assert cli.main([*command.replace("FILE", "p.fasta").split(), "trainer.accelerator=cpu"]) == 0
    assert (tmp_path / "embeddings.npz").is_file()


def test_what_is_not_known_is_left_out(run: Path, tmp_path: Path) -> None:
    convert(run, tmp_path / "first")
    card = convert(tmp_path / "first", tmp_path / "second")
    assert "license" not in header_of(card)
    assert "The source, first (huggingface), records nothing about its training." in card
    assert not {"run", "steps", "data", "val_loss"} & set(rows_of(card))


def test_a_folder_that_reads_back_differently_does_not_appear(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def read(self: Any, source: Any, right: Any = EsmHuggingFace.read) -> Reading:
        reading = right(self, source)
        reading.tensors["head.dense.bias"][3] += 1e-6
        return reading

    monkeypatch.setattr(EsmHuggingFace, "read", read)
    arguments = ["task=convert", f"restore_from_path={run}", "task.to=huggingface", f"task.output={tmp_path}/bad"]
    assert cli.main(arguments) == 4
    assert "tensor 'head.dense.bias' is different" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("task.to=huggingface", "task.license='Apache 2'"), "task.license: got 'Apache 2'"),
        (("task.license=mit",), "Set task.to=huggingface"),
    ],
)
def test_a_licence_that_cannot_be_stated(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], more: tuple[str, ...], said: str
) -> None:
    arguments = ["task=convert", f"restore_from_path={run}", f"task.output={tmp_path}/none", *more]
    assert cli.main(arguments) == 2
    assert said in capsys.readouterr().err
