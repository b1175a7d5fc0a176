"""Weights of other frameworks under our names, by the connector's own tables."""

import torch
from torch import Tensor

from bionemo_core.nn.seq2seq import Seq2SeqLM
from bionemo_t5.connector import huggingface_keys, nemo_keys


def from_transformers(source: dict[str, Tensor], network: Seq2SeqLM) -> dict[str, Tensor]:
    """The state of `network` from that of a Hugging Face `T5ForConditionalGeneration`."""
    config, rows = network.config, network.decoder_words.weight.shape[0]
    tied = network.head.output.weight is None
    table = huggingface_keys(
        config.num_layers, config.num_attention_heads, gated=config.gated_linear_unit, tied_head=tied
    )
    # Gradients of the copies of a tied table are not copies of one another.
    state = table.to_ours({name: source[name] for name in source if "embed_tokens" not in name}, "theirs").tensors
    words = ("encoder_embedding.word_embeddings.weight", "head.output.weight")
    return state | {name: padded(state[name], rows) for name in words if name in state}


def padded(tensor: Tensor, rows: int) -> Tensor:
    """`tensor` with zero rows added at the end."""
    whole = torch.zeros(rows, *tensor.shape[1:])
    whole[: tensor.shape[0]] = tensor
    return whole


def from_nemo(source: dict[str, Tensor], network: Seq2SeqLM) -> dict[str, Tensor]:
    """The state of `network` from that of a v1 ProtT5nv."""
    return nemo_keys(network.config.num_layers, tied_head=True, head_bias=True).to_ours(source, "archive").tensors
