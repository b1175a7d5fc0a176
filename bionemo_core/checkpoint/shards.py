"""Tensors to a safetensors file, one at a time: no second copy in memory, and the hash on the way.

The format is that of https://github.com/huggingface/safetensors: the header's length (u64, little
endian), the header (JSON, padded with spaces to 8 bytes), the tensors' bytes without gaps.
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
DTYPES = {name: dtype for dtype, name in DTYPE_NAMES.items()}


def check_storable(tensor: torch.Tensor, where: str) -> None:
    """Passes if `tensor` is dense, has data, and a dtype that the format knows.

    Raises:
        CheckpointError: it is not, with `where` to say which.
    """
    if type(tensor) not in (torch.Tensor, torch.nn.Parameter):
        got = f"is a {type(tensor).__name__}; give its local part as a plain tensor"
    elif tensor.layout is not torch.strided or tensor.is_meta or tensor.is_quantized:
        got = f"is {'on the meta device' if tensor.is_meta else f'{tensor.layout}'}; only dense tensors are saved"
    elif tensor.dtype not in DTYPE_NAMES:
        got = f"has dtype {tensor.dtype}; known are {', '.join(str(d) for d in DTYPE_NAMES)}"
    else:
        return
    raise CheckpointError(f"checkpoint: {where} {got}.")


def write_tensors(
    path: Path,
    tensors: Mapping[str, torch.Tensor],
    at_half: Callable[[], None] = lambda: None,
    metadata: Mapping[str, str] | None = None,
) -> FileFacts:
    """Writes `tensors` to a new safetensors file, on the disk when it returns; `at_half` is called midway.

    `metadata` are texts that the header holds beside the tensors.

    Raises:
        OSError: with `filename` set.
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
    """The names in the order of a file: widest elements first, so that each is aligned to its element size."""
    return sorted(tensors, key=lambda key: (-tensors[key].element_size(), key))


def split_by_size(tensors: Mapping[str, torch.Tensor], most_bytes: int) -> list[list[str]]:
    """The names in groups, one a file, of at most so many bytes each; a larger tensor has a group of its own."""
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
    """What the header says of each tensor, in the order of the file."""
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
    """The elements of a tensor as the format holds them."""
    if tensor.numel() == 0:
        return memoryview(b"")
    flat = tensor.detach().to("cpu").contiguous().reshape(-1)
    return memoryview(flat.view(torch.uint8).numpy())  # type: ignore[arg-type]  # numpy's stubs need 3.12 for Buffer
