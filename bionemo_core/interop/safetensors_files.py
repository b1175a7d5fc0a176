"""Tensors in safetensors files, which are opened when needed; an invalid file raises `ArtefactError`."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from bionemo_core.config.safe_json import parse_json
from bionemo_core.errors import ArtefactError
from bionemo_core.interop.stored import slice_block

_MAX_HEADER_BYTES = 100 * 2**20  # the format's own limit


class FileTensors:
    """The tensors of one or several safetensors files under one folder."""

    def __init__(self, folder: Path, file_of: Mapping[str, str]) -> None:
        """Open the files and check that each holds the tensors that `file_of`, tensor name to file, assigns to it.

        Raises:
            ArtefactError: a file is missing or damaged, or holds other tensors.
        """
        self._folder, self._file_of = folder, dict(file_of)
        self._handles: dict[str, Any] = {}
        self._shapes: dict[str, tuple[int, ...]] = {}
        for file in sorted(set(self._file_of.values())):
            handle = self._open_file(file)
            found = set(handle.keys())
            expected = {name for name, tensor_file in self._file_of.items() if tensor_file == file}
            if found != expected:
                raise ArtefactError(
                    f"{folder / file}: its tensors are not the listed ones; "
                    f"they differ in {', '.join(sorted(found ^ expected)[:3])}."
                )
            self._shapes |= {name: tuple(handle.get_slice(name).get_shape()) for name in found}

    @property
    def names(self) -> Collection[str]:
        """The names of the tensors that can be read."""
        return self._file_of.keys()

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a tensor."""
        return self._shapes[name]

    def read(
        self, name: str, offset: tuple[int, ...] | None = None, shape: tuple[int, ...] | None = None
    ) -> torch.Tensor:
        """Read a tensor, or its block of `shape` at `offset`.

        Raises:
            ArtefactError: the block exceeds the tensor, or the file cannot be read.
        """
        try:
            tensor: torch.Tensor = self._open_file(self._file_of[name]).get_tensor(name)
        except SafetensorError as error:
            raise ArtefactError(
                f"{self._folder / self._file_of[name]}: damaged ({error}). Copy or download it again."
            ) from error
        return slice_block(tensor, name, offset, shape)

    def close(self) -> None:
        """Close the files; the next read opens them again."""
        self._handles.clear()

    def _open_file(self, file: str) -> Any:
        if file not in self._handles:
            path = self._folder / file
            try:
                self._handles[file] = safe_open(path, framework="pt", device="cpu")
            except (OSError, SafetensorError) as error:
                raise ArtefactError(f"{path}: not readable as safetensors ({error}).") from error
        return self._handles[file]


def tensor_names(path: Path) -> list[str]:
    """Return the names of the tensors in a file.

    Raises:
        ArtefactError: it is not readable as safetensors.
    """
    return [name for name in read_header(path)[0] if name != "__metadata__"]


def read_header(path: Path) -> tuple[dict[str, Any], int]:
    """Read the header of a safetensors file; return it and the offset at which the data begins.

    Raises:
        ArtefactError: there is no header, or it is larger than the format allows.
    """
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            text = file.read(length) if length <= _MAX_HEADER_BYTES else b""
    except OSError as error:
        raise ArtefactError(f"{path}: cannot be read: {error.strerror}.") from error
    if len(text) != length or not length:
        raise ArtefactError(f"{path}: not a safetensors file: it does not begin with a header.")
    header = parse_json(text, str(path))
    if not isinstance(header, dict):
        raise ArtefactError(f"{path}: not a safetensors file: its header is not a JSON object.")
    return header, 8 + length
