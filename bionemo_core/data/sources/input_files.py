"""The way from the files that a user names to prepared splits."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import urlsplit
from urllib.request import url2pathname

from bionemo_core.data.readers import Source, detect_format, source_for
from bionemo_core.data.readers.key_names import DATA_KEYS, KeyNames
from bionemo_core.data.readers.tables import match_column, read_column_names
from bionemo_core.data.sources.shard_ranges import expand_range
from bionemo_core.data.splits.labels import TABLES
from bionemo_core.data.splits.options import SplitOptions
from bionemo_core.data.splits.shared import warn_of_shared_sequences
from bionemo_core.data.store.prepare import home_folder, prepare
from bionemo_core.data.store.record_store import PreparedStore
from bionemo_core.data.store.report import summary
from bionemo_core.data.store.residue_filter import RecordFilter
from bionemo_core.errors import ConfigError, DataError
from bionemo_core.io.download import cache_folder, fetch, name_of
from bionemo_core.io.hashing import fingerprint_of
from bionemo_core.protocols import BuildContext, DataSplits

_SHARED_ROWS = "Set data.deduplicate=true to use each sequence once."
_SHARED_FILES = "Remove them from one of the files."
_ALL_SHARDS = "x[000..049]"
"""The default of the keys of shards."""
_RANGE_MARKS = ("..", "_OP_", "_CL_")


def find_files(names: Any, key: str, context: BuildContext) -> list[Path]:
    """Find the files that a key names, and download those with an address; each must exist and be named once.

    Args:
        names: a file, a range, a pattern with `*`, `?` or `**`, a URL, or a list of these.
        key: the key, for messages.
        context: has the folder for downloads.

    Raises:
        ConfigError: the value is none of these, or names a file twice.
        DataError: a file does not exist.
        NetworkError: a download failed.
    """
    texts = [names] if isinstance(names, str) else names
    if not isinstance(texts, list | tuple) or not texts or not all(isinstance(text, str) for text in texts):
        raise ConfigError(f"{key}: {names!r} names no file. Give a file, a range, a pattern or a list of these.")
    paths = [path for text in texts for path in _expand(text, key, context)]
    for number, path in enumerate(paths):
        if path in paths[:number]:
            raise ConfigError(f"{key}: {path} is named twice. Name it once.")
    return paths


def _expand(text: str, key: str, context: BuildContext) -> list[Path]:
    if "://" in text and not text.startswith("file://"):
        return [download_file(text, context)]
    path = Path(url2pathname(urlsplit(text).path) if "://" in text else text).expanduser()
    if path.is_dir():
        raise ConfigError(f"{key}: {path} is a folder. Name its files, as in {key}='{path}/*.EXTENSION'.")
    if path.exists():
        return [path]
    if "*" in text or "?" in text:
        pattern = str(path.relative_to(path.anchor))
        matches = sorted(match for match in Path(path.anchor).glob(pattern) if match.is_file())
        if not matches:
            raise DataError(f"{key}: no file matches {path}. Check the pattern.")
        return matches
    if any(mark in path.name for mark in _RANGE_MARKS):
        return expand_range(path.parent, path.name, key)
    raise DataError(f"{key}: {path}: cannot be read (there is no such file). Check the path.")


def download_file(url: str, context: BuildContext) -> Path:
    """Download the file at `url` to the home folder, unless it is there.

    Raises:
        ConfigError: the address cannot be used.
        NetworkError: the download failed.
    """
    return fetch(url, cache_folder(home_folder(context), url) / name_of(url))


SEQUENCE = "sequence"
"""The column of the sequences if none is named."""
V1_COLUMN = 3
"""The number of that column in v1's shards, which `data=csv` reads unless told otherwise."""


@dataclass(frozen=True)
class FileOptions:
    """The options for reading the files of one source; the names are the keys of the data components."""

    format: str | None = None
    data_col: int | None = None
    column: str | None = None
    id_column: str | None = None
    header_lines: int | None = None
    data_sep: str | None = None
    ids_elsewhere: bool = False
    """Whether the id column belongs to the separate file of splits."""
    of_proteins: ClassVar[bool] = True
    """Whether a column of the name `sequence` is the one to read."""

    @property
    def keys(self) -> KeyNames:
        """The names of the keys in messages."""
        return DATA_KEYS

    def detect_format(self, paths: list[Path]) -> str:
        """Return the format of the files.

        Raises:
            ConfigError: the extensions do not name one format.
        """
        return self.format or detect_format(paths)

    def source(self, paths: list[Path], columns: tuple[str, ...] = ()) -> Source:
        """Make the reader of some files.

        Raises:
            ConfigError: the format or an option cannot be used.
        """
        name = self.detect_format(paths)
        options: dict[str, Any] = {"columns": columns} if columns else {}
        keys = self.keys._replace(further={**dict.fromkeys(columns, "data.split_column"), **self.keys.further})
        if name not in TABLES:
            self._refuse(name, ("data_col", "column", "header_lines", "data_sep"))
            if not self.ids_elsewhere:
                self._refuse(name, ("id_column",))
            return source_for(paths, name, self.keys, **options)
        if self.id_column is not None and not self.ids_elsewhere:
            options["id_column"] = self.id_column
        options["column"] = self.column or SEQUENCE
        if name == "parquet":
            self._refuse(name, ("data_col", "header_lines", "data_sep"))
            return source_for(paths, name, keys, **options)
        if self.column is None and self.data_col is not None:
            options["column"] = self.data_col
            if self.of_proteins and self.data_col == V1_COLUMN and self.header_lines != 0:
                self._check_v1_column(paths[0], name)
        if self.header_lines is not None:
            options["header_lines"] = self.header_lines
        if self.data_sep is not None:
            options["separator"] = self.data_sep
        return source_for(paths, name, keys, **options)

    def _check_v1_column(self, path: Path, kind: str) -> None:
        """Check that a header does not name another column as that of the sequences than the default of `data=csv`.

        Raises:
            DataError: it does, or it cannot be read.
        """
        names = read_column_names(path, kind, self.data_sep, self.header_lines or 1)
        if not match_column(names[V1_COLUMN : V1_COLUMN + 1], SEQUENCE) and (found := match_column(names, SEQUENCE)):
            own = names[V1_COLUMN] if len(names) > V1_COLUMN else "absent"
            raise DataError(
                f"{kind}: {path}: data.data_col is {V1_COLUMN}, counted from 0, which is {own!r}, but the header has a "
                f"column {names[found[0]]!r}. Choose the one to read by its name: data.column={names[found[0]]}."
            )

    def _refuse(self, format_name: str, keys: tuple[str, ...]) -> None:
        given = [key for key in keys if getattr(self, key) is not None]
        if given:
            raise ConfigError(f"data.{given[0]}: does not apply to {format_name} files. Remove it.")


@dataclass(frozen=True)
class NamedFiles:
    """The files of each split that the keys of a component name."""

    files: Mapping[str, Any]
    """The value for `train`, and for `val` and `test` if they have their own files."""
    folder: Path | None = None
    """The folder with a folder for each split, in which `files` are names."""

    @classmethod
    def of(
        cls, path: Any, val_path: Any, test_path: Any, dataset_path: str | None, shards: Mapping[str, str]
    ) -> "NamedFiles":
        """Make the files from the paths, or from `dataset_path` and its shards.

        Raises:
            ConfigError: both `path` and `dataset_path` are given, or neither; or shards without their folder.
        """
        if (path is None) == (dataset_path is None):
            given = "neither is given" if path is None else "both are given"
            raise ConfigError(
                f"data.path and data.dataset_path: {given}. Give data.path=FILE, or data.dataset_path=FOLDER with "
                "train, val and test in it."
            )
        own = {"val": val_path, "test": test_path}
        if dataset_path is None:
            if unread := [split for split, text in shards.items() if text != _ALL_SHARDS]:
                raise ConfigError(
                    f"data.{unread[0]}: names shards of data.dataset_path, and here data.path is the data. Leave it "
                    "out; other files to validate and test on are data.val_path and data.test_path."
                )
            return cls({"train": path} | {split: names for split, names in own.items() if names})
        for split, names in own.items():
            if names:
                raise ConfigError(
                    f"data.{split}_path: data.dataset_path has its own {split} split. Use data.{split} instead."
                )
        if not shards["train"]:
            raise ConfigError("data.train: got '', expected shards. Give a range such as x[000..049].")
        return cls({split: text for split, text in shards.items() if text}, Path(dataset_path).expanduser())

    def paths(self, split: str, context: BuildContext) -> list[Path]:
        """Find the files of a split.

        Raises:
            ConfigError: the value names no files.
            DataError: a file is missing.
        """
        if self.folder is not None:
            return expand_range(self.folder / split, self.files[split], f"data.{split}")
        key = "data.path" if split == "train" else f"data.{split}_path"
        return find_files(self.files[split], key, context)


def prepare_splits(
    named: NamedFiles, files: FileOptions, rules: RecordFilter, split_options: SplitOptions, context: BuildContext
) -> DataSplits:
    """Prepare the stores of the named files, and split them.

    Raises:
        ConfigError: an option contradicts another one, or nothing is left to train on.
        DataError: a file is missing or cannot be read, or the rules treat a record as an error.
    """
    own = tuple(split for split in named.files if split != "train")
    if named.folder is None:
        split_options.check(own)
    elif split_options != SplitOptions(id_column=split_options.id_column, split_seed=split_options.split_seed):
        raise ConfigError("data.dataset_path: its folders are the splits. Remove the other keys that split.")
    paths = {split: named.paths(split, context) for split in named.files}
    columns = () if named.folder else split_options.columns(files.detect_format(paths["train"]))
    stores: dict[str, PreparedStore] = {}
    for split, split_paths in paths.items():
        stores[split] = prepare(files.source(split_paths, columns if split == "train" else ()), rules, context)
    if named.folder is not None:
        fingerprint = fingerprint_of({split: store.fingerprint for split, store in stores.items()})
        warn_of_shared_sequences(stores, _SHARED_FILES)
        return DataSplits(stores["train"], stores.get("val"), stores.get("test"), fingerprint)
    try:
        parts = split_options.indices(stores["train"], own, windowed=getattr(rules, "on_long", None) == "window")
    except ConfigError as error:
        if not stores["train"].manifest["records"]["rejected"]:
            raise
        raise ConfigError(f"{error} {summary(stores['train'].manifest)}.") from None  # few may be left of many
    split_options.warn_of_shared_clusters(stores["train"], parts, {split: stores[split] for split in own})
    splits = parts.of(stores["train"], stores.get("val"), stores.get("test"))
    if own or not rules.deduplicate:
        named_splits = {"train": splits.train, "val": splits.val, "test": splits.test}
        warn_of_shared_sequences(named_splits, _SHARED_FILES if own else _SHARED_ROWS)
    return splits
