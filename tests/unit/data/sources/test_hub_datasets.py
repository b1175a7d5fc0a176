"""`data=huggingface`: a local dataset through the library `datasets`, read by the core's own components."""

from pathlib import Path
from typing import Any

import pytest

from bionemo_core.builtin import load_registry
from bionemo_core.config.schema import Choice
from bionemo_core.data.tokenizer import CharacterTokenizer
from bionemo_core.errors import ConfigError, DataError, NetworkError
from bionemo_core.protocols import BuildContext, DataSplits

datasets = pytest.importorskip("datasets")

ROWS = [("MKVL", "stable", 1.25), ("MKLA", "unstable", 0.1), ("GGAV", "stable", -3.0), ("LLAV", "stable", 7.0)]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A dataset folder as people publish them: a table for each split."""
    made = tmp_path / "dataset"
    made.mkdir()
    for name, rows in (("train", ROWS), ("validation", ROWS[:1])):
        lines = [f"{number},{seq},{label},{value}\n" for number, (seq, label, value) in enumerate(rows)]
        (made / f"{name}.csv").write_text("number,seq,label,value\n" + "".join(lines))
    return made


@pytest.fixture
def build(tokenizer: CharacterTokenizer, context: BuildContext) -> Any:
    def built(dataset: object, **params: Any) -> DataSplits:
        choice = Choice("data", "huggingface", {"dataset": str(dataset), **params})
        return load_registry().build(choice, tokenizer=tokenizer, context=context)

    return built


RECORDS = {"data": "records", "column": "seq", "id_column": "number", "val_size": 1, "test_size": 1}


def test_proteins_of_a_folder_are_prepared_once(build: Any, folder: Path, context: BuildContext) -> None:
    splits = build(folder, source=RECORDS)
    assert [len(one) for one in (splits.train, splits.val, splits.test)] == [2, 1, 1]
    parts = (splits.train, splits.val, splits.test)
    assert sorted(name for one in parts for name in one.ids()) == ["0", "1", "2", "3"]
    assert sorted(one[row].decode() for one in parts for row in range(len(one))) == sorted(row[0] for row in ROWS)
    tables = list(Path(context.home).glob("datasets/*/train/x000.csv"))
    assert len(tables) == 1 and tables[0].read_text().splitlines()[1] == "0,MKVL,stable,1.25"
    written = tables[0].stat().st_mtime_ns
    assert build(folder, source=RECORDS).fingerprint == splits.fingerprint
    assert tables[0].stat().st_mtime_ns == written
    (folder / "train.csv").write_text("number,seq,label,value\n" + "7,MMMM,stable,0.5\n" * 2)
    assert build(folder, source={**RECORDS, "val_size": 0, "test_size": 0}).train.ids() == ["7"]
    (folder / "train.csv").write_text("number,seq,label,value\n" + tables[0].read_text().partition("\n")[2])
    own = build(folder, val_split="validation", source={**RECORDS, "val_size": None, "test_size": 0})
    assert (len(own.train), len(own.val), own.test) == (4, 1, None)
    part = build(folder, split="train[:50%]", source={**RECORDS, "val_size": 0, "test_size": 0})
    assert len(part.train) == 2


def test_classes_and_letters_become_labels(build: Any, tmp_path: Path) -> None:
    features = datasets.Features(
        {
            "sequence": datasets.Value("string"),
            "kind": datasets.ClassLabel(names=["stable", "unstable"]),
            "states": datasets.List(datasets.ClassLabel(names=["H", "E"])),
            "spread": datasets.List(datasets.Value("float32")),
        }
    )
    rows = {
        "sequence": [row[0] for row in ROWS],
        "kind": [["stable", "unstable"].index(row[1]) for row in ROWS],
        "states": [[0, 1, 1, 0]] * 4,
        "spread": [[0.5]] * 4,
    }
    whole = datasets.Dataset.from_dict(rows, features=features)
    datasets.DatasetDict(train=whole, val=whole.select([0])).save_to_disk(str(tmp_path / "stored"))
    source = {"data": "labelled_csv", "target_column": "kind", "test_fraction": 0.0}
    splits = build(tmp_path / "stored", val_split="val", source=source)
    assert list(splits.train.labels) == ["stable", "unstable", "stable", "stable"] and len(splits.val) == 1
    letters = {**source, "target_column": "states", "val_fraction": 0.25}
    splits = build(tmp_path / "stored", columns=["sequence", "states"], source=letters)
    assert set(splits.train.labels) == {"HEEH"}
    with pytest.raises(DataError, match=r"spread: expected lists of single letters or digits, got '0\.5'"):
        build(tmp_path / "stored", columns=["sequence", "spread"], source=letters)
    with pytest.raises(ConfigError, match=r"data\.val_split: .* has no split 'test', it has train, val"):
        build(tmp_path / "stored", val_split="test", source=source)


@pytest.mark.parametrize(
    ("params", "error", "message"),
    [
        ({"split": "tran"}, ConfigError, r"data\.split=tran: Unknown split \"tran\""),
        ({"val_split": "dev"}, ConfigError, r"data\.val_split=dev: Unknown split"),
        ({"config": "nope"}, ConfigError, r"data\.config: BuilderConfig 'nope' not found"),
        ({"columns": ["seq", "none"]}, ConfigError, r"data\.columns: there is no 'none'. Name some of number, seq"),
        ({"source": "sample"}, ConfigError, r"data\.source: sample reads no tables"),
        ({"source": {"data": "records", "column": "x"}}, DataError, "x000.csv.*'x'"),
        ({"dataset": "owner/none"}, NetworkError, r"data\.dataset: owner/none: Couldn't reach"),
    ],
)
def test_a_failure_names_the_key(
    build: Any, folder: Path, params: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        build(params.pop("dataset", folder), **{"source": RECORDS, **params})


def test_without_the_library(build: Any, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "datasets", None)
    with pytest.raises(ConfigError, match="needs the extra `datasets`: pip install datasets"):
        build(folder)
