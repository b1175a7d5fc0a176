"""Members of a v1 `.nemo` archive, read without extracting; unexpected and duplicate members are refused."""

import gzip
import io
import re
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from bionemo_core.errors import ArtefactError
from bionemo_core.interop.yaml_text import MAX_BYTES

CONFIG = "model_config.yaml"
WEIGHTS = "model_weights.ckpt"
MAX_MEMBERS = 1024
MAX_FILE_BYTES = 64 * 2**20
"""The largest member that is neither weights nor configuration, such as the table of a tokenizer."""
MAX_HEADER_BYTES = 64 * 2**10
MAX_GZIP_RATIO = 20
"""Weights hardly compress, so an archive that unpacks to more than this times its size is an attack on memory."""
_SMALL = 64 * 2**20

_RANK = r"(?:mp_rank_(?P<mp>\d{2,3})|tp_rank_(?P<tp>\d{2,3})_pp_rank_(?P<pp>\d{3}))"
_FOLDER = re.compile(_RANK, re.ASCII)
_WEIGHTS = re.compile(rf"(?:{_RANK}/)?{re.escape(WEIGHTS)}", re.ASCII)
_FILE = re.compile(r"(?P<id>[0-9a-f]{32})_(?P<name>[A-Za-z0-9][A-Za-z0-9._+-]{0,127})", re.ASCII)
_GZIP = b"\x1f\x8b"

Rank = tuple[int, int]
"""A tensor-parallel and a pipeline-parallel rank."""


@dataclass
class Members:
    """The members of an open archive."""

    config: bytes = b""
    weights: dict[Rank, IO[bytes]] = field(default_factory=dict)
    """One seekable file for each rank."""
    files: dict[str, bytes] = field(default_factory=dict)
    """The other members, by the names that the configuration refers to."""


@contextmanager
def open_archive(path: Path) -> Iterator[Members]:
    """Open the archive; its members can be read within the `with` block.

    Raises:
        ArtefactError: it is not an archive; a member is missing; or a member does not belong in a `.nemo` archive,
            is there twice, is not a regular file, or is too large.
    """
    try:
        with path.open("rb") as raw:
            packed = raw.read(2) == _GZIP
            raw.seek(0)
            size = path.stat().st_size
            limit = max(_SMALL, MAX_GZIP_RATIO * size) if packed else size
            stream = _LimitedFile(gzip.GzipFile(fileobj=raw) if packed else raw, limit, str(path))
            # An explicit mode, because tarfile would otherwise try every compression that Python supports.
            with tarfile.open(fileobj=stream, mode="r:") as tar:  # type: ignore[call-overload]
                yield _read_members(tar, stream, path, packed)
    except (tarfile.TarError, EOFError, gzip.BadGzipFile, RecursionError, ValueError, OverflowError) as error:
        raise ArtefactError(f"{path}: not readable as a .nemo archive ({type(error).__name__}: {error}).") from error
    except OSError as error:
        raise ArtefactError(f"{path}: cannot be read: {error.strerror or error}.") from error


def _read_members(tar: tarfile.TarFile, stream: "_LimitedFile", path: Path, packed: bool) -> Members:
    listed = _list_members(tar, stream, path)
    if CONFIG not in listed:
        raise ArtefactError(f"{path}: not a .nemo archive: it has no {CONFIG}.")
    stream.reading = True
    members = Members()
    for name, member in listed.items():
        file = tar.extractfile(member)
        assert file is not None
        match = _WEIGHTS.fullmatch(name)
        if match:
            rank = _parse_rank(match)
            if rank in members.weights:
                raise ArtefactError(f"{path}: two members hold the weights of rank {rank} (tensor, pipeline).")
            # Each seek backwards in a gzip stream would decompress it from the start.
            members.weights[rank] = io.BytesIO(_read_exactly(file, member.size, path, name)) if packed else file
        else:
            content = _read_exactly(file, member.size, path, name)
            if name == CONFIG:
                members.config = content
            else:
                members.files[name] = content
    _check_ranks(members.weights, path)
    return members


def _list_members(tar: tarfile.TarFile, stream: "_LimitedFile", path: Path) -> dict[str, tarfile.TarInfo]:
    found: dict[str, tarfile.TarInfo] = {}
    seen: set[str] = set()
    while (member := tar.next()) is not None:
        name = member.name.removeprefix("./")
        where = f"{path}: member {member.name[:120]!r}"
        if member.isdir() and (name in ("", ".") or _FOLDER.fullmatch(name)):
            is_file = False
        else:
            _check_member(member, name, stream, where)
            is_file = True
        # Some systems treat names that differ only in case as one file.
        if name.lower() in seen:
            raise ArtefactError(f"{where}: the archive holds it twice.")
        seen.add(name.lower())
        if len(seen) > MAX_MEMBERS:
            raise ArtefactError(f"{path}: it has more than {MAX_MEMBERS} members.")
        if is_file:
            found[name] = member
    # tarfile takes a damaged header for the end of the archive, and would leave out what follows.
    if stream.last_read.strip(b"\0"):
        raise ArtefactError(
            f"{path}: damaged header after {len(seen)} members, at byte {tar.offset:,}. Copy or download it again."
        )
    return found


def _check_member(member: tarfile.TarInfo, name: str, stream: "_LimitedFile", where: str) -> None:
    if member.type not in (tarfile.REGTYPE, tarfile.AREGTYPE) or member.issparse():
        raise ArtefactError(f"{where}: not a regular file (type {member.type!r}).")
    weights = _WEIGHTS.fullmatch(name) is not None
    if not (weights or name == CONFIG or _FILE.fullmatch(name)):
        raise ArtefactError(
            f"{where}: does not belong in a .nemo archive. Expected {CONFIG}, {WEIGHTS} (in mp_rank_00/, ... if the "
            "model was split), and files named by 32 hexadecimal digits, '_' and a plain name."
        )
    max_bytes = stream.limit if weights else MAX_BYTES if name == CONFIG else MAX_FILE_BYTES
    if not 0 <= member.size <= max_bytes:
        raise ArtefactError(f"{where}: {member.size:,} bytes, expected at most {max_bytes:,}.")
    if member.offset_data + member.size > stream.limit:
        raise ArtefactError(f"{where}: it ends beyond the end of the archive, which is truncated or was edited.")


def _read_exactly(file: IO[bytes], size: int, path: Path, name: str) -> bytes:
    content = file.read(size)
    if len(content) != size:
        raise ArtefactError(
            f"{path}: member {name!r}: got {len(content):,} of {size:,} bytes; the archive is truncated. Copy or "
            "download it again."
        )
    return content


def _parse_rank(match: "re.Match[str]") -> Rank:
    if match["mp"] is not None:
        return int(match["mp"]), 0
    return int(match["tp"] or 0), int(match["pp"] or 0)


def _check_ranks(weights: dict[Rank, Any], path: Path) -> None:
    tensor_size = 1 + max((tensor for tensor, _ in weights), default=-1)
    pipeline_size = 1 + max((pipeline for _, pipeline in weights), default=-1)
    expected = {(tensor, pipeline) for tensor in range(tensor_size) for pipeline in range(pipeline_size)}
    if not weights or expected != weights.keys():
        missing = sorted(expected - weights.keys()) or "all"
        raise ArtefactError(f"{path}: {WEIGHTS} is missing for the ranks (tensor, pipeline) {missing}.")


class _LimitedFile(io.RawIOBase):
    """A file that refuses reads beyond `limit` bytes and, until `reading` is set, reads larger than a header."""

    def __init__(self, file: IO[bytes] | gzip.GzipFile, limit: int, where: str) -> None:
        self._file, self.limit, self._where = file, limit, where
        self.reading = False
        self.last_read = b""

    def read(self, size: int = -1) -> bytes:  # type: ignore[override]
        if not self.reading and not 0 <= size <= MAX_HEADER_BYTES:
            raise ArtefactError(f"{self._where}: header of {size:,} bytes, expected at most {MAX_HEADER_BYTES:,}.")
        content = self._file.read(size)
        self._check(self._file.tell())
        if not self.reading:
            self.last_read = content
        return content

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if whence == io.SEEK_SET:
            self._check(offset)
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def _check(self, position: int) -> None:
        if position > self.limit:
            raise ArtefactError(
                f"{self._where}: it unpacks to more than {self.limit:,} bytes, or a member ends beyond its end."
            )
