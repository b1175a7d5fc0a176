"""Encoders for other programs: ONNX, torch.export, and a model repository of Triton Inference Server."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from bionemo_core._version import __version__
from bionemo_core.data.model_input import TOKENIZER, input_form, max_text_tokens
from bionemo_core.errors import ConfigError
from bionemo_core.io.atomic import new_folder, write_json, write_text
from bionemo_core.machine import has_package
from bionemo_core.models.load import OpenedModel
from bionemo_core.nn.residue_states import encoder_of
from bionemo_core.parallel.weights import network_of
from bionemo_core.tasks.conversion.exported_encoder import (
    INPUTS,
    OUTPUT,
    ExportedEncoder,
    example_inputs,
    trace_encoder,
)

if TYPE_CHECKING:
    from torch.export import ExportedProgram

EXPORTS = ("onnx", "torch_export", "triton")
TOLERANCE = 1e-4
"""The largest allowed difference from the network's own states, as a share of the largest state."""
_CHECKED_SHAPES = (1, 12), (4, 33)
_EMBEDDED_BYTES = 1_500_000_000
"""A protobuf file holds 2 GB; the weights of larger networks lie beside it."""


def check_export(form: str) -> None:
    """Check that what writes the form is installed.

    Raises:
        ConfigError: it is not.
    """
    missing = [name for name in ("onnx", "onnxscript", "onnxruntime") if not has_package(name)]
    if form != "torch_export" and missing:
        raise ConfigError(
            f"task.to={form} needs {', '.join(missing)}. Run `pip install 'bionemo-run[onnx]'`, or use "
            "task.to=torch_export."
        )


def export_encoder(target: Path, form: str, opened: OpenedModel, network: nn.Module) -> float:
    """Write the encoder of an opened model into the new folder `target`, and return its largest difference.

    The written file is run on other shapes than it was traced with, and compared with the network.

    Raises:
        ConfigError: the encoder cannot be exported, or computes something else once it is.
        StorageError: the folder cannot be written.
    """
    encoder = ExportedEncoder(network.float())
    vocab_size = opened.tokenizer.vocab_size
    program = trace_encoder(encoder, vocab_size)
    with new_folder(target) as folder:
        place = folder if form != "triton" else folder / target.name / "1"
        place.mkdir(parents=True, exist_ok=True)
        run = _write_torch(program, place) if form == "torch_export" else _write_onnx(program, place, network)
        worst = max(_difference(run, encoder, example_inputs(vocab_size, *shape)) for shape in _CHECKED_SHAPES)
        if not worst < TOLERANCE:
            raise ConfigError(
                f"task.to={form}: the exported encoder differs from the network by {worst:.1e} of its largest state, "
                f"expected less than {TOLERANCE:.0e}. Use task.to=artefact."
            )
        if form == "triton":
            hidden = encoder(*example_inputs(vocab_size, 1, 2)).shape[-1]
            write_text(place.parent / "config.pbtxt", _triton_config(target.name, hidden))
        write_json(place / "encoder.json", _facts(opened, worst))
    return worst


def _write_torch(program: ExportedProgram, folder: Path) -> Any:
    torch.export.save(program, folder / "encoder.pt2")
    loaded = torch.export.load(folder / "encoder.pt2").module()
    return lambda *inputs: loaded(*inputs).numpy()


def _write_onnx(program: ExportedProgram, folder: Path, network: nn.Module) -> Any:
    with _quiet():
        written = torch.onnx.export(program, dynamo=True, input_names=list(INPUTS), output_names=[OUTPUT])
    assert written is not None
    bytes_of_weights = sum(one.numel() * one.element_size() for one in network.parameters())
    written.save(folder / "model.onnx", external_data=bytes_of_weights > _EMBEDDED_BYTES)
    import onnxruntime

    session = onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
    return lambda *inputs: session.run(None, dict(zip(INPUTS, (one.numpy() for one in inputs), strict=True)))[0]


def _difference(run: Any, encoder: ExportedEncoder, inputs: tuple[torch.Tensor, torch.Tensor]) -> float:
    with torch.no_grad():
        wanted: NDArray[np.float32] = encoder(*inputs).numpy()
        got: NDArray[np.float32] = run(*inputs)
    if wanted.shape[1] == inputs[1].shape[1]:  # states of padding mean nothing
        real = inputs[1].bool().numpy()
        wanted, got = wanted[real], got[real]
    return float(np.abs(got - wanted).max() / np.abs(wanted).max())


def _facts(opened: OpenedModel, worst: float) -> dict[str, Any]:
    """Return what a program must know to turn a text into the inputs."""
    tokenizer = opened.tokenizer
    wanted = input_form(tokenizer, getattr(opened.module, "text_form", TOKENIZER))
    form = encoder_of(network_of(opened.module), wanted).form
    return {
        "model": opened.spec.model.name,
        "inputs": {"input_ids": "int64 [batch, length]", "attention_mask": "int64 [batch, length], 1 at tokens"},
        "output": {OUTPUT: "float32 [batch, length or latents, hidden]"},
        "max_tokens": max_text_tokens(opened.module, 0),
        "begins_with": [tokenizer.bos_id] if form.bos else [],
        "ends_with": [tokenizer.eos_id] if form.eos else [],
        "canonical": getattr(tokenizer, "canonical", None) is not None,  # whether texts are given in canonical form
        "replaced_letters": {letter: form.replacement for letter in form.replaced},
        "pad_id": tokenizer.pad_id,
        "unk_id": tokenizer.unk_id,
        "pieces": list(tokenizer.pieces),
        "largest_difference": worst,
        "made_by": f"bionemo-run {__version__}, torch {torch.__version__}",
    }


def _triton_config(name: str, hidden: int) -> str:
    """Return the configuration of a model whose requests Triton joins to batches of equal length."""
    inputs = ",\n".join(f'  {{ name: "{one}" data_type: TYPE_INT64 dims: [ -1 ] }}' for one in INPUTS)
    return (
        f'name: "{name}"\nbackend: "onnxruntime"\nmax_batch_size: 64\n'
        f"input [\n{inputs}\n]\n"
        f'output [\n  {{ name: "{OUTPUT}" data_type: TYPE_FP32 dims: [ -1, {hidden} ] }}\n]\n'
        "dynamic_batching { }\n"
    )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's progress and notes from the screen; its errors are raised."""
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
