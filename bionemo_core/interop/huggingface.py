"""Hugging Face folders: config.json, weights in one or several safetensors files, and the tokenizer's files."""

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from bionemo_core.checkpoint.shards import split_by_size, write_tensors
from bionemo_core.config.safe_json import check_type, parse_json
from bionemo_core.errors import ArtefactError
from bionemo_core.interop.connector import ForeignModel
from bionemo_core.interop.foreign_config import ForeignConfig
from bionemo_core.interop.safetensors_files import FileTensors, tensor_names
from bionemo_core.interop.torch_pickle import load_tensors
from bionemo_core.io.atomic import new_output, write_chunks, write_json

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
SHARDS = "model-*-of-*.safetensors"
"""The pattern of the files that an index names."""
CARD = "README.md"
PICKLED_WEIGHTS = "pytorch_model.bin"
PICKLED_INDEX = "pytorch_model.bin.index.json"
PICKLED_SHARDS = "pytorch_model-*-of-*.bin"
TOKENIZER_FILES = (
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "spiece.model",
)
SHARD_BYTES = 5 * 2**30

_MAX_JSON_BYTES = 16 * 2**20
_MAX_FILE_BYTES = 64 * 2**20
_SHARD = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}", re.ASCII)


def is_huggingface_folder(path: Path) -> bool:
    """Return whether `path` looks like a Hugging Face folder; reading it may still fail."""
    return (path / CONFIG).is_file()


def read_huggingface(folder: Path) -> ForeignModel:
    """Read the model in `folder`; its safetensors are read only when they are looked up.

    Raises:
        ArtefactError: a file is missing, damaged or invalid.
    """
    config = _read_json(folder / CONFIG)
    tokenizer_files = {
        name: _read_limited(folder / name, _MAX_FILE_BYTES) for name in TOKENIZER_FILES if (folder / name).is_file()
    }
    return ForeignModel(ForeignConfig(config, str(folder / CONFIG)), _open_tensors(folder), tokenizer_files)


def write_huggingface(
    target: Path,
    model: ForeignModel,
    *,
    shard_bytes: int = SHARD_BYTES,
    describe: Callable[[Path], str] | None = None,
) -> None:
    """Write `model` to the folder `target`, which appears only when it is complete.

    Args:
        target: a folder that does not exist.
        model: the model.
        shard_bytes: the size above which the tensors are split over several files.
        describe: called with the folder once all else is in it; returns the model card. If it raises, nothing appears.

    Raises:
        ConfigError: `target` exists already.
        StorageError: the file system failed.
    """
    shards = split_by_size(model.tensors, shard_bytes)
    with new_output(target, folder=True) as folder:
        write_json(folder / CONFIG, dict(model.config.values), indent=2)
        for name, content in model.files.items():
            write_chunks(folder / name, [content])
        placed: dict[str, str] = {}
        for number, names in enumerate(shards, start=1):
            file = WEIGHTS if len(shards) == 1 else f"model-{number:05d}-of-{len(shards):05d}.safetensors"
            # transformers refuses a file without this metadata.
            write_tensors(folder / file, {name: model.tensors[name] for name in names}, metadata={"format": "pt"})
            placed |= dict.fromkeys(names, file)
        if len(shards) > 1:
            total = sum(tensor.numel() * tensor.element_size() for tensor in model.tensors.values())
            write_json(folder / INDEX, {"metadata": {"total_size": total}, "weight_map": placed}, indent=2)
        if describe is not None:
            write_chunks(folder / CARD, [describe(folder).encode()])


class _LazyTensors(Mapping[str, Tensor]):
    def __init__(self, tensors: FileTensors) -> None:
        self._open_tensors = tensors
        self._stored = {_modern_name(name): name for name in tensors.names}

    def __getitem__(self, name: str) -> Tensor:
        return self._open_tensors.read(self._stored[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self._stored)

    def __len__(self) -> int:
        return len(self._stored)

    def __contains__(self, name: object) -> bool:
        return name in self._stored


def _modern_name(name: str) -> str:
    """Return a tensor's PyTorch name: `transformers` still writes some norms under their TensorFlow names."""
    for old, new in (("LayerNorm.gamma", "LayerNorm.weight"), ("LayerNorm.beta", "LayerNorm.bias")):
        if name.endswith(old):
            return name.removesuffix(old) + new
    return name


def _open_tensors(folder: Path) -> Mapping[str, Tensor]:
    if (folder / INDEX).is_file():
        return _LazyTensors(FileTensors(folder, weight_map(folder / INDEX)))
    if (folder / WEIGHTS).is_file():
        return _LazyTensors(FileTensors(folder, dict.fromkeys(tensor_names(folder / WEIGHTS), WEIGHTS)))
    if (folder / PICKLED_INDEX).is_file():
        return _read_pickled(folder, sorted(set(weight_map(folder / PICKLED_INDEX).values())))
    if (folder / PICKLED_WEIGHTS).is_file():
        return _read_pickled(folder, [PICKLED_WEIGHTS])
    raise ArtefactError(f"{folder}: no weights there. Expected {WEIGHTS}, or {INDEX} and the files that it names.")


def _read_pickled(folder: Path, names: list[str]) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    for name in names:
        path = folder / name
        try:
            with path.open("rb") as file:
                tensors |= {_modern_name(key): value for key, value in load_tensors(file, str(path)).items()}
        except OSError as error:
            raise ArtefactError(f"{path}: cannot be read: {error.strerror}.") from error
        except ArtefactError as error:
            raise ArtefactError(
                f"{error} A .bin file is a pickle. If you trust it, convert it to {WEIGHTS} with save_pretrained of "
                "transformers."
            ) from error
    return tensors


def weight_map(path: Path) -> dict[str, str]:
    """Read an index: the name of the file that holds each tensor.

    Raises:
        ArtefactError: it is not such an index, or a file name in it is not plain.
    """
    placed = _read_json(path).get("weight_map")
    check_type(placed, dict, f"{path}: weight_map")
    assert isinstance(placed, dict)
    for name, file in placed.items():
        check_type(file, str, f"{path}: {name}")
        if not _SHARD.fullmatch(file):
            raise ArtefactError(f"{path}: tensor {name!r}: {file[:120]!r} is not a plain file name.")
    return placed


def _read_json(path: Path) -> dict[str, Any]:
    content = parse_json(_read_limited(path, _MAX_JSON_BYTES), str(path))
    if not isinstance(content, dict):
        raise ArtefactError(f"{path}: expected an object, got {type(content).__name__}.")
    return content


def _read_limited(path: Path, max_bytes: int) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(max_bytes + 1)
    except OSError as error:
        raise ArtefactError(f"{path}: cannot be read: {error.strerror}.") from error
    if len(content) > max_bytes:
        raise ArtefactError(f"{path}: expected at most {max_bytes:,} bytes, the file is larger.")
    return content
