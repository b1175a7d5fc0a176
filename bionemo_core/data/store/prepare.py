"""Files to a prepared store: clean every record, count what is used and what is not, publish in one step."""

import logging
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bionemo_core.data.readers.records import Source, read_blocks
from bionemo_core.data.store.filtering import Tally, derived_columns, filter_blocks, worker_pool
from bionemo_core.data.store.record_store import (
    DERIVED,
    FORMAT,
    KEPT,
    LENGTHS,
    MANIFEST,
    RECORDS,
    VERSION,
    PreparedStore,
    canonical,
    file_sha256,
    fingerprint_of,
    seal,
)
from bionemo_core.data.store.report import length_histogram, progress, summary
from bionemo_core.data.store.residue_filter import RecordFilter
from bionemo_core.data.store.writer import RecordWriter
from bionemo_core.errors import ConfigError, DataError, StorageError
from bionemo_core.io.atomic import exclusive, new_folder
from bionemo_core.protocols import BuildContext

log = logging.getLogger("bionemo")

_STAMP_RESOLUTION_NS = 2_000_000_000
_MANY_REPEATED = 0.02
"""The share of records with the id of an earlier one from which on the ids are doubted."""


def home_folder(context: BuildContext) -> Path:
    """The folder that prepared data lives in: the context's, $BIONEMO_HOME, or ~/.bionemo."""
    return Path(context.home or os.environ.get("BIONEMO_HOME") or Path.home() / ".bionemo").expanduser()


def prepare(source: Source, rules: RecordFilter, context: BuildContext) -> PreparedStore:
    """The verified store of a source, made now unless it exists.

    The store's folder is named after everything it depends on: the bytes of the files, the way to read them, the
    rules and the format. A changed file therefore gets another store; a damaged store is made again.

    Args:
        source: files and how to read them.
        rules: which records are used.
        context: where prepared data lives, and how many processes judge records; the store is the same whatever
            their number.

    Raises:
        DataError: a file cannot be read or has no usable record.
        StorageError: the store cannot be written.
    """
    facts = {
        "kind": source.kind,
        "options": source.options,
        "columns": list(source.columns),
        "rules": rules.facts(),
        "version": VERSION,
    }
    if derived := derived_columns(rules):
        facts[DERIVED] = list(derived)
        if twice := set(derived) & set(source.columns):
            raise ConfigError(f"data: a column {min(twice)!r} is kept of the files, and derived too. Rename the first.")
    before = [SourceFile.of(path, source.kind) for path in source.paths]
    facts["sources"] = [one.sha256 for one in before]
    fingerprint = fingerprint_of(facts)
    folder = home_folder(context) / "prepared" / fingerprint
    store = _usable(folder, fingerprint, logging.DEBUG)  # said by who makes it again
    if store is None:
        with exclusive(folder, "prepare"):
            store = _usable(folder, fingerprint)
            if store is None:
                facts = {**facts, "sources": [one.facts for one in before], "fingerprint": fingerprint}
                num_bytes = sum(one.facts["bytes"] for one in before)
                with worker_pool(context.preparation_workers, rules, num_bytes) as pool:
                    _build(_Preparation(source, rules, before, pool), facts, folder)
        store = store or PreparedStore(folder, fingerprint, verify=False)  # hashed as it was written
    log.info("%s", summary(store.manifest))
    _warn_of_repeated_ids(store.manifest)
    for collected in _collectors:
        collected.append(store)
    return store


def _warn_of_repeated_ids(manifest: Mapping[str, Any]) -> None:
    """Say so where many records are left out for an id that they share: it may be no id."""
    records = manifest["records"]
    repeated = records["rejected"].get("duplicate id", 0)
    if repeated > _MANY_REPEATED * records["read"]:
        log.warning(
            "%s: %d of %d records have the id of an earlier one and are left out. Where what was read as ids are "
            "labels or the like, keep them: data.on_duplicate_id=keep.",
            manifest["sources"][0]["name"],
            repeated,
            records["read"],
        )


_collectors: list[list[PreparedStore]] = []


@contextmanager
def record_prepared_stores() -> Iterator[list[PreparedStore]]:
    """The stores that are prepared or found by anything called inside."""
    stores: list[PreparedStore] = []
    _collectors.append(stores)
    try:
        yield stores
    finally:
        _collectors.remove(stores)


@dataclass(frozen=True)
class SourceFile:
    """A source's file as it was before it was read."""

    path: Path
    kind: str
    sha256: str
    stamp: tuple[int, ...]
    looked_at_ns: int

    @classmethod
    def of(cls, path: Path, kind: str) -> "SourceFile":
        """Look at a file and hash it.

        Raises:
            DataError: it cannot be read.
        """
        try:
            looked_at, stamp = time.time_ns(), _stamp(path)
            return cls(path, kind, file_sha256(path), stamp, looked_at)
        except OSError as error:
            raise DataError(f"{kind}: {path}: cannot be read ({error.strerror}). Check the path.") from error

    @property
    def facts(self) -> dict[str, Any]:
        """What the manifest says of it."""
        return {"name": self.path.name, "bytes": self.stamp[0], "sha256": self.sha256}

    def check_unchanged(self) -> None:
        """Accept a file that is still what it was.

        Raises:
            DataError: it is another one, or gone.
        """
        try:
            same = _stamp(self.path) == self.stamp
            if same and self._may_hide_a_change():
                same = file_sha256(self.path) == self.sha256
        except OSError:  # gone
            same = False
        if not same:
            raise DataError(
                f"{self.kind}: {self.path}: changed while it was read. Run again when nothing writes to it."
            )

    def _may_hide_a_change(self) -> bool:
        """Whether it was written so shortly before that a later write may have left the same time stamp."""
        return self.looked_at_ns - max(self.stamp[1:3]) < _STAMP_RESOLUTION_NS


def _stamp(path: Path) -> tuple[int, ...]:
    found = path.stat()
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino


def _usable(folder: Path, fingerprint: str, level: int = logging.WARNING) -> PreparedStore | None:
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
    """Publish the store; the caller holds its place."""
    try:
        with new_folder(folder, replace=True) as temporary:
            manifest = _write(preparation, facts, temporary)
            (temporary / MANIFEST).write_bytes(canonical(seal(manifest)))
    except StorageError:
        # Where the file system does not lock between machines, another one may have been first.
        if _usable(folder, folder.name) is None:
            raise


def _write(preparation: _Preparation, facts: dict[str, Any], folder: Path) -> dict[str, Any]:
    source, rules, tally = preparation.source, preparation.rules, Tally()
    columns = (*source.columns, *derived_columns(rules))
    with RecordWriter(folder, columns, rules.deduplicate) as writer, progress(source.paths) as advance:
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
        raise _nothing_left(source, tally)
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
    return file_sha256(path)


def _nothing_left(source: Source, tally: Tally) -> DataError:
    first, *others = source.paths
    where = f"{source.kind}: {first}{f' and {len(others)} more files' if others else ''}"
    if not tally.read:
        return DataError(f"{where}: no record in it, expected at least one. Give a {source.kind} file with records.")
    reasons = ", ".join(f"{reason} {count:,}" for reason, count in tally.rejected.items())
    example = next(iter(tally.examples.values()))[0]
    return DataError(
        f"{where}: none of {tally.read:,} records can be used ({reasons}; first: {example}). Check that the file is "
        "read as what it is, and that the tokenizer is made for it."
    )
