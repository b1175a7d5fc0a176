"""v1 `.nemo` archives: a YAML configuration, the weights of every rank, and the files of the tokenizer."""

import io
import tarfile
import tempfile
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import torch
import yaml
from torch import Tensor

from bionemo_core.errors import ArtefactError
from bionemo_core.interop.archive import CONFIG, WEIGHTS, open_archive
from bionemo_core.interop.connector import ForeignModel
from bionemo_core.interop.foreign_config import ForeignConfig
from bionemo_core.interop.merging import merge_shards
from bionemo_core.interop.torch_pickle import load_tensors
from bionemo_core.interop.yaml_text import read_yaml
from bionemo_core.io.atomic import new_output
from bionemo_core.io.exhaustion import chain_of
from bionemo_core.io.hashing import hash_bytes

_REFERENCE = "nemo:"
_HALF_PRECISION_WRAPPER = "module"


def read_nemo(path: Path) -> ForeignModel:
    """Read the model in an archive and merge its shards; references to members become names in `files`.

    Raises:
        ArtefactError: it is not a valid `.nemo` archive.
    """
    with open_archive(path) as members:
        shards = {
            rank: load_tensors(file, f"{path}: {WEIGHTS} of rank {rank}") for rank, file in members.weights.items()
        }
    where = f"{path}: {CONFIG}"
    config = read_yaml(members.config, where)
    files: dict[str, bytes] = {}
    config = _resolve_references(config, members.files, files, where)
    tensors = merge_shards(shards, str(path))
    if config.get("megatron_amp_O2") is True:
        tensors = {_strip_wrapper(name): tensor for name, tensor in tensors.items()}
    return ForeignModel(ForeignConfig(config, where), tensors, files)


def write_nemo(target: Path, model: ForeignModel) -> None:
    """Write `model` to the archive `target`, which appears only when it is complete.

    Raises:
        ConfigError: `target` exists already.
        StorageError: the file system failed.
    """
    members = {name: f"{hash_bytes(content)[:32]}_{name}" for name, content in model.files.items()}
    config = _add_references(model.config.values, members)
    with new_output(target, folder=False) as path, tempfile.TemporaryFile(dir=path.parent) as weights:
        _save(_copy_storages(model.tensors), weights)
        with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as tar:
            folder = tarfile.TarInfo("./")
            folder.type, folder.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(folder)
            for name, member in members.items():
                _add_member(tar, member, io.BytesIO(model.files[name]))
            _add_member(tar, CONFIG, io.BytesIO(yaml.safe_dump(config, sort_keys=False).encode()))
            _add_member(tar, WEIGHTS, weights)


def _save(tensors: Mapping[str, Tensor], file: IO[bytes]) -> None:
    """Write tensors with torch, which says of a full disk only that its own position is unexpected.

    Raises:
        OSError: the file system refused.
    """
    try:
        torch.save(tensors, file)
    except RuntimeError as error:
        raise next((one for one in chain_of(error) if isinstance(one, OSError)), error) from None


def _add_member(tar: tarfile.TarFile, name: str, content: IO[bytes]) -> None:
    member = tarfile.TarInfo(f"./{name}")
    member.size, member.mode = content.seek(0, io.SEEK_END), 0o644
    content.seek(0)
    tar.addfile(member, content)


def _resolve_references(value: Any, members: Mapping[str, bytes], files: dict[str, bytes], where: str) -> Any:
    """Replace `nemo:<id>_<name>` in the configuration by `<name>`, and add the content of that member to `files`."""
    if isinstance(value, dict):
        return {str(key): _resolve_references(inner, members, files, f"{where}: {key}") for key, inner in value.items()}
    if isinstance(value, list):
        return [_resolve_references(inner, members, files, where) for inner in value]
    if not isinstance(value, str) or not value.startswith(_REFERENCE):
        return value
    member = value.removeprefix(_REFERENCE)
    if member not in members:
        raise ArtefactError(f"{where}: refers to member {member[:120]!r}, which is not in the archive.")
    name = member.partition("_")[2]
    if files.setdefault(name, members[member]) != members[member]:
        raise ArtefactError(f"{where}: two members have the name {name!r} and different contents.")
    return name


def _add_references(value: Any, members: Mapping[str, str]) -> Any:
    if isinstance(value, Mapping):
        return {key: _add_references(inner, members) for key, inner in value.items()}
    if isinstance(value, str) and value in members:
        return _REFERENCE + members[value]
    return value


def _strip_wrapper(name: str) -> str:
    """Return a name without the wrapper that `megatron_amp_O2` inserts after its first part."""
    first, _, rest = name.partition(".")
    return f"{first}.{rest.removeprefix(f'{_HALF_PRECISION_WRAPPER}.')}"


def _copy_storages(tensors: Mapping[str, Tensor]) -> "OrderedDict[str, Tensor]":
    """Copy each tensor to storage of its own, because torch saves the whole storage that a view refers to."""
    copies: dict[int, Tensor] = {}
    for tensor in tensors.values():
        copies.setdefault(id(tensor), tensor.detach().clone(memory_format=torch.contiguous_format))
    return OrderedDict((name, copies[id(tensor)]) for name, tensor in tensors.items())
