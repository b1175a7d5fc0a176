"""Weights of other frameworks under our names, by the connectors' own tables."""

import torch
from torch import Tensor

from bionemo_core.nn.encoder import EncoderLM
from bionemo_esm.connector import huggingface_keys


def padded_rows(tensor: Tensor, rows: int) -> Tensor:
    """`tensor` with zero rows added at the end."""
    whole = torch.zeros(rows, *tensor.shape[1:])
    whole[: tensor.shape[0]] = tensor
    return whole


def from_transformers(source: dict[str, Tensor], network: EncoderLM) -> dict[str, Tensor]:
    """The state of `network` from that of a Hugging Face `EsmForMaskedLM`."""
    absolute = network.embedding.position_embeddings is not None
    table = huggingface_keys(network.config.num_layers, network.config.num_attention_heads, absolute=absolute)
    state = table.to_ours(source, "transformers").tensors
    rows = network.embedding.word_embeddings.weight.shape[0]
    return state | {
        name: padded_rows(state[name], rows) for name in ("embedding.word_embeddings.weight", "head.output.bias")
    }
