"""Exact conversion of nested plain values and tensors to JSON and back.

Numbers, strings, None, lists and mappings with string keys become the same JSON values. Any other value becomes an
object with one key that starts with `$`: `{"$tuple": [...]}`, `{"$tensor": key}`, `{"$float": "nan"}`, and
`{"$items": [[key, value], ...]}` for a mapping with other keys. Finite floats are written in their shortest exact
form and come back bit for bit. A NaN comes back as a NaN, but its bits are not kept.
"""

import math
from collections.abc import Mapping
from typing import Any

import torch

from bionemo_core.checkpoint.shards import check_storable
from bionemo_core.errors import CheckpointError

_MAX_DEPTH = 64
_MAX_INT_BITS = 4096


def encode(value: object, tensors: dict[str, torch.Tensor] | None, path: str = "state") -> Any:
    """Return `value` in the form that JSON can hold; add its tensors to `tensors` under the keys in the result.

    Raises:
        CheckpointError: a value is neither plain nor a tensor; the message names its key path.
    """
    return _Encoder(tensors).encode(value, path, 0)


class _Encoder:
    def __init__(self, tensors: dict[str, torch.Tensor] | None) -> None:
        self.tensors = tensors

    def encode(self, value: object, path: str, depth: int) -> Any:
        if depth > _MAX_DEPTH:
            raise CheckpointError(f"checkpoint: {path[:80]}... is nested deeper than {_MAX_DEPTH} levels.")
        if isinstance(value, torch.Tensor) and self.tensors is not None:
            check_storable(value, path)
            key = f"{len(self.tensors)}:{path}"
            self.tensors[key] = value
            return {"$tensor": key}
        if isinstance(value, Mapping):
            return self._mapping(value, path, depth)
        # Types must match exactly: a subclass (an enum, a numpy scalar) would come back as another type.
        if type(value) in (list, tuple):
            items = [self.encode(item, f"{path}[{i}]", depth + 1) for i, item in enumerate(value)]  # type: ignore[var-annotated,arg-type]
            return items if type(value) is list else {"$tuple": items}
        if type(value) is float:
            return value if math.isfinite(value) else {"$float": repr(value)}
        if type(value) is int and value.bit_length() <= _MAX_INT_BITS:
            return value
        if value is None or type(value) in (bool, str):
            return value
        raise CheckpointError(
            f"checkpoint: {path} is a {type(value).__module__}.{type(value).__qualname__}; a checkpoint holds None, "
            "bool, int, float, str, lists, tuples, mappings" + (" and tensors." if self.tensors is not None else ".")
        )

    def _mapping(self, value: Mapping[Any, object], path: str, depth: int) -> Any:
        if all(type(key) is str and not key.startswith("$") for key in value):
            return {key: self.encode(item, f"{path}.{key}", depth + 1) for key, item in value.items()}
        pairs = []
        for key, item in value.items():
            if type(key) not in (str, int, bool, float, tuple, type(None)):
                raise CheckpointError(
                    f"checkpoint: {path} has a key of type {type(key).__name__}; "
                    "keys are str, int, float, bool or tuples of these."
                )
            where = f"{path}[{key!r}]"
            pairs.append([_Encoder(None).encode(key, where, depth + 1), self.encode(item, where, depth + 1)])
        return {"$items": pairs}


def decode(value: Any, tensors: Mapping[str, torch.Tensor]) -> Any:
    """Return the value that `encode` was given; mappings come back as dicts.

    Raises:
        ValueError: an object does not have a form that `encode` writes.
        KeyError: a tensor that it names is not in `tensors`.
    """
    if isinstance(value, list):
        return [decode(item, tensors) for item in value]
    if not isinstance(value, dict):
        return value
    tagged = [key for key in value if key.startswith("$")]
    if not tagged:
        return {key: decode(item, tensors) for key, item in value.items()}
    if len(value) != 1:
        raise ValueError(f"{tagged[0]} beside other keys")
    tag, content = next(iter(value.items()))
    if tag == "$tuple":
        return tuple(decode(content, tensors))
    if tag == "$items":
        return {decode(key, tensors): decode(item, tensors) for key, item in content}
    if tag == "$tensor":
        return tensors[content]
    if tag == "$float" and content in ("nan", "inf", "-inf"):
        return float(content)
    raise ValueError(f"unknown form {tag}")
