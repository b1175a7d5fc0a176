"""A model of transformers as a network of this framework: its states, its masked-language head, its loss."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bionemo_core.errors import ConfigError
from bionemo_core.nn.stacks import Memory

if TYPE_CHECKING:
    from bionemo_core.data.batches.batch import TokenBatch

_ADAPTED: Mapping[str, tuple[str, ...]] = {
    "qkv": (
        *("query", "key", "value", "q", "k", "v", "q_proj", "k_proj", "v_proj", "query_proj", "key_proj"),
        *("value_proj", "q_lin", "k_lin", "v_lin", "Wqkv", "in_proj"),
    ),
    "proj": ("attention.output.dense", "attention.dense", "attn.Wo", "o", "o_proj", "out_proj", "out_lin"),
    "fc1": ("intermediate.dense", "ffn", "mlp.Wi", "wi", "wi_0", "wi_1", "gate_proj", "up_proj", "lin1"),
    "fc2": ("output.dense", "ffn_output", "mlp.Wo", "wo", "down_proj", "lin2"),
}
"""How the linear layers of a block are called in the families, by the target of LoRA; the longest ending decides."""


class GivenStates(nn.Module):
    """The place of an encoder in its model, so that the model's head can be computed from states alone."""

    def forward(self, *_: Any, inputs_embeds: Tensor, **__: Any) -> Any:
        """Return the states that were given as embeddings, in the form in which encoders return theirs."""
        from transformers.modeling_outputs import BaseModelOutput

        return BaseModelOutput(last_hidden_state=inputs_embeds)


class ModelHead(nn.Module):
    """A model without its encoder: from hidden states to logits."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, states: Tensor, _: Tensor | None = None) -> Tensor:
        """Return the logits of states, shape [..., hidden] to [..., vocabulary]; the tied table is the model's own."""
        logits: Tensor = self.model(inputs_embeds=states.reshape(1, -1, states.shape[-1])).logits
        return logits.reshape(*states.shape[:-1], -1)


class EncoderNetwork(nn.Module):
    """The encoder of a model; rows are padded, one sequence in each."""

    logged_names: tuple[str, ...] = ()

    def __init__(self, encoder: Any) -> None:
        super().__init__()
        self.encoder = encoder
        self.hidden_size: int = encoder.config.hidden_size

    @property
    def layers(self) -> list[nn.Module]:
        """The blocks, which are adapted, frozen and sharded one by one; empty if the model repeats a single one."""
        count = self.encoder.config.num_hidden_layers
        lists = (module for module in self.encoder.modules() if isinstance(module, nn.ModuleList))
        return list(next((blocks for blocks in lists if len(blocks) == count), ()))

    @property
    def lora_targets(self) -> Mapping[str, tuple[str, ...]]:
        """The linear layers that LoRA adapts, by target: their names within a block."""
        found: dict[str, list[str]] = {target: [] for target in _ADAPTED}
        for block in self.layers:
            for name, module in block.named_modules():
                if isinstance(module, nn.Linear) and (target := _target_of(name)) and name not in found[target]:
                    found[target].append(name)
        return {target: tuple(names) for target, names in found.items()}

    def states(self, batch: TokenBatch) -> Tensor:
        """Return the last hidden states, shape [length, rows, hidden].

        Raises:
            ConfigError: sequences share a row, and attention would cross from one to the other.
        """
        if batch.cu_seqlens is not None and len(batch.cu_seqlens) > 2:
            raise ConfigError("a Hugging Face encoder takes one sequence per row. Use batch.packing=false.")
        mask = batch.padding_mask.long()
        return self.encoder(input_ids=batch.tokens, attention_mask=mask).last_hidden_state.transpose(0, 1)

    def forward(self, batch: TokenBatch) -> Tensor:
        """Refuse to compute a loss.

        Raises:
            ConfigError: always.
        """
        raise ConfigError(
            f"{type(self.encoder).__name__} has no masked-language head, so it has no loss. "
            "Use it with task=embed or task=finetune."
        )


class MemoryNetwork(EncoderNetwork):
    """An encoder whose texts do not stand between two terminal tokens, such as T5's."""

    def encode(self, batch: TokenBatch) -> Memory:
        """Return the states of the batch, shape [length, rows, hidden]."""
        return Memory(self.states(batch), batch.padding_mask)


class StatesNetwork(EncoderNetwork):
    """An encoder of texts between BOS and EOS, without a head."""

    def hidden_states(self, batch: TokenBatch) -> Tensor:
        """Return the states of the batch, shape [length, rows, hidden]."""
        return self.states(batch)


class MaskedNetwork(StatesNetwork):
    """An encoder and its masked-language head.

    Args:
        model: the model of transformers; its encoder is taken out of it.
        vocab_size: tokens of the tokenizer; further columns of the logits have no part in the loss.
    """

    def __init__(self, model: Any, vocab_size: int) -> None:
        name = model.base_model_prefix
        super().__init__(getattr(model, name))
        setattr(model, name, GivenStates())
        self.head = ModelHead(model)
        self.vocab_size = vocab_size

    @property
    def embedding(self) -> Any:
        """The word table under the name that heads of this framework are given."""
        return SimpleNamespace(word_embeddings=self.encoder.get_input_embeddings())

    def logits(self, batch: TokenBatch) -> Tensor:
        """Return the logits, shape [rows, length, vocabulary]."""
        return self.head(self.states(batch)).transpose(0, 1)

    def forward(self, batch: TokenBatch) -> Tensor:
        """Return the loss summed over the loss positions of the batch, a float32 scalar in nats."""
        asked = batch.loss_mask
        logits = self.head(self.states(batch).transpose(0, 1)[asked])[..., : self.vocab_size]
        return F.cross_entropy(logits.float(), batch.labels[asked], reduction="sum")


def _target_of(name: str) -> str | None:
    """Return the target of LoRA to which a linear layer of this name belongs."""
    endings = [(len(ending), target) for target, known in _ADAPTED.items() for ending in known if _ends(name, ending)]
    return max(endings)[1] if endings else None


def _ends(name: str, ending: str) -> bool:
    return name == ending or name.endswith(f".{ending}")


def network_of_model(model: Any, vocab_size: int, *, framed: bool, masked: bool) -> EncoderNetwork:
    """Return the network around a model of transformers.

    Args:
        model: the model; if `masked`, with its masked-language head.
        vocab_size: tokens of the tokenizer.
        framed: whether a text stands between BOS and EOS.
        masked: whether the model has a masked-language head.
    """
    if masked and framed:
        return MaskedNetwork(model, vocab_size)
    encoder = getattr(model, model.base_model_prefix) if masked else model
    return StatesNetwork(encoder) if framed else MemoryNetwork(encoder)


@torch.no_grad()
def positions_of(encoder: nn.Module) -> int | None:
    """Return how many positions the encoder's table has for tokens; None if it has no table."""
    for name, module in encoder.named_modules():
        if isinstance(module, nn.Embedding) and name.endswith(("position_embeddings", "embed_positions")):
            # Families that number positions from the padding on, as RoBERTa does, mark it in the table.
            return module.num_embeddings - (0 if module.padding_idx is None else module.padding_idx + 1)
    return None
