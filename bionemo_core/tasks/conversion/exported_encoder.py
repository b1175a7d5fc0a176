"""An encoder as a graph of two plain inputs, which other programs run: ids and a mask in, hidden states out.

Shape letters: B sequences, L tokens of the longest, K states of a sequence (L, or a perceiver's latents), H hidden.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram, export

from bionemo_core.data.batches.batch import TokenBatch
from bionemo_core.errors import ConfigError
from bionemo_core.megatron import transformer_block, transformer_layer

INPUTS = ("input_ids", "attention_mask")
OUTPUT = "hidden_states"
_EXAMPLE_SHAPE = 3, 17
"""Two sizes that no width of a model equals, so that nothing is taken for them."""


class ExportedEncoder(nn.Module):
    """The encoder of a network, with tensors only in its signature."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self._compute = "hidden_states" if hasattr(network, "hidden_states") else "encode"

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return the hidden states, float32 [B, K, H]; those of padding mean nothing.

        Args:
            input_ids: terminal tokens included, int64 [B, L].
            attention_mask: 1 at tokens, 0 at padding, which comes last in each sequence; int64 [B, L].
        """
        states = getattr(self.network, self._compute)(_batch_of(input_ids, attention_mask))
        return getattr(states, "states", states).transpose(0, 1)


def _batch_of(input_ids: Tensor, attention_mask: Tensor) -> TokenBatch:
    """Return a padded batch whose counts are unknown, so that no value of theirs becomes part of the graph."""
    real = attention_mask.bool()
    return TokenBatch(
        tokens=input_ids,
        labels=input_ids,
        loss_mask=torch.zeros_like(real),
        position_ids=(attention_mask.cumsum(1) - 1).clamp(min=0),
        padding_mask=real,
        segment_ids=torch.zeros_like(input_ids),
        cu_seqlens=None,
        lengths=[],
        max_seqlen=-1,
        num_loss_tokens=0,
        num_tokens=-1,
        num_sequences=-1,
        budget=-1,
    )


def trace_encoder(encoder: ExportedEncoder, vocab_size: int) -> ExportedProgram:
    """Return the graph of an encoder for any number of sequences of any length.

    Raises:
        ConfigError: the network computes something that torch.export cannot follow.
    """
    dynamic = {name: {0: Dim.DYNAMIC, 1: Dim.DYNAMIC} for name in INPUTS}
    encoder.eval().requires_grad_(False)  # not no_grad: the graph would be in regions that a reader does not know
    try:
        with _views_kept(), torch.enable_grad():
            return export(encoder, example_inputs(vocab_size, *_EXAMPLE_SHAPE), dynamic_shapes=dynamic)
    except Exception as error:
        raise ConfigError(
            f"{type(encoder.network).__name__}: torch.export cannot follow its encoder "
            f"({str(error).strip().splitlines()[0]}). Use task.to=artefact."
        ) from error


def example_inputs(vocab_size: int, sequences: int, length: int) -> tuple[Tensor, Tensor]:
    """Return ids and a mask, [sequences, length] each; the first sequence is as long as that, each other shorter."""
    draw = torch.Generator().manual_seed(0)
    ids = torch.randint(vocab_size, (sequences, length), generator=draw)
    mask = torch.ones_like(ids)
    for row in range(1, sequences):
        mask[row, length - row * length // (sequences + 1) :] = 0
    return ids, mask


@contextmanager
def _views_kept() -> Iterator[None]:
    """Let megatron-core's stack take a view as it is: to save memory it copies it in a way that cannot be traced."""
    modules = transformer_block, transformer_layer
    originals = [module.make_viewless_tensor for module in modules]
    for module in modules:
        module.make_viewless_tensor = lambda inp, requires_grad, keep_graph: inp
    try:
        yield
    finally:
        for module, original in zip(modules, originals, strict=True):
            module.make_viewless_tensor = original
