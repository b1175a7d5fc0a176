"""The networks of fine-tuning: small heads over residue states, and an encoder with a head.

Shape letters: R residues of all sequences end to end, N sequences, H hidden width, O outputs.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bionemo_core.data.batches.batch import Seq2SeqBatch
from bionemo_core.errors import ConfigError
from bionemo_core.finetuning.losses import squared_error
from bionemo_core.finetuning.pairs.features import as_states, pair_features, sequence_hashes
from bionemo_core.finetuning.pairs.matching import share_a_sequence
from bionemo_core.nn.residue_states import (
    NO_FORM,
    ResidueEncoder,
    ResidueStates,
    copy_to_device,
    encoder_of,
    residue_indices,
)
from bionemo_core.protocols import InputForm

if TYPE_CHECKING:
    from bionemo_core.data.batches.batch import MicroBatch, TokenBatch


class MlpHead(nn.Module):
    """An MLP of linear layers with ReLU and dropout between them (v1's MLPModel); two widths: one linear layer.

    Args:
        widths: the input width, the hidden widths and the output width.
        dropout: after every layer but the last.
        per_residue: one output per residue, else one for the mean of each sequence.
    """

    def __init__(self, widths: list[int], dropout: float, *, per_residue: bool) -> None:
        super().__init__()
        self.per_residue = per_residue
        self.linears = nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(widths))
        self.dropout = dropout

    def forward(self, residues: ResidueStates) -> Tensor:
        """Return the outputs, shape [R, O] or [N, O]."""
        x = residues.states if self.per_residue else residues.mean()
        x = x.to(next(self.parameters()).dtype)
        for linear in self.linears[:-1]:
            x = F.dropout(F.relu(linear(x)), self.dropout, self.training)
        return self.linears[-1](x)

    def start_at_zero(self) -> None:
        """Make every answer 0."""
        _zero(self.linears[-1])


class ConvHead(nn.Module):
    """Two convolutions over 7 residues with ReLU and dropout between them (v1's ConvNet)."""

    kernel = 7
    reach = 3

    def __init__(self, hidden_size: int, outputs: int, channels: int, dropout: float) -> None:
        super().__init__()
        self.first = nn.Conv1d(hidden_size, channels, self.kernel, padding=self.reach)
        self.last = nn.Conv1d(channels, outputs, self.kernel, padding=self.reach)
        self.dropout = dropout

    def forward(self, residues: ResidueStates) -> Tensor:
        """Return the outputs, shape [R, O]; zeros pad both ends of a sequence, so it never sees its neighbours."""
        places = self._pad_positions(residues.lengths)
        width = int(residues.states.shape[0]) + self.reach * (len(residues.lengths) + 1)
        spaced = residues.states.new_zeros(width, residues.states.shape[1]).index_copy(0, places, residues.states)
        middle = F.relu(self.first(spaced.to(self.first.weight.dtype).T[None]))
        middle = F.dropout(middle, self.dropout, self.training)
        # Zero the gaps again, so that the second convolution does not see the first one's outputs there.
        without_gaps = torch.zeros_like(middle).index_copy(2, places, middle.index_select(2, places))
        return self.last(without_gaps)[0].index_select(1, places).T

    def start_at_zero(self) -> None:
        """Make every answer 0."""
        _zero(self.last)

    def _pad_positions(self, lengths: Tensor) -> Tensor:
        """Return the position of each residue with `reach` zeros before, between and after the sequences, [R]."""
        gaps = torch.arange(1, len(lengths) + 1, device=lengths.device) * self.reach
        shifts = torch.repeat_interleave(gaps, lengths)
        return torch.arange(len(shifts), device=lengths.device) + shifts


class StoredStates:
    """Cached residue states that replace an encoder; the tokens of a batch are rows of the table.

    Args:
        table: float[rows of all sequences, H], on the CPU; moved to the batch's device if it is small enough.
    """

    form = NO_FORM
    terminal_rows = False
    fixed_states: int | None = None
    unread: tuple[str, ...] = ()
    largest_on_device = 8 * 2**30

    def __init__(self, table: Tensor) -> None:
        self.table = table

    def __call__(self, batch: TokenBatch) -> ResidueStates:
        """Return the states of the batch."""
        tokens = _at_residues(batch, batch.tokens, NO_FORM)
        lengths = torch.tensor(batch.lengths)
        if self.table.device != tokens.device and self.table.nbytes <= self.largest_on_device:
            self.table = self.table.to(tokens.device)
        states = self.table[tokens.to(self.table.device)].to(tokens.device)
        return ResidueStates(states.float(), copy_to_device(lengths, tokens.device))


class StateScaler(nn.Module):
    """Standardises states, so that a head learns from small differences between large numbers.

    The columns get mean 0 and deviation 1. With `whiten` they also become uncorrelated: the means of related sequences
    differ in a few directions only, in which gradient descent would hardly move. With `bounded`, what lies outside the
    range of the training in a direction is moved to its edge: in directions that hardly vary in training, an unusual
    sequence would otherwise get a prediction far from all labels. The bounds are those of whole sequences, so that each
    sequence becomes one state, its mean, before that.

    The buffers stay in float32 when the module around them is cast, because half precision would round the mean by
    more than the differences.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, hidden_size: int, *, whiten: bool, bounded: bool = False) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(hidden_size))
        self.register_buffer("scale", torch.ones(hidden_size))
        self.whitens = whiten
        if whiten:
            self.register_buffer("whitening", torch.eye(hidden_size))
        self.bounded = whiten and bounded
        if self.bounded:
            self.register_buffer("lowest", torch.full((hidden_size,), -torch.inf))
            self.register_buffer("highest", torch.full((hidden_size,), torch.inf))

    def forward(self, residues: ResidueStates) -> ResidueStates:
        """Return the states, float32 and scaled."""
        if self.bounded:
            residues = ResidueStates(residues.mean(), torch.ones_like(residues.lengths))
        if not self.whitens:
            return residues._replace(states=(residues.states.float() - self.mean) / self.scale)
        # In float64, because large weights of opposite signs cancel.
        scaled = (residues.states.double() - self.mean) / self.scale
        states = (scaled @ self.get_buffer("whitening").double()).float()
        if self.bounded:
            states = states.clamp(self.get_buffer("lowest"), self.get_buffer("highest"))
        return residues._replace(states=states)

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        kept = {name: buffer for name, buffer in self._buffers.items() if buffer is not None}
        super()._apply(fn, recurse)
        for name, buffer in kept.items():
            moved = self.get_buffer(name)
            if not moved.is_meta and not buffer.is_meta:
                self._buffers[name] = buffer.to(moved.device)
        return self


class FineTunedNetwork(nn.Module):
    """The encoder of a pre-trained network with a head.

    Args:
        encoder_network: a network with `hidden_states` or `encode`.
        head: maps `ResidueStates` to outputs.
        per_residue: whether there is an output for every residue.
        class_weights: factor on the loss of each class; None for a regression or for equal weights.
        num_classes: None for a regression.
        frozen: do not train the encoder, and run it without dropout.
        form: the form of the encoder's input.
        scaler: standardises the states before the head; None: the head gets them as they are.
        start: a linear layer that is not trained; the head learns what to add to it. None: the head answers alone.
        loss: maps outputs, labels and whether each counts to the summed loss, see `protocols.Loss`; None: the cross
            entropy of classes, else the squared error.
        pairs: whether the head reads the features of pairs of sequences, see `pairs.features`.
        second_network: the encoder network of the second sequences of pairs; None: `encoder_network` reads both.
        second_form: the form of its input.
        matching: whether the loss looks for the partner of each sequence of a pair, see `pairs.contrastive`.
    """

    logged_names: tuple[str, ...] = ()

    def __init__(
        self,
        encoder_network: nn.Module,
        head: nn.Module,
        *,
        per_residue: bool,
        num_classes: int | None,
        class_weights: list[float] | None = None,
        frozen: bool = False,
        form: InputForm = NO_FORM,
        scaler: StateScaler | None = None,
        start: nn.Linear | None = None,
        loss: Callable[[Tensor, Tensor, Tensor], Tensor] | None = None,
        pairs: bool = False,
        second_network: nn.Module | None = None,
        second_form: InputForm = NO_FORM,
        matching: bool = False,
    ) -> None:
        super().__init__()
        self.encoder_network = encoder_network
        self.second_network = second_network
        self.scaler = scaler
        self.start = None if start is None else start.requires_grad_(False)
        self.head = head
        self.per_residue = per_residue
        self.num_classes = num_classes
        self.loss = loss
        self.frozen = frozen
        self.form = form
        self.second_form = second_form
        self.pairs = pairs
        self.matching = matching
        weights = None if class_weights is None else torch.tensor(class_weights)
        self.register_buffer("class_weights", weights, persistent=False)
        self.stored: StoredStates | None = None
        """Replaces the encoder while a head is trained on cached states."""

    @property
    def layers(self) -> list[nn.Module]:
        """The blocks of the encoders, which are compiled and sharded one by one."""
        return [block for network in (self.encoder_network, self.second_network) for block in encoder_blocks(network)]

    @property
    def encoder(self) -> ResidueEncoder:
        """The encoder, which turns a batch into residue states."""
        return self.stored or encoder_of(self.encoder_network, self.form)

    def train(self, mode: bool = True) -> FineTunedNetwork:
        """Switch training mode on or off; a frozen encoder stays in evaluation mode."""
        super().train(mode)
        if self.frozen:
            self.encoder_network.train(False)
        return self

    def predictions(self, batch: MicroBatch) -> Tensor:
        """Return the head's outputs, float32 [R or N, O]: logits of classes, or values."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            residues = self.states(batch)
        return self.outputs(residues)

    def states(self, batch: MicroBatch) -> ResidueStates:
        """Return the states that the head reads: those of the encoder, or the features of each pair of sequences."""
        if not isinstance(batch, Seq2SeqBatch):
            return self.encoder(batch)
        reader, with_products = self.encoder, not self.matching
        first = reader(batch.source).mean()
        if self.second_network is not None:
            reader, with_products = encoder_of(self.second_network, self.second_form), False
        second = reader(replace(batch.target, record_keys=batch.source.record_keys)).mean()
        return as_states(pair_features(first, second, with_products=with_products))

    def outputs(self, residues: ResidueStates) -> Tensor:
        """Return the head's outputs for the states of an encoder; see `predictions`."""
        if self.scaler is not None:
            residues = self.scaler(residues)
        outputs = self.head(residues).float()
        if self.start is None:
            return outputs
        states = residues.states if self.per_residue else residues.mean()
        return outputs + self.start(states.to(self.start.weight.dtype)).float()

    def targets(self, batch: MicroBatch) -> tuple[Tensor, Tensor]:
        """Return the labels of these outputs and whether each counts, both [R or N]; values as float32.

        Several labels of a sequence are [N, O].
        """
        if isinstance(batch, Seq2SeqBatch):
            batch = batch.target
        if batch.sequence_labels is not None:
            return batch.sequence_labels.nan_to_num(), ~batch.sequence_labels.isnan()
        if self.per_residue:
            form = self.encoder.form
            labels, counts = (_at_residues(batch, x, form) for x in (batch.labels, batch.loss_mask))
        else:
            labels, counts = (_at_first(batch, x) for x in (batch.labels, batch.loss_mask))
        if self.num_classes is None:
            labels = labels.to(torch.int32).view(torch.float32)
        return labels, counts

    def forward(self, batch: MicroBatch) -> Tensor:
        """Return the summed loss of labels that count, a float32 scalar."""
        if self.matching:
            return self._matching_loss(batch)
        outputs = self.predictions(batch)
        labels, counts = self.targets(batch)
        if self.num_classes is None:
            loss = self.loss or squared_error
            return loss(outputs, labels.view_as(outputs), counts.view_as(outputs))
        chosen = labels.clamp(0, self.num_classes - 1)
        if self.loss is not None:
            return self.loss(outputs, chosen, counts)
        losses = F.cross_entropy(outputs, chosen, reduction="none")
        if self.class_weights is not None:
            losses = losses * self.get_buffer("class_weights")[chosen]
        return (losses * counts).sum()

    def _matching_loss(self, batch: MicroBatch) -> Tensor:
        residues, (_, counts) = self.states(batch), self.targets(batch)
        head: Any = self.head
        if isinstance(batch, Seq2SeqBatch):
            # Not by the states, in which dropout makes a difference.
            sides = sequence_hashes(batch.source), sequence_hashes(batch.target)
        else:
            sides = residues.states[:, : head.first_size], residues.states[:, head.first_size :]
        assert self.loss is not None
        return self.loss(self.outputs(residues), share_a_sequence(*sides), counts)


def encoder_blocks(network: Any) -> list[nn.Module]:
    """Return the blocks of a network's encoder; those of a decoder, which no state depends on, are not among them."""
    encoder = getattr(network, "encoder", None) if hasattr(network, "decoder") else None
    return list(getattr(network if encoder is None else encoder, "layers", ()))


def hidden_size_of(network: Any) -> int:
    """Return the width of a network's hidden states.

    Raises:
        ConfigError: the network does not have it as an attribute.
    """
    size = getattr(getattr(network, "config", None), "hidden_size", None) or getattr(network, "hidden_size", None)
    if not isinstance(size, int):
        raise ConfigError(
            f"{type(network).__name__} has neither config.hidden_size nor hidden_size, so no head can be built on it."
        )
    return size


@torch.no_grad()
def _zero(layer: nn.Module) -> None:
    for parameter in layer.parameters():
        parameter.zero_()


def _at_residues(batch: TokenBatch, values: Tensor, form: InputForm) -> Tensor:
    """Select the residues of `values`, [rows, length], as [R]."""
    places, _ = residue_indices(batch, form.terminals)
    return values.flatten().index_select(0, copy_to_device(places, values.device))


def _at_first(batch: TokenBatch, values: Tensor) -> Tensor:
    """Select the first token of each sequence of `values`, [rows, length], as [N]."""
    _, lengths = residue_indices(batch, NO_FORM.terminals)
    places = lengths.cumsum(0) - lengths if batch.packed else torch.arange(len(lengths)) * values.shape[1]
    return values.flatten().index_select(0, copy_to_device(places, values.device))
