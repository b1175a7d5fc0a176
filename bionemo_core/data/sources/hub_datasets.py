"""The data component `huggingface`: a dataset of the Hugging Face hub, or a folder of one, read by another component.

No `from __future__ import annotations` and no unions but `Optional` here: the configuration reads this signature. The
library `datasets` is imported in the bodies.
"""

import csv
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Optional

from bionemo_core.errors import ConfigError, DataError, NetworkError
from bionemo_core.protocols import BuildContext, DataSplits, Tokenizer

log = logging.getLogger("bionemo")

_SPLIT_KEYS = {"train": "split", "val": "val_split", "test": "test_split"}
_TABLE = "x000.csv"
_BATCH_ROWS = 1000


# Long: a signature that is its keys, and their help.
def huggingface(
    dataset: str,
    config: Optional[str] = None,
    revision: Optional[str] = None,
    split: str = "train",
    val_split: Optional[str] = None,
    test_split: Optional[str] = None,
    columns: Optional[list[str]] = None,
    source: Any = "records",
    *,
    tokenizer: Tokenizer,
    context: BuildContext,
    registry: Any,
) -> DataSplits:
    """Read a dataset of Hugging Face's `datasets`; its splits become tables, which another data component reads.

    Args:
        dataset: OWNER/NAME of the hub, or a folder of files or of `save_to_disk`.
        config: the configuration of the dataset, if it has several.
        revision: a branch, tag or commit; a commit gives the same data at any time.
        split: the split to train on, such as `train` or `train[:10%]`.
        val_split: the split for validation; null: a part of `split`, as `source` cuts it.
        test_split: the split for testing; null: likewise.
        columns: the columns to keep; null: all of text, numbers and classes. A list of single letters or digits, one
            for each residue, is joined if its column is named here.
        source: the data component that reads the tables: a name, or `{data: NAME, KEY: VALUE}` with its keys, such as
            the names of columns.

    Raises:
        ConfigError: the library is missing, the dataset has no such configuration, split or column, or `source` does
            not read tables.
        DataError: the dataset cannot be read.
        NetworkError: the hub does not give it.
    """
    from bionemo_core.data.sources.blend import build_source

    part = dict(source) if isinstance(source, Mapping) else {"data": source}
    found = registry.get("data", part.get("data", ""))
    keys = {key.name for key in found.keys}
    if not keys & {"path", "dataset_path"} or found.name == "fasta":
        raise ConfigError(
            f"data.source: {found.name} reads no tables. Choose records, labelled_csv, pairs or the like."
        )
    wanted = {name: text for name, text in zip(_SPLIT_KEYS, (split, val_split, test_split), strict=True) if text}
    tables = _export(wanted, dataset, config, revision, columns, context)
    return build_source("data.source", {**part, **_paths(tables, keys)}, registry, tokenizer, context)


def _paths(tables: Mapping[str, Path], keys: set[str]) -> dict[str, str]:
    """Return the keys that name the tables for a component that has `path`, or v1's `dataset_path`."""
    if "path" in keys:
        return {"path" if name == "train" else f"{name}_path": str(path) for name, path in tables.items()}
    if len(tables) == 1:
        return {"dataset_path": str(tables["train"])}
    shards = {name: "x000" if name in tables else "" for name in _SPLIT_KEYS}
    return {"dataset_path": str(tables["train"].parents[1]), **shards}


def _export(
    splits: Mapping[str, str],
    dataset: str,
    config: Optional[str],
    revision: Optional[str],
    columns: Optional[list[str]],
    context: BuildContext,
) -> dict[str, Path]:
    """Write each split as a table, unless it was written before; return the paths."""
    from bionemo_core.data.store.prepare import home_folder
    from bionemo_core.io.atomic import new_folder
    from bionemo_core.io.hashing import fingerprint_of
    from bionemo_core.io.locks import lock_beside

    loaded = {name: _load(dataset, config, revision, text, _SPLIT_KEYS[name]) for name, text in splits.items()}
    facts = [[name, one._fingerprint] for name, one in loaded.items()]
    folder = home_folder(context) / "datasets" / fingerprint_of([facts, columns])
    with lock_beside(folder, "export"):
        if not folder.is_dir():
            with new_folder(folder) as temporary:
                for name, one in loaded.items():
                    (temporary / name).mkdir()
                    _write(temporary / name / _TABLE, one, columns, f"data.dataset: {dataset}")
    return {name: folder / name / _TABLE for name in loaded}


def _load(dataset: str, config: Optional[str], revision: Optional[str], split: str, key: str) -> Any:
    """Return a split of a dataset, by the library `datasets`; the code of a dataset is never run."""
    try:
        import datasets
    except ImportError as error:
        raise ConfigError("data=huggingface: needs the extra `datasets`: pip install datasets.") from error
    folder = Path(dataset).expanduser()
    with _explained(dataset, split, key), _bars_on_terminals_only(datasets):
        if any((folder / name).is_file() for name in ("dataset_dict.json", "state.json")):
            stored = datasets.load_from_disk(str(folder))
            if isinstance(stored, datasets.DatasetDict):
                if split not in stored:
                    raise ConfigError(f"data.{key}: {dataset} has no split {split!r}, it has {', '.join(stored)}.")
                return stored[split]
            return stored
        name = str(folder) if folder.is_dir() else dataset
        return datasets.load_dataset(name, config, revision=revision, split=split)


@contextmanager
def _explained(dataset: str, split: str, key: str) -> Iterator[None]:
    try:
        yield
    except ConfigError:
        raise
    except Exception as error:  # the library raises what its readers do
        said = " ".join(str(error).split()).rstrip(".")[:400]
        kinds = {kind.__name__ for kind in type(error).__mro__}
        if "DatasetNotFoundError" in kinds:
            advice = "Check the name; for a private or gated dataset set HF_TOKEN, or log in with `hf auth login`."
            raise NetworkError(f"data.dataset: {said}. {advice}") from error
        if isinstance(error, ConnectionError | TimeoutError) or "HTTPError" in kinds:
            raise NetworkError(f"data.dataset: {dataset}: {said}.") from error
        if isinstance(error, ValueError) and ("split" in said or "BuilderConfig" in said or "Config name" in said):
            named = f"data.{key}={split}" if "split" in said else "data.config"
            raise ConfigError(f"{named}: {said}.") from error
        raise DataError(f"data.dataset: {dataset}: cannot be read: {said or type(error).__name__}.") from error


@contextmanager
def _bars_on_terminals_only(datasets: Any) -> Iterator[None]:
    import sys

    if sys.stderr.isatty() or not datasets.is_progress_bar_enabled():
        yield
        return
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        datasets.enable_progress_bars()


def _write(path: Path, split: Any, columns: Optional[list[str]], where: str) -> None:
    writers = {name: _writer(feature) for name, feature in split.features.items()}
    joined = {name for name, feature in split.features.items() if writers[name] is None and _is_list(feature)}
    chosen = columns or [name for name, writer in writers.items() if writer is not None]
    for name in chosen:
        if name not in writers:
            raise ConfigError(f"data.columns: there is no {name!r}. Name some of {', '.join(writers)}.")
        if writers[name] is None and name not in joined:
            raise ConfigError(f"data.columns: {name!r} holds {split.features[name]}, which is no text. Leave it out.")
    if left := sorted(writers.keys() - set(chosen)):
        log.info("%s: columns that are not used: %s.", where, ", ".join(left))
    with path.open("w", newline="", encoding="utf-8") as stream:
        table = csv.writer(stream, lineterminator="\n")
        table.writerow(chosen)
        for batch in split.select_columns(chosen).iter(batch_size=_BATCH_ROWS):
            texts = [
                [_join(value, split.features[name], f"{where}: {name}") for value in batch[name]]
                if (write := writers[name]) is None
                else ["" if value is None else write(value) for value in batch[name]]
                for name in chosen
            ]
            table.writerows(zip(*texts, strict=True))


def _writer(feature: Any) -> Optional[Callable[[Any], str]]:
    """Return what makes a text of a value; None if its type has none."""
    if hasattr(feature, "int2str"):  # ClassLabel
        return lambda value: feature.names[value] if value >= 0 else ""
    if type(feature).__name__ == "Value":
        return lambda value: repr(value) if isinstance(value, float) else str(value)
    return None


def _is_list(feature: Any) -> bool:
    return _writer(getattr(feature, "feature", None)) is not None


def _join(values: Any, feature: Any, where: str) -> str:
    write = _writer(feature.feature)
    assert write is not None
    letters = [write(value) for value in values or ()]
    if wrong := next((one for one in letters if len(one) != 1), None):
        raise DataError(f"{where}: expected lists of single letters or digits, got {wrong!r}. Leave the column out.")
    return "".join(letters)
