"""Output heads over hidden states."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from bionemo_core.megatron import TransformerConfig, vocab_parallel_cross_entropy
from bionemo_core.nn.layers import ColumnLinear, Norm
from bionemo_core.parallel.groups import ProcessGroups
from bionemo_core.parallel.tensor import gather_columns

if TYPE_CHECKING:
    from bionemo_core.data.batches.batch import TokenBatch


class MaskedLanguageHead(torch.nn.Module):
    """The head of BERT and ESM: dense, erf gelu, norm, then the embedding's or a weight of its own, and a bias."""

    def __init__(
        self, config: TransformerConfig, padded_vocab_size: int, groups: ProcessGroups, *, tied: bool = True
    ) -> None:
        super().__init__()
        self.tied = tied
        self.dense = torch.nn.Linear(config.hidden_size, config.hidden_size, dtype=config.params_dtype)
        config.init_method(self.dense.weight)
        torch.nn.init.zeros_(self.dense.bias)
        self.layer_norm = Norm(config, config.hidden_size, config.layernorm_epsilon)
        self.output = ColumnLinear(
            config.hidden_size,
            padded_vocab_size,
            config=config,
            init_method=config.init_method,
            bias=True,
            skip_weight_param_allocation=tied,
            tp_group=groups.tensor,
        )

    def forward(self, hidden: Tensor, tied_weight: Tensor | None) -> Tensor:
        """Return the logits of this rank's columns, shape [..., padded vocabulary / tensor ranks]."""
        weight = tied_weight if self.tied else None
        return self.output(self.layer_norm(F.gelu(self.dense(hidden))), weight=weight)[0]


class TokensHead(torch.nn.Module):
    """A linear head from hidden states to logits, with a weight of its own or a tied one.

    Args:
        tied: have no weight, and use the one passed in each call.
        bias: add a bias for each token of the vocabulary.
        scale: factor on hidden states; hidden_size ** -0.5 for T5 with a tied head.
    """

    def __init__(
        self,
        config: TransformerConfig,
        padded_vocab_size: int,
        groups: ProcessGroups,
        *,
        tied: bool,
        bias: bool,
        scale: float = 1.0,
    ) -> None:
        super().__init__()
        self.scale = scale
        self.output = ColumnLinear(
            config.hidden_size,
            padded_vocab_size,
            config=config,
            init_method=config.init_method,
            bias=bias,
            skip_weight_param_allocation=tied,
            tp_group=groups.tensor,
        )

    def forward(self, hidden: Tensor, tied_weight: Tensor | None = None) -> Tensor:
        """Return the logits of this rank's columns, shape [..., padded vocabulary / tensor ranks]."""
        if self.scale != 1.0:
            hidden = hidden * self.scale
        return self.output(hidden, weight=tied_weight)[0]


def sum_token_losses(
    hidden: Tensor, batch: TokenBatch, head: Callable[[Tensor], Tensor], vocab_size: int, groups: ProcessGroups
) -> Tensor:
    """Return the cross entropy in nats summed over the batch's loss positions, a float32 scalar.

    `hidden` has the shape [length, rows, hidden]; `head` maps it to this rank's columns of the logits.
    """
    labels = batch.labels.transpose(0, 1)
    mask: Tensor | None = batch.loss_mask.transpose(0, 1)
    if not hidden.is_cuda:  # shapes may vary on a CPU, so the head can skip positions without a label
        hidden, labels, mask = hidden[mask], labels[mask], None
    losses = token_cross_entropy(head(hidden), labels, vocab_size, groups)
    return losses.sum() if mask is None else (losses * mask).sum()


def whole_logits(network: Any, states: Tensor) -> Tensor:
    """Return the logits of a network's masked-language head, [..., padded vocabulary], from all tensor ranks."""
    columns: Tensor = network.head(states, network.embedding.word_embeddings.weight)
    groups: ProcessGroups | None = getattr(network, "groups", None)  # a plugin's network may know of none
    return columns if groups is None else gather_columns(columns, groups.tensor)


def token_cross_entropy(logits: Tensor, labels: Tensor, vocab_size: int, groups: ProcessGroups) -> Tensor:
    """Return the cross entropy in nats of each token, float32, shape of `labels`.

    `logits` are this rank's columns [..., padded vocabulary / tensor ranks]; padding columns are ignored.
    """
    columns = logits.shape[-1]
    first = groups.tensor_rank * columns
    padded = torch.arange(first, first + columns, device=logits.device) >= vocab_size
    # Out of place, because megatron-core's vocabulary-parallel loss changes its input in place.
    logits = logits.float().masked_fill(padded, torch.finfo(torch.float32).min)
    if groups.tensor_size > 1:
        return vocab_parallel_cross_entropy(logits, labels)
    return F.cross_entropy(logits.flatten(0, -2), labels.flatten(), reduction="none").view(labels.shape)
