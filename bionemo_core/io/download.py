"""Downloads that continue where they stopped, and get their final name only after the checksum was verified."""

import json
import logging
import time
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from bionemo_core.errors import ConfigError, NetworkError, StorageError
from bionemo_core.io.atomic import publish, storage_error
from bionemo_core.io.hashing import Hash, hash_bytes, start_hash
from bionemo_core.io.http import Body, Interrupted, Stale, Version, hide_secrets, open_url
from bionemo_core.io.locks import lock_beside
from bionemo_core.io.progress import BYTES, Progress, format_bytes
from bionemo_core.machine import disk_free_bytes

log = logging.getLogger("bionemo")

MAX_BYTES = 2**40
"""A download may have this many bytes unless the caller allows fewer; an endless stream stops here or at the disk."""

_BLOCK_BYTES = 1 << 20
_LONGEST_WAIT_S = 60.0
_RESERVE_BYTES = 1 << 30
"""Space that a download of unknown size leaves free on the disk."""

_fetched: dict[Path, str] = {}
"""The files that this process took from a download, with their addresses."""


def fetch(
    url: str,
    destination: Path,
    *,
    sha256: str | None = None,
    md5: str | None = None,
    attempts: int = 6,
    timeout_s: float = 60.0,
    first_wait_s: float = 1.0,
    max_bytes: int = MAX_BYTES,
) -> Path:
    """Return `destination`; download it unless it exists and has the given checksums.

    What has arrived is kept in `<destination>.part` and continued, in this call or in a later one, as long as the
    server says that the file is still the same. A broken connection and a server's own trouble are tried again after
    1, 2, 4 ... seconds; any progress resets that count.

    Args:
        url: an address with http, https, ftp or file.
        destination: a path in a folder that may be made.
        sha256: the SHA-256 that the file must have, in hexadecimal.
        md5: the MD5 that it must have.
        attempts: failures in a row, without any progress, after which to give up.
        timeout_s: how long the server may be silent.
        first_wait_s: the pause after the first failure.
        max_bytes: a larger file is refused.

    Raises:
        ConfigError: a checksum or the address is not one.
        DataError: a file: address names no file.
        NetworkError: the server does not give the file, gives another one, or sends more than `max_bytes`.
        StorageError: the file cannot be written, or there is no space for it.
    """
    _fetched[destination] = hide_secrets(url)
    expected = Checksums.of(sha256=sha256, md5=md5)
    if destination.is_file() and expected.match(destination):
        return destination
    with lock_beside(destination, "download"):
        if destination.is_file():  # another process may have been quicker
            if expected.match(destination):
                return destination
            log.warning("download: %s does not have the expected checksum; it is downloaded again.", destination)
        transfer = _Transfer(url, destination, expected, timeout_s, max_bytes)
        try:
            _persist(transfer, attempts, first_wait_s)
        except OSError as error:
            raise storage_error(destination, error) from error
    return destination


def cache_folder(home: Path, url: str) -> Path:
    """Return the folder under the home folder for the downloads of an address; each address has its own."""
    return home / "downloads" / hash_bytes(url.encode())[:16]


def removal_advice(message: str) -> str:
    """Return how to repeat a download if the error `message` names one that this process used, else an empty text."""
    for path, address in _fetched.items():
        if str(path) in message and path.exists():
            return f" {path} was downloaded from {address}. If the copy is damaged, remove it to download it again."
    return ""


def name_of(url: str, default: str = "download") -> str:
    """Return the file name at the end of an address, or `default` if there is none."""
    return PurePosixPath(unquote(urlsplit(url).path)).name or default


@dataclass(frozen=True)
class Checksums:
    """The expected hashes of a file, by algorithm; all in lower case."""

    expected: dict[str, str]

    @classmethod
    def of(cls, **given: str | None) -> "Checksums":
        """Make the checksums that are given.

        Raises:
            ConfigError: one has not the length of its kind, or other characters than hexadecimal digits.
        """
        expected = {name: value.strip().lower() for name, value in given.items() if value}
        for name, value in expected.items():
            digits = start_hash(name).digest_size * 2
            if len(value) != digits or value.strip("0123456789abcdef"):
                raise ConfigError(f"{name}: {value!r} is not a checksum, expected {digits} hexadecimal digits.")
        return cls(expected)

    def match(self, path: Path) -> bool:
        """Return whether a file has these hashes; true for any file if none is expected."""
        return not self.difference(path)

    def difference(self, path: Path) -> str:
        """Return how a file's hashes differ from the expected ones; empty if they do not.

        Raises:
            OSError: it cannot be read.
        """
        if not self.expected:
            return ""
        hashes: dict[str, Hash] = {name: start_hash(name) for name in self.expected}
        with path.open("rb") as stream:
            while block := stream.read(_BLOCK_BYTES):
                for one in hashes.values():
                    one.update(block)
        found = {name: one.hexdigest() for name, one in hashes.items()}
        wrong = [name for name in found if found[name] != self.expected[name]]
        return " and ".join(f"{name} is {found[name]}, expected {self.expected[name]}" for name in wrong)


class _Part:
    """The part of a file that has arrived, and the version of the file that it belongs to."""

    def __init__(self, url: str, destination: Path) -> None:
        self.path = destination.with_name(f"{destination.name}.part")
        self._facts_path = destination.with_name(f"{destination.name}.part.json")
        # The address may hold a password, so only its hash is kept.
        self._address = hash_bytes(url.encode())
        self.version = Version()
        self.total: int | None = None
        self._recall()

    def _recall(self) -> None:
        try:
            facts = json.loads(self._facts_path.read_bytes())
            if facts["address"] != self._address:
                raise ValueError("of another address")
            self.version, self.total = Version(str(facts["etag"]), str(facts["modified"])), facts["total"]
            if not (self.total is None or isinstance(self.total, int)):
                raise ValueError("size is not a number")
        except (OSError, ValueError, KeyError, TypeError):
            self.discard()

    @property
    def size(self) -> int:
        """The number of bytes that have arrived."""
        return self.path.stat().st_size if self.path.exists() else 0

    @property
    def complete(self) -> bool:
        """Whether all bytes have arrived; false if the server did not announce a size."""
        return self.total is not None and self.path.exists() and self.size == self.total

    def start(self, version: Version, total: int | None) -> None:
        """Start again with this version; remove the old bytes first, so that they never count as the new version's."""
        self.discard()
        self.version, self.total = version, total
        facts = {"address": self._address, "etag": version.etag, "modified": version.modified, "total": total}
        self._facts_path.write_text(json.dumps(facts))

    def discard(self) -> None:
        """Delete what has arrived."""
        self.path.unlink(missing_ok=True)
        self._facts_path.unlink(missing_ok=True)
        self.version, self.total = Version(), None

    def publish(self, destination: Path) -> None:
        """Give the file its final name."""
        publish(self.path, destination)
        self._facts_path.unlink(missing_ok=True)


@dataclass
class _Transfer:
    url: str
    destination: Path
    expected: Checksums
    timeout_s: float
    max_bytes: int

    def __post_init__(self) -> None:
        self.name = hide_secrets(self.url)
        self.part = _Part(self.url, self.destination)

    def run(self) -> None:
        """Receive the missing bytes, check the whole file, and publish it.

        Raises:
            Interrupted: it may go better at another try.
        """
        part = self.part
        # Without a version or a checksum nothing would tell that the rest is of another file.
        offset = part.size if part.version or self.expected.expected else 0
        if part.total is not None and offset > part.total:
            part.discard()
            offset = 0
        if not part.complete:
            with open_url(self.url, offset, part.version, self.timeout_s) as body:
                self._receive(body)
        if difference := self.expected.difference(part.path):
            part.discard()
            if offset:
                raise Interrupted(f"the downloaded parts do not form the expected file: {difference}")
            raise NetworkError(
                f"download: {self.name}: {difference}. The checksum is not that of the server's file; correct the "
                "address or the checksum."
            )
        part.publish(self.destination)

    def _receive(self, body: Body) -> None:
        part = self.part
        if body.start == 0:
            part.start(body.version, body.total)
        elif body.start != part.size:
            raise Stale(f"the server continued at byte {body.start:,} instead of {part.size:,}")
        self._check_space(body)
        most = self._most_bytes(body)
        log.info("download: %s: %s of %s left to download.", self.destination.name, *_sizes(body))
        progress = Progress(f"download {self.destination.name}", body.total, start=body.start, unit=BYTES)
        with part.path.open("ab") as stream, progress:
            while block := body.read(_BLOCK_BYTES):
                stream.write(block)
                progress.advance(len(block))
                if stream.tell() > most:
                    break
        if body.total is None and part.size > most:
            self._refuse_endless(most)
        if body.total is not None and part.size != body.total:
            if part.size > body.total:
                raise Stale(f"got {part.size:,} bytes, the server had announced {body.total:,}")
            raise Interrupted(f"the connection ended after {part.size:,} of {body.total:,} bytes")

    def _most_bytes(self, body: Body) -> int:
        """Return the size at which to stop: the announced one, else the limit, or less to leave the disk some space."""
        if body.total is not None:
            return body.total
        free = disk_free_bytes(self.destination.parent)
        return min(self.max_bytes, self.part.size + max(0, free - _RESERVE_BYTES))

    def _refuse_endless(self, most: int) -> None:
        self.part.discard()
        sent = f"download: {self.name}: the server sent more than {format_bytes(most)} and did not announce a size"
        if most < self.max_bytes:
            raise StorageError(f"{sent}; the disk of {self.destination.parent} is nearly full. Free space there.")
        raise NetworkError(f"{sent}. Check the address, or download the file yourself and give its path.")

    def _check_space(self, body: Body) -> None:
        if body.total is None:
            return
        if body.total > self.max_bytes:
            raise NetworkError(
                f"download: {self.name}: the server announces {format_bytes(body.total)}, expected at most "
                f"{format_bytes(self.max_bytes)}. Check the address, or download the file yourself and give its path."
            )
        missing, free = body.total - body.start, disk_free_bytes(self.destination.parent)
        if missing > free:
            raise StorageError(
                f"download: {self.name}: {format_bytes(missing)} left to download, but {self.destination.parent} has "
                f"{format_bytes(free)} free. Free space there, or name another folder."
            )


def _sizes(body: Body) -> tuple[str, str]:
    """Return the remaining and total bytes as text."""
    if body.total is None:
        return "all", "an unknown size"
    return format_bytes(body.total - body.start), format_bytes(body.total)


def _persist(transfer: _Transfer, attempts: int, first_wait_s: float) -> None:
    """Run the transfer until it succeeds or no longer makes progress.

    Raises:
        NetworkError: it does not succeed.
    """
    part, failures, furthest = transfer.part, 0, transfer.part.size
    while True:
        try:
            transfer.run()
            return
        except Interrupted as error:
            failure = error
        # A server that always starts over and always breaks off makes no progress beyond its furthest byte.
        failures = 1 if part.size > furthest else failures + 1
        furthest = max(furthest, part.size)
        if isinstance(failure, Stale):
            part.discard()
        if failures >= attempts:
            kept = f" {format_bytes(part.size)} are kept in {part.path}; run again to continue." if part.size else ""
            raise NetworkError(
                f"download: {transfer.name}: failed {failures} times in a row, last because {failure}.{kept} "
                "Check the connection and the address."
            ) from failure
        wait_s = min(_LONGEST_WAIT_S, max(first_wait_s * 2 ** (failures - 1), failure.wait_s))
        log.warning(
            "download: %s: %s. Try %d follows in %.3g s, from byte %s.",
            transfer.name, failure, failures + 1, wait_s, f"{part.size:,}",
        )  # fmt: skip
        time.sleep(wait_s)
