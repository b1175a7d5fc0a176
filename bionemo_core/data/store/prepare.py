"""The preparation of a store: filter every record, count the used and the rejected ones, publish in one step."""

import atexit
import logging
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bionemo_core.data.readers.records import Source, read_blocks
from bionemo_core.data.store.filtering import Tally, derived_columns, filter_blocks, worker_pool
from bionemo_core.data.store.plausibility import warn_of_implausible_data
from bionemo_core.data.store.record_store import (
    DERIVED,
    FORMAT,
    KEPT,
    LENGTHS,
    MANIFEST,
    RECORDS,
    VERSION,
    PreparedStore,
)
from bionemo_core.data.store.report import length_histogram, show_progress, summary
from bionemo_core.data.store.residue_filter import RecordFilter
from bionemo_core.data.store.writer import RecordWriter
from bionemo_core.errors import ConfigError, DataError, StorageError
from bionemo_core.io.atomic import new_folder
from bionemo_core.io.hashing import canonical, fingerprint_of, hash_file, seal
from bionemo_core.io.locks import lock_beside
from bionemo_core.machine import home_path, is_writable
from bionemo_core.plurals import format_count
from bionemo_core.protocols import BuildContext

log = logging.getLogger("bionemo")

_STAMP_RESOLUTION_NS = 2_000_000_000


def home_folder(context: BuildContext) -> Path:
    """Return the folder of prepared data: the context's, else $BIONEMO_HOME, else ~/.bionemo."""
    return home_path(context.home)


_short_lived: list[bool] = []


@contextmanager
def short_lived_stores() -> Iterator[None]:
    """Inside the `with` block, where the home cannot be written, prepare in a folder that goes with this process."""
    _short_lived.append(True)
    try:
        yield
    finally:
        _short_lived.pop()


@lru_cache(maxsize=1)
def _make_short_lived_home(home: Path) -> str:
    try:
        folder = mkdtemp(prefix="bionemo-")
    except OSError as error:
        raise StorageError(
            f"{home} cannot be written, and temporary files cannot either ({error.strerror}). Set home=FOLDER, or "
            "BIONEMO_HOME, to a folder that you can write to."
        ) from error
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    log.warning("%s cannot be written, so the prepared data are not kept: they lie in %s until the end.", home, folder)
    return folder


def prepare(source: Source, rules: RecordFilter, context: BuildContext) -> PreparedStore:
    """Return the verified store of a source; prepare it if it does not exist.

    The name of the store's folder is a hash of everything it depends on: the bytes of the files, the way to read
    them, the rules and the format. So a changed file gets another store. A damaged store is prepared again.

    Args:
        source: files and how to read them.
        rules: which records are used.
        context: where prepared data lives, and how many processes filter records; their number does not change the
            store.

    Raises:
        DataError: a file cannot be read or has no usable record.
        StorageError: the store cannot be written.
    """
    home = home_folder(context)
    try:
        store = _open_or_build(source, rules, context)
    except StorageError:
        if not _short_lived or is_writable(home):
            raise
        store = _open_or_build(source, rules, replace(context, home=_make_short_lived_home(home)))
    log.log(logging.DEBUG if _recorders else logging.INFO, "%s", summary(store.manifest))  # who records shows it
    warn_of_implausible_data(store, rules)
    for stores in _recorders:
        stores.append(store)
    return store


def _open_or_build(source: Source, rules: RecordFilter, context: BuildContext) -> PreparedStore:
    facts = {
        "kind": source.kind,
        "options": source.options,
        "columns": list(source.columns),
        "rules": rules.facts(),
        "version": VERSION,
    }
    if derived := derived_columns(rules):
        facts[DERIVED] = list(derived)
        if repeated := set(derived) & set(source.columns):
            raise ConfigError(
                f"data: the files have a column {min(repeated)!r}, which is also a derived one. Rename it in the files."
            )
    before = [SourceFile.of(path, source.kind) for path in source.paths]
    facts["sources"] = [file.sha256 for file in before]
    fingerprint = fingerprint_of(facts)
    folder = home_folder(context) / "prepared" / fingerprint
    store = _open_if_valid(folder, fingerprint, logging.DEBUG)  # the process that prepares it again warns
    if store is None:
        with lock_beside(folder, "prepare"):
            store = _open_if_valid(folder, fingerprint)
            if store is None:
                facts = {**facts, "sources": [file.facts for file in before], "fingerprint": fingerprint}
                num_bytes = sum(file.facts["bytes"] for file in before)
                with worker_pool(context.preparation_workers, rules, num_bytes) as pool:
                    _build(_Preparation(source, rules, before, pool), facts, folder)
        store = store or PreparedStore(folder, fingerprint, verify=False)  # it was hashed while it was written
    store.name_sources([path.name for path in source.paths])
    return store


_recorders: list[list[PreparedStore]] = []


@contextmanager
def record_prepared_stores() -> Iterator[list[PreparedStore]]:
    """Record the stores that are prepared or opened inside the `with` block."""
    stores: list[PreparedStore] = []
    _recorders.append(stores)
    try:
        yield stores
    finally:
        _recorders.remove(stores)


@dataclass(frozen=True)
class SourceFile:
    """A file of a source, as it was before it was read."""

    path: Path
    kind: str
    sha256: str
    stamp: tuple[int, ...]
    read_at_ns: int

    @classmethod
    def of(cls, path: Path, kind: str) -> "SourceFile":
        """Stat and hash a file.

        Raises:
            DataError: the file cannot be read.
        """
        try:
            read_at, stamp = time.time_ns(), _stamp(path)
            return cls(path, kind, hash_file(path).sha256, stamp, read_at)
        except OSError as error:
            raise DataError(f"{kind}: {path}: cannot be read ({error.strerror}). Check the path.") from error

    @property
    def facts(self) -> dict[str, Any]:
        """Return the facts that the manifest records."""
        return {"name": self.path.name, "bytes": self.stamp[0], "sha256": self.sha256}

    def check_unchanged(self) -> None:
        """Check that the file is unchanged.

        Raises:
            DataError: the file has changed or is gone.
        """
        try:
            same = _stamp(self.path) == self.stamp
            if same and self._written_too_recently():
                same = hash_file(self.path).sha256 == self.sha256
        except OSError:  # the file is gone
            same = False
        if not same:
            raise DataError(
                f"{self.kind}: {self.path}: changed while it was read. Run again when no other program writes to it."
            )

    def _written_too_recently(self) -> bool:
        """Return whether a later write may have left the same time stamp."""
        return self.read_at_ns - max(self.stamp[1:3]) < _STAMP_RESOLUTION_NS


def _stamp(path: Path) -> tuple[int, ...]:
    stat = path.stat()
    return stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino


def _open_if_valid(folder: Path, fingerprint: str, level: int = logging.WARNING) -> PreparedStore | None:
    if not folder.exists():
        return None
    try:
        return PreparedStore(folder, fingerprint)
    except DataError as error:
        log.log(level, "%s It is prepared again.", error)
        return None


@dataclass(frozen=True)
class _Preparation:
    source: Source
    rules: RecordFilter
    files: list[SourceFile]
    pool: Any


def _build(preparation: _Preparation, facts: dict[str, Any], folder: Path) -> None:
    """Build and publish the store; the caller holds its lock."""
    try:
        with new_folder(folder, replace=True) as temporary:
            manifest = _write(preparation, facts, temporary)
            (temporary / MANIFEST).write_bytes(canonical(seal(manifest)))
    except StorageError:
        # Without locks between machines, another machine may have published the store first.
        if _open_if_valid(folder, folder.name) is None:
            raise


def _write(preparation: _Preparation, facts: dict[str, Any], folder: Path) -> dict[str, Any]:
    source, rules, tally = preparation.source, preparation.rules, Tally()
    columns = (*source.columns, *derived_columns(rules))
    with RecordWriter(folder, columns, rules.deduplicate) as writer, show_progress(source.paths) as advance:
        for path in source.paths:
            for block in filter_blocks(read_blocks(source, path), rules, source.kind, path, preparation.pool):
                writer.add(block)
                tally.add(block.tally)
                advance(path, block.position)
    kept = writer.find_kept_rows(
        getattr(rules, "on_duplicate_id", "drop"),
        f"{source.kind}: {source.paths[0]}" + (f" .. {source.paths[-1]}" if len(source.paths) > 1 else ""),
        lambda reason, name: tally.reject(reason, f"record {name[:80].decode('latin-1')!r}"),
        lambda note: tally.notes.update([note]),
    )
    for file in preparation.files:
        file.check_unchanged()
    lengths = writer.lengths
    hashes = {RECORDS: writer.sha256, LENGTHS: _save(folder / LENGTHS, lengths)}
    if kept is not None:
        hashes[KEPT] = _save(folder / KEPT, kept)
        lengths = lengths[kept]
    if not lengths.size:
        raise _no_record_error(source, tally)
    return {
        "format": FORMAT,
        **facts,
        "records": {
            "read": tally.read,
            "used": tally.read - sum(tally.rejected.values()),
            "rows": len(lengths),
            "rejected": dict(tally.rejected),
            "notes": dict(+tally.notes),
        },
        "examples": tally.examples,
        "lengths": length_histogram(lengths),
        "files": {name: {"bytes": (folder / name).stat().st_size, "sha256": digest} for name, digest in hashes.items()},
    }


def _save(path: Path, values: NDArray[Any]) -> str:
    np.save(path, values)
    return hash_file(path).sha256


def _no_record_error(source: Source, tally: Tally) -> DataError:
    first, *others = source.paths
    more = f" and {format_count(len(others), 'more file')}" if others else ""
    where = f"{source.kind}: {first}{more}"
    if not tally.read:
        return DataError(f"{where}: has no record, expected at least one. Give a {source.kind} file with records.")
    reasons = ", ".join(f"{reason} {count:,}" for reason, count in tally.rejected.items())
    example = next(iter(tally.examples.values()))[0]
    return DataError(
        f"{where}: none of {format_count(tally.read, 'record')} can be used ({reasons}; first: {example}). Check the "
        "format of the file, and that the tokenizer suits it."
    )
