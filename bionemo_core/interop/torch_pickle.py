"""Tensors out of a torch file, the one format here that is a pickle.

Its opcodes are looked through before torch sees it: names other than those that rebuild tensors are a refusal.
What is left is read by torch's restricted reader, and every tensor must lie within the bytes that came with it.
"""

import pickletools
import re
import zipfile
from typing import IO

import torch

from bionemo_core.errors import ArtefactError

MAX_PICKLE_BYTES = 64 * 2**20
"""Of the list of names and shapes; the numbers lie beside it."""
_MAX_ENTRIES = 1_000_000
_ENTRY = re.compile(
    r"[^/]+/(?:data\.pkl|data/\d+|version|byteorder|\.format_version|\.storage_alignment|\.data/serialization_id)",
    re.ASCII,
)
_STORAGES = ("Double", "Float", "Half", "BFloat16", "Long", "Int", "Short", "Char", "Byte", "Bool")
_ALLOWED = frozenset(
    {
        "collections OrderedDict",
        "torch._utils _rebuild_tensor_v2",
        "torch._utils _rebuild_parameter",
        *(f"torch {kind}Storage" for kind in _STORAGES),
    }
)
_IMPORTING = frozenset({"INST", "OBJ", "NEWOBJ", "NEWOBJ_EX", "STACK_GLOBAL", "EXT1", "EXT2", "EXT4"})


def load_tensors(file: IO[bytes], where: str) -> dict[str, torch.Tensor]:
    """The tensors of a state dict that `torch.save` wrote, on the CPU; entries of None are left out.

    Raises:
        ArtefactError: it is no such file, names anything but tensors, or a tensor is not what it should be.
    """
    _check_entries(file, where)
    file.seek(0)
    try:
        content = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # torch's reader has at least six kinds
        raise ArtefactError(f"{where}: torch's restricted reader refuses it ({_first_line(error)}).") from error
    if not isinstance(content, dict):
        raise ArtefactError(f"{where}: it holds a {type(content).__name__}, expected a mapping of names to tensors.")
    tensors = {}
    for name, value in content.items():
        if value is not None:
            tensors[_check_name(name, where)] = _check_tensor(value, f"{where}: tensor {name!r}")
    return tensors


def _check_entries(file: IO[bytes], where: str) -> None:
    file.seek(0)
    if file.read(4) != b"PK\x03\x04":
        raise ArtefactError(
            f"{where}: not a zip file, as torch writes since 1.6; older ones are plain pickles and are not read. "
            "Load it where it came from, and save it again as safetensors."
        )
    file.seek(0)
    try:
        with zipfile.ZipFile(file) as entries:
            listed = entries.infolist()
            if len({one.filename for one in listed}) != len(listed) or len(listed) > _MAX_ENTRIES:
                raise ArtefactError(f"{where}: an entry is there twice, or there are more than {_MAX_ENTRIES:,}.")
            for one in listed:
                if not _ENTRY.fullmatch(one.filename):
                    raise ArtefactError(f"{where}: entry {one.filename[:120]!r} does not belong to a torch file.")
                if one.compress_type != zipfile.ZIP_STORED or one.file_size != one.compress_size:
                    raise ArtefactError(f"{where}: entry {one.filename!r} is compressed, which torch never does.")
            pickles = [one for one in listed if one.filename.endswith("/data.pkl")]
            if len(pickles) != 1 or pickles[0].file_size > MAX_PICKLE_BYTES:
                raise ArtefactError(f"{where}: expected one data.pkl of at most {MAX_PICKLE_BYTES:,} bytes.")
            _check_opcodes(entries.read(pickles[0]), where)
            # torch itself does not compare the checksums that it writes.
            if damaged := entries.testzip():
                raise ArtefactError(f"{where}: entry {damaged!r} is damaged: its checksum is another.")
    except (zipfile.BadZipFile, OSError, ValueError, EOFError, NotImplementedError) as error:
        raise ArtefactError(f"{where}: damaged ({type(error).__name__}: {error}).") from error


def _check_opcodes(program: bytes, where: str) -> None:
    for opcode, argument, _ in pickletools.genops(program):
        if opcode.name == "GLOBAL" and argument in _ALLOWED:
            continue
        if opcode.name == "GLOBAL" or opcode.name in _IMPORTING:
            named = f"names {str(argument)[:120]!r}" if opcode.name == "GLOBAL" else f"uses {opcode.name}"
            raise ArtefactError(
                f"{where}: refused unread: its pickle {named}, which no tensor needs and which could run code."
            )


def _check_name(name: object, where: str) -> str:
    if not isinstance(name, str):
        raise ArtefactError(f"{where}: a key is a {type(name).__name__}, expected names.")
    return name


def _check_tensor(value: object, where: str) -> torch.Tensor:
    if not isinstance(value, torch.Tensor):
        raise ArtefactError(f"{where}: is a {type(value).__name__}; a file of weights holds tensors only.")
    if value.layout is not torch.strided or value.is_quantized or value.device.type != "cpu":
        raise ArtefactError(f"{where}: not a plain dense tensor.")
    tensor = value.detach()
    # Strides of 0 would make a few bytes stand for any number of them.
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        raise ArtefactError(f"{where}: its shape {list(tensor.shape)} is larger than the bytes that came with it.")
    return tensor


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)[:200]
