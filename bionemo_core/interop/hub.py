"""Models by address: downloaded once to a cache under the home folder, and verified each time they are used.

An address is `https://...`, `ngc://org/team/model:version[/file]`, or a name of the Hugging Face hub such as
`facebook/esm2_t6_8M_UR50D`, with an optional `@revision`. `#sha256=...` after an address gives the expected hash.
"""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from bionemo_core.config.safe_json import parse_json
from bionemo_core.errors import ArtefactError, ConfigError, NetworkError
from bionemo_core.interop.huggingface import (
    CONFIG,
    INDEX,
    PICKLED_INDEX,
    PICKLED_WEIGHTS,
    TOKENIZER_FILES,
    WEIGHTS,
    weight_map,
)
from bionemo_core.io.atomic import write_json
from bionemo_core.io.download import cache_folder, fetch, name_of
from bionemo_core.io.hashing import hash_file
from bionemo_core.io.locks import lock_beside

HUB_VARIABLE = "HF_ENDPOINT"
"""The environment variable that names a mirror; Hugging Face's own tools read it too."""
HUB = "https://huggingface.co"
OFFLINE_VARIABLE = "HF_HUB_OFFLINE"
"""The environment variable that forbids requests to the hub; Hugging Face's own tools read it too."""
NGC_VARIABLE = "BIONEMO_NGC_ENDPOINT"
NGC = "https://api.ngc.nvidia.com"

_HUB_NAME = re.compile(r"(?P<name>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(?:@(?P<revision>[\w./-]+))?", re.ASCII)
_NGC_NAME = re.compile(
    r"ngc://(?P<org>[\w-]+)/(?:(?P<team>[\w-]+)/)?(?P<model>[\w.-]+):(?P<version>[\w.-]+)(?:/(?P<file>[\w.-]+))?",
    re.ASCII,
)
_COMMIT = re.compile(r"[0-9a-f]{40}", re.ASCII)
_FILE = re.compile(r"[A-Za-z0-9][\w.+-]{0,127}", re.ASCII)
_SHA256 = re.compile(r"[0-9a-f]{64}", re.ASCII)
_RECORD = "downloaded.json"
_LISTING = "listing.json"
_MAX_LISTING_BYTES = 16 * 2**20
_MODEL_FILES = (".nemo", ".safetensors", ".ckpt", ".bin", ".pt", ".pth", ".json", ".tar", ".gz", ".zip")


def is_address(path: str) -> bool:
    """Return whether `path` is an address.

    A name of the hub is one only if it cannot be meant as a path: nothing has that path, it does not end like a file
    of a model, and there is no folder called like its first part. With `@revision` the folder does not matter.
    """
    if path.startswith(("http://", "https://", "ngc://")):
        return True
    match = _HUB_NAME.fullmatch(path)
    if match is None or Path(path).exists() or path.lower().endswith(_MODEL_FILES):
        return False
    return match["revision"] is not None or not Path(path).parent.is_dir()


def is_offline() -> bool:
    """Return whether the environment forbids requests to the hub."""
    return os.environ.get(OFFLINE_VARIABLE, "").upper() in ("1", "ON", "YES", "TRUE")


def fetch_model(address: str, home: Path) -> Path:
    """Download the file or folder that `address` names, unless it is cached under `home`; return its path.

    Raises:
        ArtefactError: the cached copy has changed since the download, or the hub's listing is invalid.
        ConfigError: the address is malformed.
        NetworkError: the download failed.
    """
    if address.startswith("ngc://"):
        return _fetch_file(_ngc_url(address), home)
    if "://" in address:
        return _fetch_file(address, home)
    match = _HUB_NAME.fullmatch(address)
    if match is None:
        raise ConfigError(f"{address}: not an address. Expected owner/model, https://... or ngc://org/model:version.")
    return _fetch_hub_folder(match["name"], match["revision"] or "main", home / "downloads" / "hub")


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


def _fetch_hub_folder(name: str, revision: str, hub: Path) -> Path:
    endpoint = (os.environ.get(HUB_VARIABLE) or HUB).rstrip("/")
    root = hub / name.replace("/", "--")
    with lock_beside(root / _RECORD, "download"):
        if _COMMIT.fullmatch(revision) and (root / revision / _RECORD).is_file():
            return _verify_folder(root / revision)
        listing = _fetch_listing(endpoint, name, revision, root)
        commit, listed = _read_listing(listing)
        folder = root / commit
        if (folder / _RECORD).is_file():
            return _verify_folder(folder)
        base = f"{endpoint}/{name}/resolve/{commit}"
        for file in _list_needed_files(folder, base, listed):
            fetch(f"{base}/{file}", folder / file, sha256=listed[file])
        paths = [path for path in folder.iterdir() if path.name in listed]
        _write_record(folder, {path.name: hash_file(path, from_disk=True).sha256 for path in paths})
    return folder


def _fetch_listing(endpoint: str, name: str, revision: str, root: Path) -> Path:
    """Ask the hub for the commit and the files of a revision; a branch may have moved, so it is asked each time.

    Raises:
        ConfigError: $HF_HUB_OFFLINE forbids it.
        NetworkError: the hub does not answer, or has no such model.
    """
    listing = root / _LISTING
    if is_offline():
        kept = sorted(folder.parent.name for folder in root.glob(f"*/{_RECORD}"))
        known = f"Downloaded before: {' or '.join(f'{name}@{commit}' for commit in kept)}." if kept else ""
        raise ConfigError(
            f"{name}: there is nothing at this path, and {OFFLINE_VARIABLE} forbids asking the Hugging Face hub for "
            f"{revision!r}. {known or 'It was never downloaded. Give the path of a model.'}"
        )
    listing.unlink(missing_ok=True)
    url = f"{endpoint}/api/models/{name}/revision/{quote(revision, safe='')}?blobs=true"
    try:
        return fetch(url, listing, max_bytes=_MAX_LISTING_BYTES)
    except NetworkError as error:
        raise NetworkError(
            f"{name}: there is nothing at this path, so it was looked up on the Hugging Face hub. {error}"
        ) from error


def _list_needed_files(folder: Path, base: str, listed: Mapping[str, str | None]) -> list[str]:
    """Return the names of the model's files that are needed: never a pickle if there are safetensors."""
    if CONFIG not in listed:
        raise ArtefactError(f"{base}: not a model that can be read: the hub lists no {CONFIG} there.")
    needed = [CONFIG, *(name for name in TOKENIZER_FILES if name in listed)]
    for index, weights in ((INDEX, WEIGHTS), (PICKLED_INDEX, PICKLED_WEIGHTS)):
        if index in listed:
            path = fetch(f"{base}/{index}", folder / index, sha256=listed[index])
            shards = sorted(set(weight_map(path).values()))
            if absent := [shard for shard in shards if shard not in listed]:
                raise ArtefactError(f"{base}: {index} names {absent[0]!r}, which the hub does not list.")
            return [*needed, index, *shards]
        if weights in listed:
            return [*needed, weights]
    raise ArtefactError(f"{base}: no weights there. Expected {WEIGHTS}, or {INDEX} and the files that it names.")


def _read_listing(path: Path) -> tuple[str, dict[str, str | None]]:
    """Read a hub listing: the commit of the revision, and its files, with their SHA-256 if the hub gives it."""
    content = parse_json(path.read_bytes(), str(path))
    commit = content.get("sha") if isinstance(content, dict) else None
    if not isinstance(commit, str) or not _COMMIT.fullmatch(commit) or not isinstance(content.get("siblings"), list):
        raise ArtefactError(f"{path}: not a listing of the hub: expected a commit ('sha') and its files ('siblings').")
    listed: dict[str, str | None] = {}
    for entry in content["siblings"]:
        name = entry.get("rfilename") if isinstance(entry, dict) else None
        if isinstance(name, str) and _FILE.fullmatch(name):
            stored = entry.get("lfs")
            digest = stored.get("sha256") if isinstance(stored, dict) else None
            listed[name] = digest if isinstance(digest, str) and _SHA256.fullmatch(digest) else None
    return commit, listed


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


def _verify_folder(folder: Path) -> Path:
    for name, expected in _read_record(folder).items():
        path = folder / name
        if not path.is_file() or hash_file(path, from_disk=True).sha256 != expected:
            raise ArtefactError(f"{path}: changed since the download. Remove the folder {folder} to download it again.")
    return folder
