"""Objects of a storage service, `s3://`, `gs://` and files of the Hugging Face hub, by fsspec; its only door.

Every failure names the user's key and says what to do; no message has a credential in it.
"""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

from bionemo_core.errors import BioNeMoError, ConfigError, DataError, NetworkError
from bionemo_core.io.exhaustion import find_exhaustion

_LOGIN = {
    "s3": "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY or AWS_PROFILE, or FSSPEC_S3_ANON=true for a public bucket",
    "gs": "run `gcloud auth application-default login` or set GOOGLE_APPLICATION_CREDENTIALS, or FSSPEC_GS_TOKEN=anon "
    "for a public bucket",
    "hf": "set HF_TOKEN to a token of an account that has access",
}
_EXTRAS = {"s3": ("s3", "s3fs"), "gs": ("gcs", "gcsfs"), "hf": ("hub", "huggingface-hub")}
_HUB_KINDS = ("datasets", "spaces", "models")
_DENIED = ("NoCredentialsError", "PartialCredentialsError", "DefaultCredentialsError", "GatedRepoError")
"""Names of exceptions of libraries that are not imported here."""
_VERSION_FIELDS = ("ETag", "etag", "md5Hash", "generation", "blob_id")
_TIME_FIELDS = ("LastModified", "updated", "mtime", "created")
_MD5 = re.compile(r"[0-9a-f]{32}", re.ASCII)


class Unreachable(NetworkError):
    """The service does not answer."""


class ObjectFacts(NamedTuple):
    """What a service says of one object."""

    size: int
    version: dict[str, str]
    """Changes whenever the object does: its etag and the like, or its time if there is none."""
    digest: tuple[str, str] | None
    """The name and the hexadecimal digits of a hash of its bytes, if the service seems to state one."""


def is_object(text: str) -> bool:
    """Return whether a value of a key names objects; `hf://owner/model` names a model and no file."""
    scheme, separator, path = text.partition("://")
    if not separator or scheme not in _EXTRAS:
        return False
    return scheme != "hf" or path.startswith(tuple(f"{kind}/" for kind in _HUB_KINDS)) or path.count("/") > 1


@dataclass(frozen=True)
class ObjectStorage:
    """The service that an address names.

    Attributes:
        scheme: s3, gs or hf.
        key: the user's key, for messages.
        files: the file system of fsspec.
    """

    scheme: str
    key: str
    files: Any

    @classmethod
    def of(cls, address: str, key: str) -> ObjectStorage:
        """Open the service of an address; no request is made.

        Raises:
            ConfigError: the address is malformed or holds a password, or the package for it is missing.
        """
        scheme, _, path = address.partition("://")
        if not path.strip("/") or "//" in path or ".." in path.split("/") or "\0" in path:
            raise ConfigError(f"{key}: {address!r} names no object. Write it as {scheme}://BUCKET/NAME.")
        if scheme != "hf" and "@" in path.partition("/")[0]:
            raise ConfigError(f"{key}: the address holds a password, which would be stored. Instead, {_LOGIN[scheme]}.")
        extra, package = _EXTRAS[scheme]
        try:
            import fsspec

            # Nothing is remembered: another process may write to the same place.
            options = {"endpoint": os.environ.get("HF_ENDPOINT") or None} if scheme == "hf" else {}
            files = fsspec.filesystem(scheme, use_listings_cache=False, skip_instance_cache=True, **options)
        except ImportError as error:
            raise ConfigError(f"{key}: {scheme}:// needs the extra `{extra}`: pip install {package}.") from error
        return cls(scheme, key, files)

    @contextmanager
    def explained(self, path: str) -> Iterator[None]:
        """Turn what the libraries raise about `path` in the block into errors of ours.

        Raises:
            DataError: there is no such object.
            NetworkError: there are no credentials, they do not suffice, or the service fails.
            Unreachable: the service does not answer.
        """
        try:
            yield
        except BioNeMoError:
            raise
        except Exception as error:  # the libraries of each service have their own, without a common base
            raise find_exhaustion(error) or self._explain(path, error) from error

    def _explain(self, path: str, error: Exception) -> Exception:
        where = f"{self.key}: {self.scheme}://{path}"
        status = getattr(getattr(error, "response", None), "status_code", getattr(error, "code", None))
        kinds = {kind.__name__ for kind in type(error).__mro__}
        said = _plain(error)
        if kinds & set(_DENIED):
            return NetworkError(
                f"{where}: there are no credentials for it ({said}). To have some, {_LOGIN[self.scheme]}."
            )
        denied = isinstance(error, PermissionError) or status in (401, 403) or said.startswith("Forbidden")  # gcsfs
        if denied or "RepositoryNotFoundError" in kinds:
            return NetworkError(
                f"{where}: access is denied ({said}). Check the name; to have access, {_LOGIN[self.scheme]}."
            )
        if isinstance(error, FileNotFoundError) or status == 404:
            private = f" If it is private, {_LOGIN['hf']}." if self.scheme == "hf" else ""
            return DataError(f"{where}: there is no such object ({said}). Check the address.{private}")
        if isinstance(error, ConnectionError | TimeoutError) or any(
            "Connect" in kind or "Timeout" in kind for kind in kinds
        ):
            return Unreachable(f"{where}: the service does not answer ({said}). Check the connection and the endpoint.")
        return NetworkError(f"{where}: {said}.")

    def look_up(self, path: str) -> ObjectFacts | None:
        """Return the facts of an object; None if there is no object of this name, but perhaps a folder."""
        with self.explained(path):
            try:
                info = self.files.info(path)
            except FileNotFoundError:
                return None
        return _facts(info) if info["type"] == "file" else None

    def list(self, pattern: str) -> dict[str, ObjectFacts]:
        """Return the objects that match a pattern with `*`, `?` or `**`, or lie under a folder, by name."""
        with self.explained(pattern):
            if "*" in pattern or "?" in pattern:
                found = self.files.glob(pattern, detail=True)
            else:
                found = self.files.find(pattern, detail=True)
        return {
            name: _facts(info)
            for name, info in found.items()
            # Some services have an empty object for each folder.
            if info["type"] == "file" and not name.endswith("/")
        }

    def is_encrypted_by_key(self, path: str) -> bool:
        """Return whether the service encrypts an object so that its ETag is no MD5; only S3 does."""
        if self.scheme != "s3":
            return False
        bucket, _, name = path.partition("/")
        with self.explained(path):
            answer = self.files.call_s3("head_object", Bucket=bucket, Key=name)
        return "kms" in str(answer.get("ServerSideEncryption", "")) or "SSECustomerAlgorithm" in answer


def _facts(info: dict[str, Any]) -> ObjectFacts:
    version = {name: str(info[name]) for name in _VERSION_FIELDS if info.get(name)}
    version = version or {name: str(info[name]) for name in _TIME_FIELDS if info.get(name)}
    etag, digest = str(info.get("ETag") or "").strip('"'), None
    if _MD5.fullmatch(etag):
        digest = "md5", etag
    elif info.get("md5Hash"):  # of Google
        digest = "md5", base64.b64decode(info["md5Hash"]).hex()
    elif (stored := info.get("lfs")) and stored.get("sha256"):  # of the hub, for large files
        digest = "sha256", stored["sha256"]
    return ObjectFacts(int(info["size"]), version, digest)


def _plain(error: BaseException) -> str:
    """Return the text of an error on one line, without the queries of addresses, which may be permissions."""
    text = " ".join(re.sub(r"\?[^\s'\"]+", "?***", str(error)).split()).rstrip(".")
    return text[:300] or type(error).__name__
