"""The manifest of a checkpoint: its step, the size and SHA-256 of each file, and a hash of the manifest itself."""

import json
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from bionemo_core._version import __version__
from bionemo_core.checkpoint.folder_names import MANIFEST
from bionemo_core.errors import CheckpointError
from bionemo_core.io.hashing import FileFacts, hash_bytes

FORMAT = 1
_MAX_BYTES = 64 * 2**20
_SEAL = "sha256_of_the_rest"


@dataclass(frozen=True)
class Manifest:
    """The content of `manifest.json`; `facts` are as `state.encode` returned them."""

    step: int
    consumed_samples: int
    files: Mapping[str, FileFacts]
    facts: Any
    versions: Mapping[str, str | None]


@cache
def versions() -> dict[str, str | None]:
    """Return the versions of the packages that write a checkpoint; None for one that is not installed."""

    def version(name: str) -> str | None:
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            return None

    found = {name: version(name) for name in ("torch", "pytorch-lightning", "megatron-core", "safetensors")}
    return {"bionemo-run": __version__, **found}


def to_json(value: object) -> bytes:
    """Return `value` as JSON in the one form that checkpoint files use; the order of mappings is kept."""
    return (json.dumps(value, indent=1, allow_nan=False) + "\n").encode()


def pack(manifest: Manifest) -> bytes:
    """Return the bytes of `manifest.json`."""
    body = {
        "format": FORMAT,
        "step": manifest.step,
        "consumed_samples": manifest.consumed_samples,
        "files": {name: {"size": f.size, "sha256": f.sha256} for name, f in manifest.files.items()},
        "facts": manifest.facts,
        "versions": dict(manifest.versions),
    }
    return to_json({**body, _SEAL: _seal(body)})


def read(folder: Path) -> Manifest:
    """Read the manifest of the checkpoint in `folder`.

    Raises:
        CheckpointError: it is missing, damaged, edited, or of a newer format.
    """
    path = folder / MANIFEST
    try:
        with path.open("rb") as file:
            raw = file.read(_MAX_BYTES + 1)
    except FileNotFoundError:
        raise CheckpointError(f"checkpoint: {folder} has no {MANIFEST}, so it is not a complete checkpoint.") from None
    except OSError as failure:
        raise CheckpointError(f"checkpoint: {path} cannot be read: {failure.strerror}.") from failure
    if len(raw) > _MAX_BYTES:
        raise CheckpointError(f"checkpoint: {path} is not a manifest: it is larger than {_MAX_BYTES:,} bytes.")
    try:
        return _parse(raw)
    except CheckpointError as failure:
        raise CheckpointError(f"checkpoint: {path}: {failure}") from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as failure:
        raise CheckpointError(f"checkpoint: {path} is damaged or was edited: {failure!r}.") from failure


def regular_files(folder: Path) -> dict[str, int]:
    """Return the sizes of the files in `folder` by name; links, folders and devices have size -1.

    Raises:
        OSError: it cannot be listed.
    """
    sizes = {}
    for entry in folder.iterdir():
        found = entry.lstat()
        sizes[entry.name] = found.st_size if stat.S_ISREG(found.st_mode) else -1
    return sizes


def _parse(raw: bytes) -> Manifest:
    body = json.loads(raw)
    if type(body["format"]) is int and body["format"] > FORMAT:
        raise CheckpointError(
            f"its format {body['format']} is newer than {FORMAT}, the newest that this version of bionemo-run reads. "
            "Update bionemo-run."
        )
    if to_json(body) != raw or body.pop(_SEAL) != _seal(body) or body["format"] != FORMAT:
        raise CheckpointError("the content does not match its own checksum; the file is damaged or was edited.")
    step, consumed = body["step"], body["consumed_samples"]
    if type(step) is not int or type(consumed) is not int:
        raise ValueError("step or consumed_samples is not a whole number")
    files = {name: FileFacts(facts["size"], facts["sha256"]) for name, facts in body["files"].items()}
    return Manifest(step, consumed, files, body["facts"], dict(body["versions"]))


def _seal(body: Mapping[str, object]) -> str:
    return hash_bytes(to_json(body))
