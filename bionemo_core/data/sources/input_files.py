"""From the files that a user names to the prepared splits of them."""

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit
from urllib.request import url2pathname

from bionemo_core.data.readers import Source, detect_format, source_for
from bionemo_core.data.sources.shard_ranges import expand_range
from bionemo_core.data.splits.labels import TABLES
from bionemo_core.data.splits.options import SplitOptions
from bionemo_core.data.store.prepare import home_folder, prepare
from bionemo_core.data.store.record_store import PreparedStore, fingerprint_of
from bionemo_core.data.store.residue_filter import RecordFilter
from bionemo_core.errors import ConfigError, DataError
from bionemo_core.io.download import fetch
from bionemo_core.protocols import BuildContext, DataSplits

_RANGE_SIGNS = ("..", "_OP_", "_CL_")


def find_files(names: Any, key: str, context: BuildContext) -> list[Path]:
    """The files that a key names, each there and named once; what has an address is downloaded.

    Args:
        names: a file, a range, a pattern with `*`, `?` or `**`, an address, or a list of these.
        key: the key, for messages.
        context: where downloads live.

    Raises:
        ConfigError: it is none of these, or names a file twice.
        DataError: there is no such file.
        NetworkError: an address cannot be downloaded.
    """
    several = [names] if isinstance(names, str) else names
    if not isinstance(several, list | tuple) or not several or not all(isinstance(one, str) for one in several):
        raise ConfigError(f"{key}: {names!r} names no file. Give a file, a range, a pattern or a list of these.")
    paths = [path for text in several for path in _expanded(text, key, context)]
    for number, path in enumerate(paths):
        if path in paths[:number]:
            raise ConfigError(f"{key}: {path} is named twice. Name it once.")
    return paths


def _expanded(text: str, key: str, context: BuildContext) -> list[Path]:
    if "://" in text and not text.startswith("file://"):
        return [download_file(text, context)]
    path = Path(url2pathname(urlsplit(text).path) if "://" in text else text).expanduser()
    if path.is_dir():
        raise ConfigError(f"{key}: {path} is a folder. Name its files, as in {key}='{path}/*.EXTENSION'.")
    if path.exists():
        return [path]
    if "*" in text or "?" in text:
        pattern = str(path.relative_to(path.anchor))
        found = sorted(one for one in Path(path.anchor).glob(pattern) if one.is_file())
        if not found:
            raise DataError(f"{key}: no file is like {path}. Check the path.")
        return found
    if any(sign in path.name for sign in _RANGE_SIGNS):
        return expand_range(path.parent, path.name, key)
    raise DataError(f"{key}: {path}: cannot be read (there is no such file). Check the path.")


def download_file(url: str, context: BuildContext) -> Path:
    """The file behind an address, in the home folder from the first use on.

    Raises:
        ConfigError: the address is none that can be downloaded.
        NetworkError: it cannot be downloaded.
    """
    name = PurePosixPath(unquote(urlsplit(url).path)).name or "download"
    return fetch(url, home_folder(context) / "downloads" / sha256(url.encode()).hexdigest()[:16] / name)


@dataclass(frozen=True)
class FileOptions:
    """How the files of one source are read; the names are those of the components' keys."""

    format: str | None = None
    data_col: int | None = None
    column: str | None = None
    id_column: str | None = None
    header_lines: int | None = None
    data_sep: str | None = None
    ids_elsewhere: bool = False
    """The id column is that of a file beside."""

    def detect_format(self, paths: list[Path]) -> str:
        """The format that the files have.

        Raises:
            ConfigError: their extensions do not tell.
        """
        return self.format or detect_format(paths)

    def source(self, paths: list[Path], columns: tuple[str, ...] = ()) -> Source:
        """The reader of some files.

        Raises:
            ConfigError: the format or an option cannot be used.
        """
        name = self.detect_format(paths)
        options: dict[str, Any] = {"columns": columns} if columns else {}
        if name not in TABLES:
            self._refuse(name, ("data_col", "column", "header_lines", "data_sep"))
            if not self.ids_elsewhere:
                self._refuse(name, ("id_column",))
            return source_for(paths, name, **options)
        if self.id_column is not None and not self.ids_elsewhere:
            options["id_column"] = self.id_column
        options["column"] = self.column or "sequence"
        if name == "parquet":
            self._refuse(name, ("data_col", "header_lines", "data_sep"))
            return source_for(paths, name, **options)
        if self.column is None and self.data_col is not None:
            options["column"] = self.data_col
        if self.header_lines is not None:
            options["header_lines"] = self.header_lines
        if self.data_sep is not None:
            options["separator"] = self.data_sep
        return source_for(paths, name, **options)

    def _refuse(self, format_name: str, keys: tuple[str, ...]) -> None:
        given = [key for key in keys if getattr(self, key) is not None]
        if given:
            raise ConfigError(f"data.{given[0]}: is of no use for {format_name} files. Leave it out.")


@dataclass(frozen=True)
class NamedFiles:
    """What the keys of a component name: files by split, and the keys they come from."""

    files: Mapping[str, Any]
    """What is named for `train`, and for `val` and `test` where they have files of their own."""
    folder: Path | None = None
    """Holds a folder for each split; the files are names in it."""

    @classmethod
    def of(
        cls, path: Any, val_path: Any, test_path: Any, dataset_path: str | None, shards: Mapping[str, str]
    ) -> "NamedFiles":
        """What `path` and its like, or `dataset_path` and its shards, name.

        Raises:
            ConfigError: both are given, or none.
        """
        if (path is None) == (dataset_path is None):
            given = "neither is given" if path is None else "both are given"
            raise ConfigError(
                f"data.path and data.dataset_path: {given}. Give data.path=FILE, or data.dataset_path=FOLDER with "
                "train, val and test in it."
            )
        own = {"val": val_path, "test": test_path}
        if dataset_path is None:
            return cls({"train": path} | {split: names for split, names in own.items() if names})
        for split, names in own.items():
            if names:
                raise ConfigError(f"data.{split}_path: data.dataset_path has a {split} split: data.{split} names it.")
        if not shards["train"]:
            raise ConfigError("data.train: no shards are named, got ''. Give a range such as x[000..049].")
        return cls({split: text for split, text in shards.items() if text}, Path(dataset_path).expanduser())

    def paths(self, split: str, context: BuildContext) -> list[Path]:
        """The files of a split.

        Raises:
            ConfigError: they are named in no way that is understood.
            DataError: one is missing.
        """
        if self.folder is not None:
            return expand_range(self.folder / split, self.files[split], f"data.{split}")
        key = "data.path" if split == "train" else f"data.{split}_path"
        return find_files(self.files[split], key, context)


def prepare_splits(
    named: NamedFiles, files: FileOptions, rules: RecordFilter, split_options: SplitOptions, context: BuildContext
) -> DataSplits:
    """The splits of the files that are named, each read through a prepared store.

    Raises:
        ConfigError: an option contradicts another one, or nothing is left to train on.
        DataError: a file is missing or cannot be read, or the rules want to stop.
    """
    own = tuple(split for split in named.files if split != "train")
    if named.folder is None:
        split_options.check(own)
    elif split_options != SplitOptions(id_column=split_options.id_column, split_seed=split_options.split_seed):
        raise ConfigError("data.dataset_path: its folders are the splits. Leave out the other ways to split.")
    paths = {split: named.paths(split, context) for split in named.files}
    columns = () if named.folder else split_options.columns(files.detect_format(paths["train"]))
    stores: dict[str, PreparedStore] = {}
    for split, several in paths.items():
        stores[split] = prepare(files.source(several, columns if split == "train" else ()), rules, context)
    if named.folder is not None:
        fingerprint = fingerprint_of({split: store.fingerprint for split, store in stores.items()})
        return DataSplits(stores["train"], stores.get("val"), stores.get("test"), fingerprint)
    parts = split_options.indices(stores["train"], own, windowed=getattr(rules, "on_long", None) == "window")
    split_options.warn_of_shared_clusters(stores["train"], parts, {split: stores[split] for split in own})
    return parts.of(stores["train"], stores.get("val"), stores.get("test"))
