"""The proof that a Hugging Face folder holds the model: it is read again, and each tensor is compared bit for bit."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from bionemo_core.errors import ArtefactError
from bionemo_core.interop.connector import Connector
from bionemo_core.interop.huggingface import read_huggingface


@dataclass(frozen=True)
class ReadBack:
    """What was compared; every bit of it was equal."""

    num_tensors: int
    num_values: int


def compare_folder(folder: Path, connector: Connector, tensors: Mapping[str, Tensor]) -> ReadBack:
    """Read the folder by its connector, and compare every tensor with the one that was to be written.

    Rows that only pad a word table belong to no piece; the format does not store them, and they are not compared.

    Args:
        folder: a folder that `connector` has just written.
        connector: the connector.
        tensors: the tensors of the network, by their names in this framework.

    Raises:
        ArtefactError: a tensor is missing or differs.
    """
    found = connector.read(read_huggingface(folder)).tensors
    num_values = 0
    for name, tensor in tensors.items():
        again = found.get(name)
        if again is None or not _same_bits(tensor, again):
            found_as = "missing" if again is None else "different"
            raise ArtefactError(
                f"task.to=huggingface: tensor {name!r} is {found_as} when the folder is read again, so nothing was "
                "written. This is a fault of the connector; please report it to its authors."
            )
        num_values += again.numel()
    return ReadBack(len(tensors), num_values)


def _same_bits(written: Tensor, again: Tensor) -> bool:
    rows = written[: again.shape[0]] if again.dim() and again.shape[0] < written.shape[0] else written
    if rows.shape != again.shape or rows.dtype != again.dtype:
        return False
    # Not the values: NaN is unlike itself, and 0 is like -0.
    bits = [one.contiguous().reshape(-1).view(torch.uint8) for one in (rows, again)]
    return torch.equal(*bits)
