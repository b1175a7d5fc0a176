"""Copies of objects under the home folder, for readers that need files, and outputs that are sent when they are whole.

`s3://BUCKET/NAME` is copied to `<home>/objects/s3/BUCKET/NAME`. Patterns, ranges and folders keep their spelling, so a
key means the same of the copies. At every use the service is asked whether the object is still the one that was copied.
"""

from __future__ import annotations

import json
import logging
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from bionemo_core.errors import ConfigError, DataError, NetworkError, StorageError
from bionemo_core.io.atomic import publish, storage_error, write_json
from bionemo_core.io.hashing import hash_bytes, hash_file, start_hash
from bionemo_core.io.locks import lock_beside
from bionemo_core.io.object_storage import ObjectFacts, ObjectStorage, Unreachable, is_object
from bionemo_core.io.progress import BYTES, Progress, format_bytes
from bionemo_core.machine import disk_free_bytes

log = logging.getLogger("bionemo")

OBJECTS = "objects"
OUTGOING = "outgoing"
RANGE_MARKS = ("[", "(", "<", "_OP_")
"""What opens a range of files, such as `x[000..049]`."""
RANGE = re.compile(
    r"(?P<before>.*?)(?:\[|\(|<|_OP_)(?P<first>\d+)\.\.(?P<last>\d+)(?:\]|\)|>|_CL_)(?P<after>.*)", re.DOTALL
)
"""A range of files, in each spelling that `data.sources.shard_ranges` reads."""
_LAST = ("artefact.json", "config.json", "manifest.json")
"""Files that make a folder a model or a run; they are sent last, so that nobody opens a folder that is half there."""
_BLOCK_BYTES = 16 << 20


def stage(value: Any, key: str, home: Path) -> Any:
    """Copy the objects that a value of a key names; return the value with the paths of the copies in their place.

    Args:
        value: an address of an object, of a folder, with a pattern or a range; a list of these; or any other value,
            which is returned as it is.
        key: the key, for messages.
        home: the home folder.

    Raises:
        ConfigError: an address is malformed, or the package for it is missing.
        DataError: there is no such object.
        NetworkError: the service does not give it, or gives something else.
        StorageError: the copy cannot be written.
    """
    if isinstance(value, list | tuple):
        return [stage(one, key, home) for one in value]
    if not isinstance(value, str) or not is_object(value):
        return value
    scheme, _, path = value.partition("://")
    path = path.rstrip("/")
    staging = _Staging(ObjectStorage.of(value, key), home / OBJECTS / scheme, home / OBJECTS / "records" / scheme)
    staging.copy(path)
    return str(staging.copies / path)


@dataclass(frozen=True)
class _Staging:
    storage: ObjectStorage
    copies: Path
    records: Path
    """The folder with what is known of each copy, and with unfinished ones."""

    def copy(self, path: str) -> None:
        """Bring the copies of all objects that `path` names up to date; remove those whose object is gone."""
        try:
            facts = None if "*" in path or "?" in path else self.storage.look_up(path)
        except Unreachable as error:
            if not self._is_intact(path, None):
                raise
            log.warning("%s The copy of it is used.", error)
            return
        if facts is not None:
            self._copy_file(path, facts)
            return
        pattern, is_named = _pattern(path), _range_check(path)
        found = self.storage.list(pattern)
        if not any(map(is_named, found)):
            raise DataError(
                f"{self.storage.key}: {self.storage.scheme}://{path}: there is no such object. Check the address."
            )
        for name in self._stale(pattern, found):
            (self.copies / name).unlink(missing_ok=True)
        for name, one in found.items():
            if is_named(name):
                self._copy_file(name, one)

    def _stale(self, pattern: str, found: Mapping[str, ObjectFacts]) -> list[str]:
        folder = self.copies / pattern
        paths = self.copies.glob(pattern) if "*" in pattern or "?" in pattern else folder.rglob("*")
        names = (path.relative_to(self.copies).as_posix() for path in paths if path.is_file())
        return [name for name in names if name not in found]

    def _copy_file(self, name: str, facts: ObjectFacts) -> None:
        if ".." in PurePosixPath(name).parts or name.startswith("/"):
            raise NetworkError(f"{self.storage.key}: the service lists an object {name!r}, which cannot be a file.")
        target = self.copies / name
        try:
            with lock_beside(self.records / name, "download"):
                if self._is_intact(name, facts):
                    return
                target.parent.mkdir(parents=True, exist_ok=True)
                self._download(name, facts, target)
        except OSError as error:
            raise storage_error(target, error) from error

    def _is_intact(self, name: str, facts: ObjectFacts | None) -> bool:
        """Return whether the copy is as it was made, and of this version of the object if facts are given."""
        record, target = _read(self._record(name)), self.copies / name
        if facts is not None and record.get("version") != _version(facts):
            return False
        if not record or not target.is_file() or target.stat().st_size != record["version"].get("size"):
            return False
        untouched = target.stat().st_mtime_ns == record["mtime_ns"]
        return untouched or bool(hash_file(target).sha256 == record["sha256"])

    def _record(self, name: str) -> Path:
        return self.records / f"{name}.json"

    def _download(self, name: str, facts: ObjectFacts, target: Path) -> None:
        storage, where = self.storage, f"{self.storage.key}: {self.storage.scheme}://{name}"
        part, began = self.records / f"{name}.part", self.records / f"{name}.part.json"
        if _read(began) != _version(facts) or (part.is_file() and part.stat().st_size > facts.size):
            part.unlink(missing_ok=True)
            write_json(began, _version(facts))
        offset = part.stat().st_size if part.is_file() else 0
        if facts.size - offset > disk_free_bytes(part.parent):
            raise StorageError(
                f"{where}: {format_bytes(facts.size - offset)} left to download, but {part.parent} has less free. Free "
                "space there, or set home=FOLDER."
            )
        progress = Progress(f"download {target.name}", facts.size, start=offset, unit=BYTES)
        with part.open("ab") as stream, progress:
            for block in _blocks(storage, name, offset):
                stream.write(block)
                progress.advance(len(block))
        size, digests = part.stat().st_size, _digests(part)
        if size != facts.size or storage.look_up(name) != facts:
            part.unlink()
            raise NetworkError(
                f"{where}: changed while it was downloaded. Run again when no other program writes to it."
            )
        self._check_digest(name, facts, digests, part)
        publish(part, target)
        began.unlink()
        record = {"version": _version(facts), "sha256": digests["sha256"], "mtime_ns": target.stat().st_mtime_ns}
        write_json(self._record(name), record)

    def _check_digest(self, name: str, facts: ObjectFacts, found: Mapping[str, str], part: Path) -> None:
        if _agree(facts, found) or self.storage.is_encrypted_by_key(name):
            return
        assert facts.digest is not None
        kind, expected = facts.digest
        part.unlink()
        raise NetworkError(
            f"{self.storage.key}: {self.storage.scheme}://{name}: the {kind} of what arrived is {found[kind]}, that of "
            f"the object is {expected}. Run again; if it happens again, the object is damaged."
        )


@contextmanager
def outgoing(value: Any, key: str, home: Path, *, overwrite: bool | None, send: bool) -> Iterator[Any]:
    """Yield where to write an output that a key names; after the block, send it there if it is an address.

    Args:
        value: an address such as `s3://BUCKET/NAME`, or any other value, which is yielded as it is.
        key: the key, for messages.
        home: the home folder, under which the output is written first.
        overwrite: whether an existing object may be replaced; None: the task has no such key.
        send: whether this process sends it; of several ranks one does.

    Raises:
        ConfigError: the address is malformed, or is that of something that exists.
        NetworkError: the service does not accept it.
    """
    if not isinstance(value, str) or not is_object(value):
        yield value
        return
    scheme, _, path = value.partition("://")
    if scheme == "hf":
        raise ConfigError(f"{key}: nothing is written to hf://. Set task.push_to=ORG/NAME to send a model to the hub.")
    storage, path = ObjectStorage.of(value, key), path.rstrip("/")
    if not PurePosixPath(path).parent.name:
        raise ConfigError(f"{key}: {value!r} names no object. Write it as {scheme}://BUCKET/NAME.")
    if not overwrite and (storage.look_up(path) is not None or storage.list(path)):
        otherwise = "remove it" if overwrite is None else "set task.overwrite=true"
        raise ConfigError(f"{key}: {value} exists already. Choose another name, or {otherwise}.")
    local = home / OUTGOING / hash_bytes(value.encode())[:16] / PurePosixPath(path).name
    try:
        local.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise storage_error(local.parent, error) from error
    if send and local.exists() and not overwrite:
        log.warning(
            "%s: an earlier start wrote %s and could not send it. Copy it to %s yourself, or remove it.",
            *(key, local, value),
        )
    yield str(local)
    if send:
        try:
            _send(storage, local, path)
        except NetworkError as error:
            raise NetworkError(f"{error} The output is complete in {local}; copy it there yourself.") from error
        log.info("%s: sent to %s.", key, value)
        shutil.rmtree(local.parent, ignore_errors=True)


def _send(storage: ObjectStorage, local: Path, path: str) -> None:
    # Of a file, also what was written beside it, such as pictures; of neither, locks.
    top = local if local.is_dir() else local.parent
    beneath = path if local.is_dir() else path.rpartition("/")[0]
    files = [one for one in top.rglob("*") if one.is_file() and not one.name.startswith(".")]
    names = {f"{beneath}/{one.relative_to(top).as_posix()}": one for one in files}
    for name, file in sorted(names.items(), key=lambda item: (item[1].name in _LAST, item[0])):
        with storage.explained(name):
            storage.files.put_file(str(file), name)
        facts, digests = storage.look_up(name), _digests(file)
        arrived = facts is not None and facts.size == file.stat().st_size
        if not arrived or facts is None or not (_agree(facts, digests) or storage.is_encrypted_by_key(name)):
            raise NetworkError(f"{storage.key}: {storage.scheme}://{name}: has other bytes than those that were sent.")


def _agree(facts: ObjectFacts, digests: Mapping[str, str]) -> bool:
    return facts.digest is None or digests[facts.digest[0]] == facts.digest[1]


def _pattern(path: str) -> str:
    """Return a pattern that matches what a path with a range names, and more; other paths stay."""
    head, _, name = path.rpartition("/")
    if ".." not in name:
        return path
    begins = [name.index(mark) for mark in RANGE_MARKS if mark in name]
    return f"{head}/{name[: min(begins)]}*" if begins else path


def _range_check(path: str) -> Callable[[str], bool]:
    """Return whether a path with a range names an object; other paths name all that was found for them."""
    head, _, text = path.rpartition("/")
    found = RANGE.fullmatch(text)
    if found is None:
        return lambda name: True
    before, first, last, after = found.group("before", "first", "last", "after")
    # The extension may be left out.
    names = re.compile(rf"{re.escape(f'{head}/{before}')}(\d{{{len(first)},}}){re.escape(after)}(\..*)?")

    def is_named(name: str) -> bool:
        match = names.fullmatch(name)
        return match is not None and int(first) <= int(match[1]) <= int(last)

    return is_named


def _version(facts: ObjectFacts) -> dict[str, Any]:
    return {"size": facts.size, **facts.version}


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _blocks(storage: ObjectStorage, name: str, offset: int) -> Iterator[bytes]:
    """Yield the bytes of an object from an offset on; only errors of reading are explained, not those of the caller."""
    with storage.explained(name):
        source = storage.files.open(name, "rb", cache_type="none")
    with source:
        source.seek(offset)
        while True:
            with storage.explained(name):
                block = source.read(_BLOCK_BYTES)
            if not block:
                return
            yield block


def _digests(path: Path) -> dict[str, str]:
    hashes = {name: start_hash(name) for name in ("md5", "sha256")}
    with path.open("rb") as stream:
        while block := stream.read(_BLOCK_BYTES):
            for one in hashes.values():
                one.update(block)
    return {name: one.hexdigest() for name, one in hashes.items()}
