"""The end of a fine-tuning run: which weights it tests, and the folders that it writes."""

from __future__ import annotations

import itertools
import json
import logging
from dataclasses import replace
from pathlib import Path

import torch
from torch.distributed.tensor import DTensor

from bionemo_core.checkpoint.folder_names import list_checkpoints, parse_step
from bionemo_core.checkpoint.retention import best_steps
from bionemo_core.finetuning.adapters import BASE_WEIGHTS
from bionemo_core.finetuning.averaging import AveragedCheckpoints, newest_checkpoints
from bionemo_core.finetuning.lora import adapter_names
from bionemo_core.interop.artefact import DOCUMENT, Artefact, write_artefact
from bionemo_core.interop.stored import ABSENT, ModelSpec, Vocabulary
from bionemo_core.io.atomic import move
from bionemo_core.models.named_weights import named_weights
from bionemo_core.nn.missing_weights import missing_parts
from bionemo_core.parallel.sharding import reshard
from bionemo_core.parallel.strategy import strategy_of
from bionemo_core.parallel.weights import load_weights
from bionemo_core.plurals import format_count
from bionemo_core.runs.hooks import Built
from bionemo_core.tasks.settings import Finetune
from bionemo_core.training.callbacks import CheckpointSaver

log = logging.getLogger("bionemo")

ARTEFACT = "model"
ADAPTER = "adapter"
"""Folders in the run folder: the fine-tuned model, and with LoRA the trained adapters and head alone."""


def load_final_weights(task: Finetune, parts: Built) -> int | None:
    """Load the weights that are tested and written, and say which; return the step that they are of."""
    strategy = strategy_of(parts.trainer)
    reshard(strategy.network)
    folders = _choose_checkpoints(task, parts)
    if not folders:
        return parts.trainer.global_step
    with AveragedCheckpoints(folders) as mean:
        load_weights(strategy.network, strategy.layouts, strategy.groups, mean)  # type: ignore[arg-type]  # reads as one
    names = ", ".join(folder.name for folder in folders)
    names_text = f"the mean of {format_count(len(folders), 'checkpoint')}: {names}" if task.average_last > 0 else names
    if parts.trainer.is_global_zero:
        print(f"{'weights':>10}  {names_text}")
    return parse_step(folders[-1].name)


def gather_weights(parts: Built) -> dict[str, torch.Tensor]:
    """Return all weights, whole and on the CPU; every rank takes part."""
    return {name: _full_tensor(tensor) for name, tensor in named_weights(strategy_of(parts.trainer).network)}


def write_model(task: Finetune, parts: Built, tensors: dict[str, torch.Tensor], step: int | None) -> None:
    """Write the folder `model` and, with LoRA, the folder `adapter`; say where they are."""
    spec = ModelSpec(parts.spec.model, parts.spec.tokenizer)
    training = {"run": parts.spec.name, "step": step, "seed": parts.spec.seed}
    # What the pre-trained model lacked, such as its language-model head, has not been trained here either.
    absent = missing_parts(strategy_of(parts.trainer).network).facts()
    origin = {ABSENT: absent} if absent else {}
    artefact = Artefact(spec, Vocabulary.of(parts.tokenizer.pieces), training=training, origin=origin)
    target = parts.folder.path / ARTEFACT
    _set_aside(target)
    write_artefact(target, artefact, tensors)
    print(f"{'model':>10}  {target}")
    if task.encoder == "lora":
        kept = {*adapter_names(list(tensors)), *(name for name in tensors if name.startswith("head."))}
        adapter = parts.folder.path / ADAPTER
        _set_aside(adapter)
        artefact = replace(artefact, training={**training, BASE_WEIGHTS: parts.spec.model.params["base_weights"]})
        write_artefact(adapter, artefact, {name: tensors[name] for name in sorted(kept)})
        print(f"{'adapter':>10}  {adapter}, {sum(tensors[name].numel() for name in kept):,} numbers")


def _choose_checkpoints(task: Finetune, parts: Built) -> list[Path]:
    """Return the checkpoints to average for the test and the export; none for the current weights."""
    root = parts.folder.checkpoints
    if task.average_last > 0:
        return newest_checkpoints(root, task.average_last)
    if (task.export or ("best" if task.early_stopping is not None else "last")) == "last":
        return []
    saver = next(callback for callback in parts.trainer.callbacks if isinstance(callback, CheckpointSaver))  # type: ignore[attr-defined]  # Lightning declares it nowhere
    present = list_checkpoints(root)
    steps = best_steps(saver.best, 1, parts.spec.checkpoint.better, present)
    if not steps:
        log.warning("No checkpoint has a value of %s: exporting the last weights.", parts.spec.checkpoint.monitor)
    return [present[step] for step in steps]


def _full_tensor(tensor: torch.Tensor) -> torch.Tensor:
    tensor = tensor.detach()
    return (tensor.full_tensor() if isinstance(tensor, DTensor) else tensor).cpu()


def _set_aside(folder: Path) -> None:
    """Rename a model that the run wrote before it was resumed; the new name has its step."""
    if not folder.exists():
        return
    try:
        step = json.loads((folder / DOCUMENT).read_text())["training"]["step"]
    except (OSError, ValueError, LookupError, TypeError):
        step = "unknown"
    name = f"superseded-{folder.name}-{step}"
    names = itertools.chain([name], (f"{name}-{number}" for number in itertools.count(2)))
    move(folder, next(path for path in map(folder.with_name, names) if not path.exists()))
