"""Writing tensors to a safetensors file, one at a time: no second copy in memory, and the hash is computed meanwhile.

The format is that of https://github.com/huggingface/safetensors: the length of the header (u64, little endian), the
header (JSON, padded with spaces to 8 bytes), the bytes of the tensors without gaps.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from bionemo_core.errors import CheckpointError
from bionemo_core.io.atomic import write_chunks
from bionemo_core.io.hashing import FileFacts

DTYPE_NAMES: dict[torch.dtype, str] = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint64: "U64",
    torch.uint32: "U32",
    torch.uint16: "U16",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
DTYPES_BY_NAME = {name: dtype for dtype, name in DTYPE_NAMES.items()}


def check_storable(tensor: torch.Tensor, where: str) -> None:
    """Check that `tensor` is dense, has data, and has a dtype that the format supports.

    Raises:
        CheckpointError: it does not; `where` names it in the message.
    """
    if type(tensor) not in (torch.Tensor, torch.nn.Parameter):
        problem = f"is a {type(tensor).__name__}; pass its local part as a plain tensor"
    elif tensor.layout is not torch.strided or tensor.is_meta or tensor.is_quantized:
        problem = f"is {'on the meta device' if tensor.is_meta else f'{tensor.layout}'}; only dense tensors are saved"
    elif tensor.dtype not in DTYPE_NAMES:
        problem = f"has dtype {tensor.dtype}; supported are {', '.join(str(d) for d in DTYPE_NAMES)}"
    else:
        return
    raise CheckpointError(f"checkpoint: {where} {problem}.")


def write_tensors(
    path: Path,
    tensors: Mapping[str, torch.Tensor],
    at_half: Callable[[], None] = lambda: None,
    metadata: Mapping[str, str] | None = None,
) -> FileFacts:
    """Write `tensors` to a new safetensors file, which is on the disk when this returns.

    `at_half` is called half-way. `metadata` are texts that the header holds beside the tensors.

    Raises:
        OSError: the file cannot be written; `filename` is set.
    """
    keys = stored_order(tensors)
    header: dict[str, Any] = {} if metadata is None else {"__metadata__": dict(metadata)}
    header |= tensor_header(tensors)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)

    def chunks() -> Iterator[bytes | memoryview]:
        yield len(text).to_bytes(8, "little")
        yield text
        for i, key in enumerate(keys):
            if i == len(keys) // 2:
                at_half()
            yield tensor_bytes(tensors[key])

    return write_chunks(path, chunks())


def stored_order(tensors: Mapping[str, torch.Tensor]) -> list[str]:
    """Return the names in file order: widest elements first, so that each tensor is aligned to its element size."""
    return sorted(tensors, key=lambda key: (-tensors[key].element_size(), key))


def split_by_size(tensors: Mapping[str, torch.Tensor], most_bytes: int) -> list[list[str]]:
    """Group the names by file, at most `most_bytes` in each; a tensor that is larger has a group of its own."""
    groups: list[list[str]] = [[]]
    used = 0
    for name, tensor in tensors.items():
        size = tensor.numel() * tensor.element_size()
        if groups[-1] and used + size > most_bytes:
            groups.append([])
            used = 0
        groups[-1].append(name)
        used += size
    return groups


def tensor_header(tensors: Mapping[str, torch.Tensor]) -> dict[str, dict[str, Any]]:
    """Return the header entry of each tensor, in file order."""
    header: dict[str, dict[str, Any]] = {}
    end = 0
    for key in stored_order(tensors):
        tensor = tensors[key]
        start, end = end, end + tensor.numel() * tensor.element_size()
        header[key] = {
            "dtype": DTYPE_NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [start, end],
        }
    return header


def tensor_bytes(tensor: torch.Tensor) -> memoryview:
    """Return the elements of a tensor as the bytes that the format stores."""
    if tensor.numel() == 0:
        return memoryview(b"")
    flat = tensor.detach().to("cpu").contiguous().reshape(-1)
    return memoryview(flat.view(torch.uint8).numpy())  # type: ignore[arg-type]  # numpy's stubs need 3.12 for Buffer
