"""ESM-1nv against hidden states, logits and losses that the original code recorded."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch

from bionemo_core.builtin import load_registry
from bionemo_core.data.batches.batch import TokenBatch
from bionemo_core.models.load import open_model
from bionemo_core.nn.encoder import EncoderLM
from bionemo_core.nn.heads import token_cross_entropy
from bionemo_esm.tokenizer import esm1nv_tokenizer

TOLERANCE = 1e-5

Recorded = tuple[EncoderLM, Mapping[str, np.ndarray]]


def padded_batch(tokens: np.ndarray, mask: np.ndarray, labels: np.ndarray) -> TokenBatch:
    rows, length = tokens.shape
    lengths = mask.sum(1).tolist()
    return TokenBatch(
        tokens=torch.from_numpy(tokens),
        labels=torch.from_numpy(labels),
        loss_mask=torch.from_numpy(mask.astype(bool)),
        position_ids=torch.arange(length).expand(rows, length),
        padding_mask=torch.from_numpy(mask.astype(bool)),
        segment_ids=torch.arange(rows).unsqueeze(1).expand(rows, length),
        cu_seqlens=None,
        lengths=lengths,
        max_seqlen=length,
        num_loss_tokens=int(mask.sum()),
        num_tokens=int(mask.sum()),
        num_sequences=rows,
        budget=tokens.size,
    )


@pytest.fixture(scope="module", params=["A", "A_tp2", "A_old"])
def recorded(request: pytest.FixtureRequest, realdata: Path) -> Recorded:
    """A network from one archive, whole, split over two ranks or in the older layout, and what was recorded of it."""
    folder = realdata / "nemo_v1" / request.param / "esm1nv"
    reference = realdata / "nemo_v1" / ("A" if request.param == "A_old" else request.param) / "esm1nv"
    opened = open_model(str(folder / "esm1nv.nemo"), load_registry())
    assert opened.report.complete
    return opened.module.network, np.load(reference / "reference.npz", allow_pickle=False)


def error(got: torch.Tensor, expected: torch.Tensor) -> float:
    """The largest difference, relative to the largest value."""
    return float((got - expected).abs().max() / expected.abs().max())


@torch.no_grad()
def test_hidden_states_and_logits_against_nemo(recorded: Recorded) -> None:
    network, reference = recorded
    batch = padded_batch(reference["input_ids"], reference["attention_mask"], reference["input_ids"])
    real = batch.padding_mask
    hidden = network.hidden_states(batch).transpose(0, 1)
    assert error(hidden[real], torch.from_numpy(reference["hidden_states"])[real]) < TOLERANCE
    # Two ranks pad the vocabulary to 256 columns, of which ours keeps 128.
    logits = network.logits(batch)
    expected = torch.from_numpy(reference["lm_logits"])[..., : logits.shape[-1]]
    assert error(logits[real], expected[real]) < TOLERANCE
    if "embeddings" in reference:
        residues = torch.from_numpy(reference["residue_mask"]).unsqueeze(-1)
        pooled = (hidden * residues).sum(1) / residues.sum(1)
        assert error(pooled, torch.from_numpy(reference["embeddings"])) < TOLERANCE


@torch.no_grad()
def test_masked_logits_and_loss_against_nemo(recorded: Recorded) -> None:
    network, reference = recorded
    if "lm_loss" not in reference:
        return  # of the two ranks no losses were recorded
    batch = padded_batch(reference["masked_input_ids"], reference["attention_mask"], reference["labels"])
    real, logits = batch.padding_mask, network.logits(batch)
    assert error(logits[real], torch.from_numpy(reference["masked_lm_logits"])[real]) < TOLERANCE
    # The loss was recorded of the masked input. It ran over the padded vocabulary, so over all 128 columns.
    losses = token_cross_entropy(logits, batch.labels, logits.shape[-1], network.groups)
    assert error(losses[real], torch.from_numpy(reference["lm_loss"])[real]) < TOLERANCE


def test_ids_of_the_alphabet_against_nemo(realdata: Path) -> None:
    reference = np.load(realdata / "nemo_v1" / "A" / "esm1nv" / "reference.npz", allow_pickle=False)
    tokenizer = esm1nv_tokenizer()
    bos, eos, pad, unk = reference["special_ids"].tolist()
    assert (tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id, tokenizer.unk_id) == (bos, eos, pad, unk)
    columns = (reference["sequences"], reference["input_ids"], reference["attention_mask"])
    for sequence, ids, keep in zip(*columns, strict=True):
        assert [bos, *tokenizer.encode(str(sequence)), eos] == ids[keep.astype(bool)].tolist()
