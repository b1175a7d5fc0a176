"""Reading tensors from a torch file, the only supported format that contains a pickle.

The opcodes of the pickle are checked before torch reads it; a global name that is not needed to rebuild tensors is
refused. torch's restricted reader then reads the file, and every tensor must lie within the bytes of its storage.
"""

import pickletools
import re
import zipfile
from typing import IO

import torch

from bionemo_core.errors import ArtefactError

MAX_PICKLE_BYTES = 64 * 2**20
"""The largest pickle that is read; it holds names and shapes, the numbers are separate entries of the file."""
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
    """Read the tensors of a state dict that `torch.save` wrote, to the CPU; entries of None are left out.

    Raises:
        ArtefactError: it is not such a file, its pickle names anything but tensors, or a tensor is invalid.
    """
    _check_entries(file, where)
    file.seek(0)
    try:
        content = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # torch's reader raises at least six kinds of exception
        raise ArtefactError(f"{where}: torch's restricted reader refused it ({_first_line(error)}).") from error
    if not isinstance(content, dict):
        raise ArtefactError(f"{where}: got a {type(content).__name__}, expected a mapping of names to tensors.")
    tensors = {}
    for name, value in content.items():
        if value is not None:
            tensors[_check_name(name, where)] = _check_tensor(value, f"{where}: tensor {name!r}")
    return tensors


def _check_entries(file: IO[bytes], where: str) -> None:
    file.seek(0)
    if file.read(4) != b"PK\x03\x04":
        raise ArtefactError(
            f"{where}: not a zip file, which torch writes since version 1.6. Older files are plain pickles and are not "
            "read. Load it with the program that wrote it, and save it as safetensors."
        )
    file.seek(0)
    try:
        with zipfile.ZipFile(file) as entries:
            listed = entries.infolist()
            if len({entry.filename for entry in listed}) != len(listed) or len(listed) > _MAX_ENTRIES:
                raise ArtefactError(f"{where}: it holds an entry twice, or more than {_MAX_ENTRIES:,} entries.")
            for entry in listed:
                if not _ENTRY.fullmatch(entry.filename):
                    raise ArtefactError(f"{where}: entry {entry.filename[:120]!r} does not belong in a torch file.")
                if entry.compress_type != zipfile.ZIP_STORED or entry.file_size != entry.compress_size:
                    raise ArtefactError(
                        f"{where}: entry {entry.filename!r} is compressed, which torch.save never does."
                    )
            pickles = [entry for entry in listed if entry.filename.endswith("/data.pkl")]
            if len(pickles) != 1 or pickles[0].file_size > MAX_PICKLE_BYTES:
                raise ArtefactError(f"{where}: expected one data.pkl of at most {MAX_PICKLE_BYTES:,} bytes.")
            _check_opcodes(entries.read(pickles[0]), where)
            # torch writes checksums but does not verify them.
            if damaged := entries.testzip():
                raise ArtefactError(
                    f"{where}: entry {damaged!r} is damaged: its checksum differs. Copy or download it again."
                )
    except (zipfile.BadZipFile, OSError, ValueError, EOFError, NotImplementedError) as error:
        raise ArtefactError(
            f"{where}: damaged ({type(error).__name__}: {error}). Copy or download it again."
        ) from error


def _check_opcodes(program: bytes, where: str) -> None:
    for opcode, argument, _ in pickletools.genops(program):
        if opcode.name == "GLOBAL" and argument in _ALLOWED:
            continue
        if opcode.name == "GLOBAL" or opcode.name in _IMPORTING:
            action = f"names {str(argument)[:120]!r}" if opcode.name == "GLOBAL" else f"uses {opcode.name}"
            raise ArtefactError(
                f"{where}: refused before loading: its pickle {action}, which no tensor needs and which could run code."
            )


def _check_name(name: object, where: str) -> str:
    if not isinstance(name, str):
        raise ArtefactError(f"{where}: a key is a {type(name).__name__}, expected a name.")
    return name


def _check_tensor(value: object, where: str) -> torch.Tensor:
    if not isinstance(value, torch.Tensor):
        raise ArtefactError(f"{where}: got a {type(value).__name__}; a file of weights holds only tensors.")
    if value.layout is not torch.strided or value.is_quantized or value.device.type != "cpu":
        raise ArtefactError(f"{where}: not a plain dense tensor.")
    tensor = value.detach()
    # With strides of 0, a few bytes could claim a tensor of any size.
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        raise ArtefactError(f"{where}: its shape {list(tensor.shape)} needs more bytes than its storage has.")
    return tensor


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)[:200]
