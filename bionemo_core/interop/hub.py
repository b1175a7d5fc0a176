"""Models by address: downloaded once to a cache, and verified each time they are used.

An address is `https://...`, `s3://...`, `gs://...`, `ngc://org/team/model:version[/file]`, or a name of the Hugging
Face hub such as `facebook/esm2_t6_8M_UR50D`, with an optional `@revision` and `hf://` before it. `#sha256=...` after an
https address gives the expected hash. Names of the hub are downloaded by `huggingface_hub` to its own cache, which
other programs share; the rest goes to the home folder.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from bionemo_core.config.safe_json import parse_json
from bionemo_core.errors import ArtefactError, ConfigError, NetworkError
from bionemo_core.interop.huggingface import (
    CONFIG,
    INDEX,
    PICKLED_INDEX,
    PICKLED_SHARDS,
    PICKLED_WEIGHTS,
    SHARDS,
    TOKENIZER_FILES,
    WEIGHTS,
)
from bionemo_core.io.atomic import write_json
from bionemo_core.io.download import cache_folder, fetch, name_of
from bionemo_core.io.exhaustion import find_exhaustion
from bionemo_core.io.hashing import hash_file, start_hash
from bionemo_core.io.locks import lock_beside
from bionemo_core.io.object_storage import is_object
from bionemo_core.io.staging import stage

HUB_VARIABLE = "HF_ENDPOINT"
"""The environment variable that names a mirror; Hugging Face's own tools read it too."""
HUB = "https://huggingface.co"
HUB_SCHEME = "hf://"
OFFLINE_VARIABLE = "HF_HUB_OFFLINE"
"""The environment variable that forbids requests to the hub; Hugging Face's own tools read it too."""
NGC_VARIABLE = "BIONEMO_NGC_ENDPOINT"
NGC = "https://api.ngc.nvidia.com"

_HUB_NAME = re.compile(
    r"(?P<name>[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95})(?:@(?P<revision>[\w.-][\w./-]*))?", re.ASCII
)
_NGC_NAME = re.compile(
    r"ngc://(?P<org>[\w-]+)/(?:(?P<team>[\w-]+)/)?(?P<model>[\w.-]+):(?P<version>[\w.-]+)(?:/(?P<file>[\w.-]+))?",
    re.ASCII,
)
_FILE = re.compile(r"[A-Za-z0-9][\w.+-]{0,127}", re.ASCII)
_SHA256 = re.compile(r"[0-9a-f]{64}", re.ASCII)
_GIT_SHA1 = re.compile(r"[0-9a-f]{40}", re.ASCII)
_RECORD = "downloaded.json"
_WEIGHTS = ((WEIGHTS, INDEX, SHARDS), (PICKLED_WEIGHTS, PICKLED_INDEX, PICKLED_SHARDS))
"""The names that weights may have: pickled ones, of which only tensors are read, where there are no others."""
_MODEL_FILES = (".nemo", ".safetensors", ".ckpt", ".bin", ".pt", ".pth", ".json", ".tar", ".gz", ".zip")


def is_address(path: str) -> bool:
    """Return whether `path` is an address.

    A name of the hub is one only if it cannot be meant as a path: nothing has that path, it does not end like a file
    of a model, and there is no folder called like its first part. With `@revision` the folder does not matter.
    """
    if path.startswith(("http://", "https://", "ngc://", HUB_SCHEME)) or is_object(path):
        return True
    match = _HUB_NAME.fullmatch(path)
    if match is None or Path(path).exists() or path.lower().endswith(_MODEL_FILES):
        return False
    return match["revision"] is not None or not Path(path).parent.is_dir()


def is_offline() -> bool:
    """Return whether the environment forbids requests to the hub."""
    return any(
        os.environ.get(name, "").upper() in ("1", "ON", "YES", "TRUE")
        for name in (OFFLINE_VARIABLE, "TRANSFORMERS_OFFLINE")
    )


def hub_endpoint() -> str:
    """Return the address of the hub, without a slash at its end."""
    return (os.environ.get(HUB_VARIABLE) or HUB).rstrip("/")


def import_hub_library(wanted_by: str) -> Any:
    """Return the module `huggingface_hub`.

    Raises:
        ConfigError: it is not installed; the message starts with `wanted_by`.
    """
    try:
        import huggingface_hub
    except ImportError as error:
        raise ConfigError(f"{wanted_by}: needs the extra `hub`: pip install huggingface-hub.") from error
    return huggingface_hub


def hide_token(text: str, token: str | None) -> str:
    """Return what a server said on one line, without the token and without the queries of addresses."""
    # An address may itself be a permission, by its query.
    words = re.sub(r"\?[^\s'\"]+", "?***", text.replace(token, "***") if token else text).split()
    return " ".join(words).rstrip(".")[:500]


def fetch_model(address: str, home: Path) -> Path:
    """Download the file or folder that `address` names, unless it is cached; return its path.

    Raises:
        ArtefactError: the cached copy has changed since the download, or has no weights that can be read.
        ConfigError: the address is malformed, the hub may not be asked, or `huggingface_hub` is missing.
        NetworkError: the download failed.
    """
    if address.startswith("ngc://"):
        return _fetch_file(_ngc_url(address), home)
    if is_object(address):
        return Path(stage(address, "restore_from_path", home))
    if "://" in address and not address.startswith(HUB_SCHEME):
        return _fetch_file(address, home)
    match = _HUB_NAME.fullmatch(address.removeprefix(HUB_SCHEME))
    if match is None:
        raise ConfigError(f"{address}: not an address. Expected owner/model, https://... or ngc://org/model:version.")
    return _fetch_hub_folder(match["name"], match["revision"] or "main")


def _fetch_file(address: str, home: Path) -> Path:
    url, _, fragment = address.partition("#")
    if urlsplit(url).password:
        raise ConfigError(
            "restore_from_path: the address holds a password, which would be stored in the run folder. Download the "
            "file yourself and give its path."
        )
    expected = fragment.removeprefix("sha256=") if fragment else None
    if expected is not None and not _SHA256.fullmatch(expected):
        raise ConfigError(f"{address}: after '#' expected sha256= and 64 hexadecimal digits.")
    name = name_of(url)
    if "path=" in urlsplit(url).query:
        name = urlsplit(url).query.rpartition("path=")[2]
    if not _FILE.fullmatch(name):
        raise ConfigError(f"{address}: its last part, {name!r}, cannot be used as a file name.")
    folder = cache_folder(home, url)
    with lock_beside(folder / _RECORD, "download"):
        known = _read_record(folder)
        wanted = expected or known.get(name)
        path = fetch(url, folder / name, sha256=wanted)
        if name not in known:
            _write_record(folder, {name: hash_file(path, from_disk=True).sha256})
    return path


def _fetch_hub_folder(name: str, revision: str) -> Path:
    where = f"{name}@{revision}"
    for weights in _WEIGHTS:
        wanted = [CONFIG, *TOKENIZER_FILES, *weights]
        folder = _fetch_files(name, revision, wanted)
        # Other programs may have more in the same folder.
        for path in sorted({path for pattern in wanted for path in folder.glob(pattern)}):
            _verify_blob(path)
        if not (folder / CONFIG).is_file():
            raise ArtefactError(f"{where}: not a model that can be read: the hub has no {CONFIG} there.")
        if any((folder / one).is_file() for one in weights):
            return folder
    raise ArtefactError(f"{where}: the hub has no {WEIGHTS}, {PICKLED_WEIGHTS} or index of several such files there.")


def _fetch_files(name: str, revision: str, wanted: list[str]) -> Path:
    """Return the folder of a repository in the library's cache, with those files that the repository has."""
    library = import_hub_library(name)
    from huggingface_hub.errors import HfHubHTTPError

    try:
        with _bars_on_terminals_only():
            downloaded = library.snapshot_download(
                name,
                revision=revision,
                endpoint=hub_endpoint(),
                local_files_only=is_offline(),
                allow_patterns=wanted,
            )
    except Exception as error:  # what the library raises if a server answers otherwise than the hub is not bounded
        failure = error if isinstance(error, HfHubHTTPError) else error.__cause__ or error
        raise find_exhaustion(error) or _hub_refusal(name, revision, failure, library.get_token()) from error
    return Path(downloaded)


@contextmanager
def _bars_on_terminals_only() -> Iterator[None]:
    """Keep the library's bars out of log files, unless a variable of its own decides."""
    from huggingface_hub import constants
    from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    decided = constants.HF_HUB_DISABLE_PROGRESS_BARS is not None
    if decided or sys.stderr.isatty() or are_progress_bars_disabled():
        yield
        return
    disable_progress_bars()
    try:
        yield
    finally:
        enable_progress_bars()


def _hub_refusal(name: str, revision: str, error: BaseException, token: str | None) -> ConfigError | NetworkError:
    """Return the error for what `huggingface_hub` raised; it says what to do."""
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    if is_offline():
        return ConfigError(
            f"{name}: there is nothing at this path, and {OFFLINE_VARIABLE} forbids asking the Hugging Face hub for "
            f"{revision!r}, of which the cache has no complete copy. Give the path of a model, or download it with a "
            f"network: `hf download {name}`."
        )
    endpoint = hub_endpoint()
    status = getattr(getattr(error, "response", None), "status_code", None)
    where = f"{name}: there is nothing at this path, so it was looked up on the Hugging Face hub. {endpoint} answered"
    login = "Set HF_TOKEN to a token of an account that has access, or log in with `hf auth login`."
    if isinstance(error, GatedRepoError):
        accept = f"The model is gated: accept its terms at {endpoint}/{name} with your account."
        known = "The account of your token has no access yet." if token else login
        return NetworkError(f"{where} with status {status}. {accept} {known}")
    if isinstance(error, RevisionNotFoundError):
        return NetworkError(f"{where} that there is no revision {revision!r}. Check what follows '@'.")
    if isinstance(error, RepositoryNotFoundError) or status == 401:
        if status == 401 and token:
            return NetworkError(
                f"{where} with status 401: it has no such model, or does not accept your token. Check the name; set "
                "HF_TOKEN to a valid token, or log in with `hf auth login`."
            )
        return NetworkError(f"{where} with status {status}: it has no such model, or a private one. {login}")
    if status == 403:
        owner = name.partition("/")[0]
        return NetworkError(f"{where} with status 403: your token may not read repositories of {owner}. {login}")
    return NetworkError(f"{where}: {hide_token(f'{error}', token)}.")


def _verify_blob(path: Path) -> None:
    """Compare a file of the hub's cache with its hash: the cache names each by SHA-256, or as git does.

    Raises:
        ArtefactError: it has changed.
    """
    blob = path.resolve()
    try:
        if _SHA256.fullmatch(blob.name):
            intact = hash_file(blob, from_disk=True).sha256 == blob.name
        elif _GIT_SHA1.fullmatch(blob.name):  # a small one
            content = blob.read_bytes()
            digest = start_hash("sha1")
            digest.update(b"blob %d\0" % len(content) + content)
            intact = digest.hexdigest() == blob.name
        else:  # a file system without links, or a mirror that names files in its own way
            return
    except OSError as error:
        raise ArtefactError(f"{path}: cannot be read: {error.strerror}.") from error
    if not intact:
        raise ArtefactError(f"{path}: changed since the download. Remove {blob} to download it again.")


def _ngc_url(address: str) -> str:
    match = _NGC_NAME.fullmatch(address)
    if match is None:
        raise ConfigError(
            f"{address}: expected ngc://org/team/model:version, followed by /file if the file is not MODEL.nemo."
        )
    endpoint = (os.environ.get(NGC_VARIABLE) or NGC).rstrip("/")
    team = f"/team/{match['team']}" if match["team"] else ""
    file = match["file"] or f"{match['model']}.nemo"
    return (
        f"{endpoint}/v2/models/org/{match['org']}{team}/{match['model']}/{match['version']}/files"
        f"?redirect=true&path={file}"
    )


def _read_record(folder: Path) -> dict[str, str]:
    path = folder / _RECORD
    if not path.is_file():
        return {}
    content: Any = parse_json(path.read_bytes(), str(path))
    if not isinstance(content, dict) or not all(isinstance(value, str) for value in content.values()):
        raise ArtefactError(f"{path}: damaged. Remove its folder to download the model again.")
    return content


def _write_record(folder: Path, hashes: Mapping[str, str]) -> None:
    write_json(folder / _RECORD, {**_read_record(folder), **hashes}, sort_keys=True)
