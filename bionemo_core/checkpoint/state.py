"""Nested plain values and tensors to JSON and back, exactly.

Numbers, strings, None, lists and mappings with string keys are themselves. The rest is an object
with one key that starts with `$`: `{"$tuple": [...]}`, `{"$tensor": key}`, `{"$float": "nan"}`,
`{"$items": [[key, value], ...]}` for a mapping with other keys. Finite floats are written by their
shortest exact form, so they come back bit for bit; of a NaN only that it is one.
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
    """`value` as JSON can hold it; tensors are added to `tensors` under keys that the result names.

    Raises:
        CheckpointError: something is neither plain nor a tensor; names its key path.
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
        # Exact types: a subclass (an enum, a numpy scalar) would come back as something else.
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
    """What `encode` was given; mappings come back as dicts.

    Raises:
        ValueError: an object is not of a form that `encode` writes.
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
