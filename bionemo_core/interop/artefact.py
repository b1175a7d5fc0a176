"""Artefacts, the format for sharing a model: safetensors and one JSON document of plain values.

An artefact is a folder with `artefact.json` and its tensors, or one `.safetensors` file whose header holds the same
JSON. Names in it are looked up in the registry; nothing in it is resolved, imported or called.
"""

import dataclasses
import json
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch

from bionemo_core.checkpoint.manifest import regular_files, to_json, versions
from bionemo_core.checkpoint.rank_agreement import open_together
from bionemo_core.checkpoint.shards import (
    check_storable,
    split_by_size,
    stored_order,
    tensor_bytes,
    tensor_header,
    write_tensors,
)
from bionemo_core.config.safe_json import check_keys, check_type, choice_from, parse_json, refuse_unsafe
from bionemo_core.errors import ArtefactError, ConfigError
from bionemo_core.interop.safetensors_files import FileTensors, read_header, tensor_names
from bionemo_core.interop.stored import ABSENT, AbsentParts, Carried, ModelSpec, StoredModel, Vocabulary
from bionemo_core.io.atomic import new_output, write_chunks
from bionemo_core.io.hashing import CHUNK_BYTES, FileFacts, hash_bytes, hash_chunks, hash_file

FORMAT = "bionemo-run/artefact"
FORMAT_VERSION = 1
DOCUMENT = "artefact.json"
WEIGHTS = "weights.safetensors"
CARRIED_TENSORS = "carried.safetensors"
METADATA_KEY = "bionemo-run"
SHARD_BYTES = 5 * 2**30

_SEAL = "sha256_of_the_rest"
_MAX_DOCUMENT_BYTES = 64 * 2**20
_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}\Z", re.ASCII)
_KEYS = ("model", "tokenizer", "vocabulary", "training", "origin", "versions", "weights", "carried", "files")


@dataclass(frozen=True)
class Artefact:
    """The description of a model that is written beside its tensors."""

    spec: ModelSpec
    vocabulary: Vocabulary
    training: Mapping[str, Any] = field(default_factory=dict)
    origin: Mapping[str, Any] = field(default_factory=dict)
    """The format and the name of the source, never a path; and under `absent` the parts that it lacked."""


def write_artefact(
    target: Path,
    artefact: Artefact,
    tensors: Mapping[str, torch.Tensor],
    carried: Carried | None = None,
    *,
    shard_bytes: int = SHARD_BYTES,
) -> None:
    """Write an artefact folder, or one file if `target` ends in `.safetensors`; `target` appears only when complete.

    Raises:
        ConfigError: `target` exists already, or a parameter is not a plain value.
        StorageError: the file system failed.
    """
    for name, tensor in tensors.items():
        check_storable(tensor, f"tensor '{name}'")
    document = {
        "model": dataclasses.asdict(artefact.spec.model),
        "tokenizer": dataclasses.asdict(artefact.spec.tokenizer),
        "vocabulary": dataclasses.asdict(artefact.vocabulary),
        "training": dict(artefact.training),
        "origin": dict(artefact.origin),
        "versions": versions(),
    }
    refuse_unsafe(document, "artefact", ConfigError)
    if target.suffix == ".safetensors":
        with new_output(target, folder=False) as path:
            _write_file(path, document, tensors)
        return
    with new_output(target, folder=True) as folder:
        _write_folder(folder, document, tensors, carried or Carried(), shard_bytes)


def open_artefact(path: Path) -> StoredModel:
    """Open the artefact at `path`, a folder or one file, after checking every byte of it, with `open_together`.

    Raises:
        ArtefactError: it is incomplete, damaged, of a newer format, or holds something that is not allowed.
    """
    open_checked = _open_folder if path.is_dir() else _open_file
    return open_together(partial(open_checked, path), ArtefactError)


def is_artefact(path: Path) -> bool:
    """Return whether `path` looks like an artefact; opening it may still fail."""
    return (path / DOCUMENT).is_file() or (path.is_file() and path.suffix == ".safetensors")


def _write_folder(
    folder: Path, document: dict[str, Any], tensors: Mapping[str, torch.Tensor], carried: Carried, shard_bytes: int
) -> None:
    shards = split_by_size(tensors, shard_bytes)
    listed: dict[str, FileFacts] = {}
    weights: dict[str, str] = {}
    for number, names in enumerate(shards, start=1):
        file = WEIGHTS if len(shards) == 1 else f"weights-{number:05d}-of-{len(shards):05d}.safetensors"
        listed[file] = write_tensors(folder / file, {name: tensors[name] for name in names})
        weights |= dict.fromkeys(names, file)
    places = {name: f"carried-{position:02d}" for position, name in enumerate(carried.files)}
    for name, content in carried.files.items():
        listed[places[name]] = write_chunks(folder / places[name], [content])
    if carried.tensors:
        listed[CARRIED_TENSORS] = write_tensors(folder / CARRIED_TENSORS, carried.tensors)
    document["weights"] = weights
    document["carried"] = {"format": carried.format, "files": places}
    document["files"] = {name: {"size": facts.size, "sha256": facts.sha256} for name, facts in sorted(listed.items())}
    write_chunks(folder / DOCUMENT, [_serialize(document)])


def _write_file(path: Path, document: dict[str, Any], tensors: Mapping[str, torch.Tensor]) -> None:
    data = hash_chunks(tensor_bytes(tensors[name]) for name in stored_order(tensors))
    document["weights"] = {"header": _json_hash(tensor_header(tensors)), "data": data}
    document["carried"] = {"format": "", "files": {}}
    document["files"] = {}
    write_tensors(path, tensors, metadata={METADATA_KEY: _serialize(document).decode()})


def _serialize(document: Mapping[str, Any]) -> bytes:
    return to_json({"format": FORMAT, "format_version": FORMAT_VERSION, **document, _SEAL: _json_hash(document)})


def _json_hash(content: Mapping[str, Any]) -> str:
    return hash_bytes(json.dumps(content, sort_keys=True).encode())


def _parse_document(text: bytes | str, where: str) -> dict[str, Any]:
    document = parse_json(text, where)
    if not isinstance(document, dict) or document.pop("format", None) != FORMAT:
        raise ArtefactError(f"{where}: expected an object with format {FORMAT!r}.")
    version = document.pop("format_version", None)
    if version != FORMAT_VERSION:
        raise ArtefactError(
            f"{where}: format_version is {version!r}, this version of bionemo-run reads {FORMAT_VERSION}. "
            "Update bionemo-run."
        )
    seal = document.pop(_SEAL, None)
    refuse_unsafe(document, where, ArtefactError)
    check_keys(document, _KEYS, where)
    if seal != _json_hash(document):
        raise ArtefactError(f"{where}: the content does not match its own checksum; it is damaged or was edited.")
    for key in _KEYS:
        check_type(document[key], dict, f"{where}: {key}")
    check_keys(document["vocabulary"], ("size", "sha256"), f"{where}: vocabulary")
    check_type(document["vocabulary"]["size"], int, f"{where}: vocabulary.size")
    check_keys(document["carried"], ("format", "files"), f"{where}: carried")
    check_type(document["carried"]["format"], str, f"{where}: carried.format")
    check_type(document["carried"]["files"], dict, f"{where}: carried.files")
    return document


def _to_stored_model(path: Path, document: dict[str, Any], tensors: FileTensors, carried: Carried) -> StoredModel:
    spec = ModelSpec(
        choice_from(document["model"], "model", f"{path}: model"),
        choice_from(document["tokenizer"], "tokenizer", f"{path}: tokenizer"),
    )
    return StoredModel(
        source=str(path),
        format="artefact",
        spec=spec,
        tensors=tensors,
        facts=document["training"],
        carried=carried,
        absent=AbsentParts.of_facts(document["origin"].get(ABSENT), f"{path}: origin"),
        vocabulary=Vocabulary(document["vocabulary"]["size"], str(document["vocabulary"]["sha256"])),
        close=tensors.close,
    )


def _open_folder(folder: Path, share: Callable[[Collection[str]], list[str]]) -> StoredModel:
    path = folder / DOCUMENT
    try:
        with path.open("rb") as file:
            text = file.read(_MAX_DOCUMENT_BYTES + 1)
    except OSError as error:
        raise ArtefactError(f"{path}: cannot be read: {error.strerror}; the artefact is incomplete.") from error
    if len(text) > _MAX_DOCUMENT_BYTES:
        raise ArtefactError(f"{path}: expected at most {_MAX_DOCUMENT_BYTES:,} bytes, the file is larger.")
    document = _parse_document(text, str(path))
    _check_files(folder, document["files"], share)
    weights, names = document["weights"], document["carried"]["files"]
    for name, file in (*weights.items(), *names.items()):
        check_type(file, str, f"{path}: {name}")
        if file not in document["files"]:
            raise ArtefactError(f"{path}: {name!r} is said to be in {file!r}, which is not one of the listed files.")
    try:
        contents = {name: (folder / file).read_bytes() for name, file in names.items()}
    except OSError as error:
        raise ArtefactError(f"{error.filename}: cannot be read: {error.strerror}.") from error
    carried = Carried(document["carried"]["format"], _read_carried_tensors(folder, document["files"]), contents)
    return _to_stored_model(folder, document, FileTensors(folder, weights), carried)


def _read_carried_tensors(folder: Path, listed: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    if CARRIED_TENSORS not in listed:
        return {}
    file = FileTensors(folder, dict.fromkeys(tensor_names(folder / CARRIED_TENSORS), CARRIED_TENSORS))
    tensors = {name: file.read(name) for name in file.names}
    file.close()
    return tensors


def _check_files(folder: Path, listed: Mapping[str, Any], share: Callable[[Collection[str]], list[str]]) -> None:
    for name, facts in listed.items():
        where = f"{folder}: file {name!r}"
        if not _FILE_NAME.match(name) or name == DOCUMENT:
            raise ArtefactError(f"{where}: not a name that an artefact's file may have.")
        check_keys(facts, ("size", "sha256"), where)
    try:
        found, hashed = regular_files(folder), share(listed)
        for name, facts in listed.items():
            got = found.get(name)
            if got is None or got < 0:
                raise ArtefactError(f"{folder / name}: {'missing' if got is None else 'not a regular file'}.")
            whole = got == facts["size"]
            if whole and name in hashed:
                whole = hash_file(folder / name, from_disk=True).sha256 == facts["sha256"]
            if not whole:
                raise ArtefactError(
                    f"{folder / name}: damaged or edited: got {got:,} bytes, expected {facts['size']} bytes with "
                    f"SHA-256 {str(facts['sha256'])[:16]}... Get the artefact again from its source."
                )
    except OSError as error:
        raise ArtefactError(f"{error.filename}: cannot be read: {error.strerror}.") from error


def _open_file(path: Path, share: Callable[[Collection[str]], list[str]]) -> StoredModel:
    header, start = read_header(path)
    metadata = header.pop("__metadata__", None)
    if not isinstance(metadata, dict) or not isinstance(metadata.get(METADATA_KEY), str):
        raise ArtefactError(
            f"{path}: it does not say which model it holds: its header has no {METADATA_KEY!r} entry. "
            "Give an artefact that task=convert wrote, or the folder with this file and its config.json."
        )
    document = _parse_document(metadata[METADATA_KEY], str(path))
    check_keys(document["weights"], ("header", "data"), f"{path}: weights")
    got = {"header": _json_hash(header)}
    if share([path.name]):
        with path.open("rb") as file:
            file.seek(start)
            got["data"] = hash_chunks(iter(partial(file.read, CHUNK_BYTES), b""))
    if differing := [key for key in got if got[key] != document["weights"][key]]:
        raise ArtefactError(
            f"{path}: damaged or edited: the SHA-256 of its {' and '.join(differing)} differs from the recorded one."
        )
    return _to_stored_model(path, document, FileTensors(path.parent, dict.fromkeys(header, path.name)), Carried())
