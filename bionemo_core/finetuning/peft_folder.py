"""Adapters in the format of Hugging Face's `peft`: a folder with `adapter_config.json` and a file of tensors.

`peft` names an adapter after the layer of `transformers` that it changes; which rows of our layers that is, the
connector of the model says. LoRA and DoRA are read and written; anything else is refused by name.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bionemo_core.checkpoint.shards import write_tensors
from bionemo_core.config.safe_json import parse_json
from bionemo_core.errors import ArtefactError
from bionemo_core.interop.safetensors_files import FileTensors, tensor_names
from bionemo_core.io.atomic import new_output, write_json

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_PREFIX = "base_model.model."
_PARTS = {"down": ".lora_A.weight", "up": ".lora_B.weight", "magnitude": ".lora_magnitude_vector"}
_PLAIN_INITIALISATIONS = (True, False, None, "gaussian", "eva", "orthogonal")
"""Ways to initialise adapters that leave the base model's weights as they are."""
_REFUSED = (
    *("rank_pattern", "alpha_pattern", "fan_in_fan_out", "lora_bias", "layer_replication", "use_qalora"),
    *("trainable_token_indices", "target_parameters", "alora_invocation_tokens", "megatron_config"),
)


@dataclass(frozen=True)
class PeftLayer:
    """The adapter of one foreign layer: its weight changes by `scale * up @ down`."""

    down: Tensor
    """[rank, inputs]"""
    up: Tensor
    """[outputs, rank]"""
    scale: float
    magnitude: Tensor | None = None
    """With DoRA the length of each row of the changed weight, [outputs]."""

    def change(self, weight: Tensor) -> Tensor:
        """Return the changed weight, float32 [outputs, inputs].

        Raises:
            ValueError: the sizes do not fit together.
        """
        changed = weight.float() + self.scale * (self.up.float() @ self.down.float())
        if changed.shape != weight.shape:
            raise ValueError("sizes")
        if self.magnitude is None:
            return changed
        return changed * (self.magnitude.float() / torch.linalg.vector_norm(changed, dim=1))[:, None]


@dataclass(frozen=True)
class PeftAdapter:
    """The adapters of a folder, by the foreign name of the layer."""

    layers: Mapping[str, PeftLayer]
    others: tuple[str, ...]
    """The tensors that are no adapters, such as those of a classifier."""


def is_peft_folder(path: str | Path) -> bool:
    """Return whether `path` looks like a folder of `peft`; reading it may still fail."""
    return (Path(path).expanduser() / CONFIG).is_file()


def read_peft(folder: Path) -> PeftAdapter:
    """Read the adapters in `folder`.

    Raises:
        ArtefactError: a file is missing or damaged, or the adapters are of a kind that is not supported.
    """
    config = _read_config(folder / CONFIG)
    if not (folder / WEIGHTS).is_file():
        raise ArtefactError(f"{folder}: has no {WEIGHTS}. Save the adapter with safe_serialization=True.")
    tensors = FileTensors(folder, dict.fromkeys(tensor_names(folder / WEIGHTS), WEIGHTS))
    found: dict[str, dict[str, Tensor]] = {}
    others: list[str] = []
    for name in sorted(tensors.names):
        part = next((part for part, ending in _PARTS.items() if name.endswith(ending)), None)
        if part is None:
            others.append(name)
        else:
            found.setdefault(name.removesuffix(_PARTS[part]).removeprefix(_PREFIX), {})[part] = tensors.read(name)
    tensors.close()
    divisor = config["r"] ** 0.5 if config.get("use_rslora") else config["r"]
    layers = {}
    for name, parts in found.items():
        if not {"down", "up"} <= parts.keys() or bool(config.get("use_dora")) != ("magnitude" in parts):
            raise ArtefactError(f"{folder / WEIGHTS}: the adapter of {name} is not whole; it has {', '.join(parts)}.")
        layers[name] = PeftLayer(scale=config["lora_alpha"] / divisor, **parts)
    if not layers:
        raise ArtefactError(f"{folder / WEIGHTS}: contains no adapter.")
    return PeftAdapter(layers, tuple(others))


def _read_config(path: Path) -> dict[str, Any]:
    try:
        config = parse_json(path.read_bytes(), str(path))
    except OSError as error:
        raise ArtefactError(f"{path}: cannot be read: {error.strerror}.") from error
    if not isinstance(config, dict) or config.get("peft_type") != "LORA":
        kind = str(config.get("peft_type"))[:40] if isinstance(config, dict) else "no mapping"
        raise ArtefactError(f"{path}: peft_type is {kind}, expected LORA.")
    refused = [key for key in _REFUSED if config.get(key)]
    if config.get("bias", "none") != "none":
        refused.append("bias")
    if config.get("init_lora_weights", True) not in _PLAIN_INITIALISATIONS:
        refused.append("init_lora_weights")  # such a way changes the weights of the base model
    if refused:
        raise ArtefactError(f"{path}: {refused[0]}={str(config[refused[0]])[:60]} is not supported.")
    for key, kinds in (("r", int), ("lora_alpha", (int, float))):
        value = config.get(key)
        if not isinstance(value, kinds) or isinstance(value, bool) or not value > 0:
            raise ArtefactError(f"{path}: {key} is {str(value)[:40]}, expected a number above 0.")
    return config


def write_peft(
    target: Path, layers: Mapping[str, PeftLayer], *, base: str, alpha: float, rank: int, dropout: float
) -> None:
    """Write adapters to the folder `target`, which appears only when it is complete.

    Args:
        target: a folder that does not exist.
        layers: the adapters by the foreign name of the layer.
        base: a name of the base model, for its reader.
        alpha: adapters are scaled by alpha / rank.
        rank: the rank of the adapters.
        dropout: dropout of the adapters' input during training.

    Raises:
        ConfigError: `target` exists already.
        StorageError: the file system failed.
    """
    config = {
        "peft_type": "LORA",
        "task_type": None,
        "base_model_name_or_path": base,
        "inference_mode": True,
        "r": rank,
        "lora_alpha": alpha,
        "lora_dropout": dropout,
        "target_modules": _pattern(layers),
        "bias": "none",
        "fan_in_fan_out": False,
        "init_lora_weights": True,
        "use_dora": any(layer.magnitude is not None for layer in layers.values()),
        "use_rslora": False,
    }
    tensors = {
        f"{_PREFIX}{name}{ending}": getattr(layer, part).float().contiguous()
        for name, layer in layers.items()
        for part, ending in _PARTS.items()
        if getattr(layer, part) is not None
    }
    with new_output(target, folder=True) as folder:
        write_json(folder / CONFIG, config, indent=2)
        write_tensors(folder / WEIGHTS, tensors, metadata={"format": "pt"})


def _pattern(names: Mapping[str, PeftLayer]) -> str:
    """Return a regular expression that matches these names of layers, and not more for any other number in them."""
    kinds = dict.fromkeys(re.sub(r"\b\d+\b", "#", name) for name in names)
    return "|".join(re.escape(kind).replace(r"\#", r"\d+").replace("#", r"\d+") for kind in kinds)
