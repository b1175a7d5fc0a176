"""Hugging Face folders of a T5 without its decoder or its head: they open for what they can do, and no more."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bionemo_core.builtin import load_registry
from bionemo_core.data.batches.batch import TokenBatch
from bionemo_core.data.batches.rows import RowShape, collate
from bionemo_core.errors import ArtefactError
from bionemo_core.inference.embedding import Embedder
from bionemo_core.inference.sampling import Seq2SeqInference
from bionemo_core.models.load import OpenedModel, open_model
from bionemo_core.protocols import Example

transformers = pytest.importorskip("transformers")

KINDS = [
    ("T5EncoderModel", True, "relu", "decoder"),
    ("T5EncoderModel", False, "gated-gelu", "decoder"),
    ("T5ForTokenClassification", True, "relu", "decoder"),
    ("T5ForSequenceClassification", True, "relu", ""),
    ("T5Model", False, "gated-gelu", "language-model head"),
]
"""Their class, whether head and words are tied, the activation, and what ours lacks then."""


@pytest.fixture(scope="module", params=KINDS, ids=lambda kind: f"{kind[0]}-{kind[2]}")
def theirs(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path, str]:
    """Their model with random weights, the folder that it saved itself to, and what ours lacks then."""
    name, tied, activation, lacking = request.param
    torch.manual_seed(4)
    config = transformers.T5Config(
        vocab_size=128, d_model=32, num_heads=2, d_kv=24, num_layers=2, d_ff=48, pad_token_id=0, eos_token_id=1,
        decoder_start_token_id=0, feed_forward_proj=activation, tie_word_embeddings=tied, layer_norm_epsilon=1e-3,
        relative_attention_num_buckets=12, relative_attention_max_distance=20,
    )  # fmt: skip
    model = getattr(transformers, name)(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    folder = tmp_path_factory.mktemp("theirs") / name
    model.save_pretrained(folder)
    return model, folder, lacking


@pytest.fixture(scope="module")
def opened(theirs: tuple[Any, Path, str]) -> OpenedModel:
    return open_model(str(theirs[1]), load_registry())


@torch.no_grad()
def test_hidden_states_against_transformers(theirs: tuple[Any, Path, str], opened: OpenedModel) -> None:
    draw = np.random.default_rng(0)
    rows = [draw.integers(3, 28, length).astype(np.int32) for length in (40, 9)]
    examples = [Example(ids, ids, np.zeros(len(ids), dtype=bool)) for ids in rows]
    padded = TokenBatch.of(collate(examples, 2, RowShape(64, 2, opened.tokenizer.pad_id, packing=False)))
    encoder = theirs[0].base_model.encoder
    expected = encoder(input_ids=padded.tokens, attention_mask=padded.padding_mask.long()).last_hidden_state
    got = opened.module.network.encode(padded).states.transpose(0, 1)
    assert (got - expected)[padded.padding_mask].abs().max() / expected.abs().max() < 1e-5


def test_only_what_it_can_do_is_possible(theirs: tuple[Any, Path, str], opened: OpenedModel) -> None:
    model, _, lacking = theirs
    Embedder(opened.module, opened.tokenizer)
    if not lacking:  # its head is the word table, which is there
        assert opened.report.complete
        return
    said = f"{type(model).__name__} has no {lacking}: it embeds and can be fine-tuned, but has no perplexity"
    assert said in opened.report.text()
    with pytest.raises(ArtefactError, match=rf"decoding needs tensors .*(decoder|head)\..*{said}"):
        Seq2SeqInference.of(opened)
