"""Small encoder-decoders and batches for their tests."""

from collections.abc import Sequence

import numpy as np
import torch

from bionemo_core.data.batches.batch import Seq2SeqBatch
from bionemo_core.data.batches.rows import RowShape, collate_pairs
from bionemo_core.nn.layers import transformer_config
from bionemo_core.nn.seq2seq import Seq2SeqLM, Seq2SeqOptions, StackOptions
from bionemo_core.parallel.groups import start_groups
from bionemo_core.protocols import Seq2SeqExample

VOCAB, PAD, BOS = 30, 0, 2
LENGTHS = ((9, 4), (3, 7), (12, 1), (5, 6))
"""Numbers of source and target tokens of each sequence."""


def examples(lengths: Sequence[tuple[int, int]] = LENGTHS, seed: int = 0) -> list[Seq2SeqExample]:
    draw = np.random.default_rng(seed)
    result = []
    for source, target in lengths:
        labels = draw.integers(5, VOCAB, target).astype(np.int32)
        decoder_input = np.concatenate(([BOS], labels[:-1])).astype(np.int32)
        result.append(
            Seq2SeqExample(
                draw.integers(5, VOCAB, source).astype(np.int32), decoder_input, labels, draw.random(target) < 0.8
            )
        )
    return result


def batch(pairs: Sequence[Seq2SeqExample], *, packed: bool, static: bool = False, seq_length: int = 16) -> Seq2SeqBatch:
    shape = RowShape(
        seq_length,
        len(pairs),
        PAD,
        packing=packed,
        static_shapes=static,
        target_length=seq_length,
    )
    return Seq2SeqBatch.of(collate_pairs(pairs, len(pairs), shape))


def network(
    *,
    block: str = "pre_ln",
    positions: str = "learned_absolute",
    hidden: int = 32,
    activation: str = "gelu_tanh",
    normalization: str = "layernorm",
    bias: bool = True,
    kv_channels: int | None = None,
    softmax_scale: float | None = None,
    dropout: float = 0.0,
    seed: int = 1,
    **options: object,
) -> Seq2SeqLM:
    """Return a network of two layers on each side; all parameters are random, so that no term is hidden by a zero."""
    config = transformer_config(
        num_layers=2,
        hidden_size=hidden,
        num_attention_heads=4,
        ffn_hidden_size=48,
        activation=activation,
        normalization=normalization,
        bias=bias,
        kv_channels=kv_channels,
        softmax_scale=softmax_scale,
        hidden_dropout=dropout,
        attention_dropout=dropout,
    )
    stack = StackOptions(block, positions, relative_attention_num_buckets=8, relative_attention_max_distance=10)
    torch.manual_seed(seed)
    model = Seq2SeqLM(config, config, VOCAB, Seq2SeqOptions(16, 16, stack, **options), groups=start_groups())
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    return model
