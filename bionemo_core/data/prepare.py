"""Files to a prepared store: clean every record, count what is used and what is not, publish in one step."""

import fcntl
import logging
import os
import shutil
import socket
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bionemo_core.data.readers import Record, Source
from bionemo_core.data.store import (
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
from bionemo_core.data.writer import RecordWriter
from bionemo_core.errors import ConfigError, DataError, StorageError
from bionemo_core.protocols import BuildContext, Tokenizer

log = logging.getLogger("bionemo")

_EXAMPLES = 10
_WHITE_SPACE = b" \t\n\r"
_ON_INVALID = ("skip", "error", "unk")
_SKIP = "Skip such records with data.on_invalid=skip."


@dataclass(frozen=True)
class Rules:
    """Which records are used. Everything here is part of the store's fingerprint."""

    alphabet: str
    on_invalid: str = "skip"
    min_length: int = 1
    max_length: int | None = None
    deduplicate: bool = False

    @classmethod
    def of(cls, tokenizer: Tokenizer, **options: Any) -> "Rules":
        """The rules for sequences that `tokenizer` will read: its alphabet is its one-character pieces.

        Raises:
            ConfigError: an option is out of its range, or the tokenizer has no such pieces.
        """
        letters = {p for i, p in enumerate(tokenizer.pieces) if len(p) == 1 and i not in tokenizer.special_ids}
        return cls("".join(sorted(letters)), **options)

    def __post_init__(self) -> None:
        """Check the options.

        Raises:
            ConfigError: one is out of its range.
        """
        if not self.alphabet:
            raise ConfigError("tokenizer: has no one-character pieces, so it cannot read residues.")
        if self.on_invalid not in _ON_INVALID:
            raise ConfigError(f"data.on_invalid: {self.on_invalid!r}, expected one of {', '.join(_ON_INVALID)}.")
        if self.min_length < 1:
            raise ConfigError(f"data.min_length: {self.min_length}, expected at least 1 residue.")
        if self.max_length is not None and self.max_length < self.min_length:
            raise ConfigError(f"data.max_length: {self.max_length} is below data.min_length {self.min_length}.")


class Cleaner:
    """Applies the rules to one record after another and keeps the counts."""

    def __init__(self, rules: Rules, kind: str, advice: str = _SKIP) -> None:
        self.rules = rules
        self.kind = kind
        self.advice = advice
        self.read = 0
        self.rejected: Counter[str] = Counter()
        self.notes: Counter[str] = Counter()
        self.examples: dict[str, list[str]] = {}
        self._alphabet = rules.alphabet.encode("latin-1", errors="ignore")
        lower = [c for c in range(ord("a"), ord("z") + 1) if c not in self._alphabet]
        self._upper = bytes(c - 32 if c in lower else c for c in range(256))

    def clean(self, record: Record, path: Path) -> bytes | None:
        """The sequence to store, or None where the record is rejected.

        Raises:
            DataError: the record has a residue outside the alphabet and the rules say error.
        """
        self.read += 1
        sequence = record.sequence.translate(self._upper, _WHITE_SPACE)
        has_stop = sequence.endswith(b"*") and b"*" not in self._alphabet
        sequence = sequence[:-1] if has_stop else sequence
        reason = record.problem or self._length_problem(len(sequence))
        unknown = b"" if reason else sequence.translate(None, self._alphabet)
        detail = ""
        if unknown and self.rules.on_invalid != "unk":
            reason = "residue outside the alphabet"
            position = sequence.index(unknown[:1]) + 1
            detail = f": residue {unknown[:1].decode('latin-1')!r} at position {position}"
            if self.rules.on_invalid == "error":
                raise DataError(
                    f"{self.kind}: {_where(record, path)}{detail} is not in the tokenizer's alphabet "
                    f"({len(self._alphabet)} letters: {self.rules.alphabet}). {self.advice}"
                )
        if reason:
            self._reject(reason, _where(record, path) + detail)
            return None
        self.notes["stop removed from the end"] += has_stop
        self.notes["with unknown residues, kept"] += bool(unknown)
        return sequence

    def _length_problem(self, length: int) -> str:
        if length == 0:
            return "empty sequence"
        if length < self.rules.min_length:
            return f"shorter than {self.rules.min_length}"
        if self.rules.max_length is not None and length > self.rules.max_length:
            return f"longer than {self.rules.max_length}"
        return ""

    def reject_repeat(self, reason: str, name: bytes) -> None:
        """Count a record that repeats an earlier one."""
        self._reject(reason, f"record {name[:80].decode('latin-1')!r}")

    def _reject(self, reason: str, example: str) -> None:
        self.rejected[reason] += 1
        kept = self.examples.setdefault(reason, [])
        if len(kept) < _EXAMPLES:
            kept.append(example)


def _where(record: Record, path: Path) -> str:
    return f"{path.name}:{record.line} record {record.id[:80].decode('latin-1')!r}"


def home_folder(context: BuildContext) -> Path:
    """The folder that prepared data lives in: the context's, $BIONEMO_HOME, or ~/.bionemo."""
    return Path(context.home or os.environ.get("BIONEMO_HOME") or Path.home() / ".bionemo").expanduser()


def prepare(source: Source, rules: Rules, context: BuildContext, advice: str = _SKIP) -> PreparedStore:
    """The verified store of a source, made now unless it exists.

    The store's folder is named after everything it depends on: the bytes of the files, the way to read them, the
    rules and the format. A changed file therefore gets another store; a damaged store is made again. `advice` says
    what to do about a residue that the rules refuse, where that is not to skip its record.

    Raises:
        DataError: a file cannot be read or has no usable record.
        StorageError: the store cannot be written.
    """
    facts = {"kind": source.kind, "options": source.options, "rules": asdict(rules), "version": VERSION}
    sources = [_source_facts(path, source.kind) for path in source.paths]
    facts["sources"] = [item["sha256"] for item in sources]
    fingerprint = fingerprint_of(facts)
    parent = home_folder(context) / "prepared"
    folder = parent / fingerprint
    store = _usable(folder, fingerprint)
    if store is None:
        try:
            parent.mkdir(parents=True, exist_ok=True)
            with _lock(parent / f".{fingerprint}.lock"):
                store = _usable(folder, fingerprint)
                if store is None:
                    facts = {**facts, "sources": sources, "fingerprint": fingerprint}
                    _build(source, Cleaner(rules, source.kind, advice), facts, folder)
        except OSError as error:
            raise StorageError(
                f"prepare: {error.filename or folder}: {error.strerror or error}. "
                "Free space there, or set BIONEMO_HOME to a folder that can be written."
            ) from error
        store = store or PreparedStore(folder, fingerprint)
    log.info("%s", summary(store.manifest))
    return store


def summary(manifest: dict[str, Any]) -> str:
    """One line: read = used + rejected, with the reasons."""
    records, names = manifest["records"], [item["name"] for item in manifest["sources"]]
    title = names[0] if len(names) == 1 else f"{names[0]} .. {names[-1]} ({len(names)} files)"
    total = sum(records["rejected"].values())
    by_count = sorted(records["rejected"].items(), key=lambda item: (-item[1], item[0]))
    reasons = ", ".join(f"{reason} {count:,}" for reason, count in by_count)
    notes = "".join(f"; {note} {count:,}" for note, count in records["notes"].items())
    return (
        f"{title}: read {records['read']:,} = used {records['used']:,} + rejected {total:,}"
        f"{f' ({reasons})' if reasons else ''}{notes}"
    )


def _usable(folder: Path, fingerprint: str) -> PreparedStore | None:
    if not folder.exists():
        return None
    try:
        return PreparedStore(folder, fingerprint)
    except DataError as error:
        log.warning("%s It is prepared again.", error)
        return None


def _source_facts(path: Path, kind: str) -> dict[str, Any]:
    try:
        return {"name": path.name, "bytes": path.stat().st_size, "sha256": file_sha256(path)}
    except OSError as error:
        raise DataError(f"{kind}: {path}: cannot be read ({error.strerror}). Check the path.") from error


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Holds `path` against other processes; the system lets go of it when a process dies."""
    with path.open("w") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log.info("Waiting for another process that prepares the same data.")
            fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def _build(source: Source, cleaner: Cleaner, facts: dict[str, Any], folder: Path) -> None:
    """Write the store beside its place and rename it there; the caller holds the lock."""
    prefix = f".{folder.name}.{socket.gethostname()}."
    for leftover in folder.parent.glob(f"{prefix}*"):  # of a process on this machine that died; it held the lock
        shutil.rmtree(leftover)
    temporary = folder.parent / f"{prefix}{os.getpid()}"
    temporary.mkdir()
    try:
        manifest = _write(source, cleaner, facts, temporary)
        for name in manifest["files"]:
            _sync(temporary / name)
        (temporary / MANIFEST).write_bytes(canonical(seal(manifest)))
        _sync(temporary / MANIFEST)
        _sync(temporary)
        if folder.exists():  # damaged; a process that still reads it keeps its memory map
            folder.rename(folder.parent / f"{prefix}damaged")
        _publish(temporary, folder)
        shutil.rmtree(folder.parent / f"{prefix}damaged", ignore_errors=True)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def _publish(temporary: Path, folder: Path) -> None:
    try:
        temporary.rename(folder)
    except OSError:
        # Where the file system does not lock between machines, another one may have been first.
        if _usable(folder, folder.name) is None:
            raise
        shutil.rmtree(temporary)
    _sync(folder.parent)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write(source: Source, cleaner: Cleaner, facts: dict[str, Any], folder: Path) -> dict[str, Any]:
    with RecordWriter(folder, cleaner.rules.deduplicate) as writer:
        for path in source.paths:
            for record in source.records(path):
                sequence = cleaner.clean(record, path)
                if sequence is not None:
                    writer.add(record.id, sequence)
    kept = writer.kept_rows(cleaner.reject_repeat)
    for path, before in zip(source.paths, facts["sources"], strict=True):
        if _source_facts(path, source.kind) != before:
            raise DataError(f"{source.kind}: {path}: changed while it was read. Run again when nothing writes to it.")
    lengths = np.frombuffer(writer.lengths, dtype=np.int32)
    np.save(folder / LENGTHS, lengths)
    names = [RECORDS, LENGTHS]
    if kept is not None:
        np.save(folder / KEPT, kept)
        names.append(KEPT)
        lengths = lengths[kept]
    if not lengths.size:
        reasons = ", ".join(f"{reason} {count}" for reason, count in cleaner.rejected.items())
        examples = next(iter(cleaner.examples.values()), ["it has none"])
        raise DataError(
            f"{source.kind}: {source.paths[0]}: none of {cleaner.read} records can be used ({reasons or 'no records'}; "
            f"first: {examples[0]}). Check that the file and the tokenizer belong together."
        )
    return {
        "format": FORMAT,
        **facts,
        "records": {
            "read": cleaner.read,
            "used": len(lengths),
            "rejected": dict(cleaner.rejected),
            "notes": dict(+cleaner.notes),
        },
        "examples": cleaner.examples,
        "residues": {
            "total": int(lengths.sum(dtype=np.int64)),
            "shortest": int(lengths.min()),
            "longest": int(lengths.max()),
        },
        "files": {
            name: {"bytes": (folder / name).stat().st_size, "sha256": file_sha256(folder / name)} for name in names
        },
    }
