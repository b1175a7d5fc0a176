"""Hashes of bytes, files and plain values: the only module that imports hashlib.

SHA-256 vouches for files and names what was made of them. BLAKE2b, which is quicker, makes seeds, and fingerprints of
weights. Stored files and random streams depend on every digest here.
"""

import contextlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from hashlib import blake2b, sha256
from hashlib import new as hash_by_name
from pathlib import Path
from typing import Any, NamedTuple, Protocol

CHUNK_BYTES = 16 * 2**20
_LEAST_CHUNK_BYTES = 2**16


class FileFacts(NamedTuple):
    """The facts about one file in a manifest."""

    size: int
    sha256: str


class Hash(Protocol):
    """A hash that is updated piece by piece."""

    @property
    def digest_size(self) -> int:
        """The length of the digest, in bytes."""

    def update(self, content: Any, /) -> None:
        """Add bytes, or any object with the buffer protocol."""

    def hexdigest(self) -> str:
        """Return the digest of all added bytes, in hexadecimal."""


def start_hash(algorithm: str = "sha256") -> Hash:
    """Return an empty hash, to be updated piece by piece.

    Args:
        algorithm: sha256, or another one that the origin of a file names it by.
    """
    return hash_by_name(algorithm, usedforsecurity=False)


def hash_bytes(content: bytes) -> str:
    """Return the SHA-256 of some bytes, in hexadecimal."""
    return sha256(content).hexdigest()


def hash_chunks(chunks: Iterable[bytes | memoryview]) -> str:
    """Return the SHA-256 of the concatenated chunks, in hexadecimal."""
    digest = sha256()
    for chunk in chunks:
        digest.update(chunk)
    return digest.hexdigest()


def hash_file(path: Path, *, from_disk: bool = False) -> FileFacts:
    """Return the size and SHA-256 of a file.

    Args:
        path: the file.
        from_disk: read past the page cache where the system allows, so that a bad write is not verified against memory.

    Raises:
        OSError: it cannot be read; `filename` is set.
    """
    digest = sha256()
    size = 0
    with naming_errors(path):
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            if from_disk and hasattr(os, "posix_fadvise"):
                with contextlib.suppress(OSError):  # a hint only
                    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            buffer = bytearray(min(CHUNK_BYTES, max(_LEAST_CHUNK_BYTES, os.fstat(descriptor).st_size)))
            view = memoryview(buffer)
            while count := os.readv(descriptor, [buffer]):
                digest.update(view[:count])
                size += count
        finally:
            os.close(descriptor)
    return FileFacts(size, digest.hexdigest())


def fingerprint_chunks(chunks: Iterable[bytes | memoryview]) -> str:
    """Return 32 hexadecimal digits for the concatenated chunks, by BLAKE2b: faster than SHA-256 for weights."""
    digest = blake2b(digest_size=16)
    for chunk in chunks:
        digest.update(chunk)
    return digest.hexdigest()


def derive_seed(content: bytes) -> bytes:
    """Return 8 bytes that seed a random stream, by BLAKE2b of the stream's name."""
    return blake2b(content, digest_size=8).digest()


def canonical(value: object) -> bytes:
    """Return the canonical JSON text of a plain value, for hashing."""
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def fingerprint_of(value: object) -> str:
    """Return a short name for a plain value: 32 hexadecimal digits of its SHA-256."""
    return hash_bytes(canonical(value))[:32]


def seal(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Return the manifest with the SHA-256 of its other entries added."""
    body = {key: value for key, value in manifest.items() if key != "sha256"}
    return {**body, "sha256": hash_bytes(canonical(body))}


@contextlib.contextmanager
def naming_errors(path: Path) -> Iterator[None]:
    """Add the path to an OSError of a call on a descriptor."""
    try:
        yield
    except OSError as failure:
        if failure.filename is None:
            failure.filename = str(path)
        raise
