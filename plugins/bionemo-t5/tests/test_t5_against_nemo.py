"""ProtT5nv against hidden states, logits and losses that the original code recorded."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from t5_weights import from_nemo

from bionemo_core.data.batches.batch import Seq2SeqBatch, TokenBatch
from bionemo_core.interop.nemo import read_nemo
from bionemo_core.nn.heads import token_cross_entropy
from bionemo_core.nn.seq2seq import Seq2SeqLM
from bionemo_core.protocols import BuildContext
from bionemo_t5 import presets
from bionemo_t5.tokenizer import prott5nv_tokenizer

TOLERANCE = 1e-5
SIZES = {"num_layers": 2, "hidden_size": 64, "num_attention_heads": 4, "ffn_hidden_size": 128}


def padded(tokens: np.ndarray, mask: np.ndarray, labels: np.ndarray) -> TokenBatch:
    rows, length = tokens.shape
    real = torch.from_numpy(mask.astype(bool))
    return TokenBatch(
        tokens=torch.from_numpy(tokens),
        labels=torch.from_numpy(labels).clamp(min=0),
        loss_mask=real & torch.from_numpy(labels >= 0),
        position_ids=torch.arange(length).expand(rows, length),
        padding_mask=real,
        segment_ids=torch.arange(rows).unsqueeze(1).expand(rows, length),
        cu_seqlens=None,
        lengths=mask.sum(1).tolist(),
        max_seqlen=length,
        num_loss_tokens=int(mask.sum()),
        num_tokens=int(mask.sum()),
        num_sequences=rows,
        budget=tokens.size,
    )


@pytest.fixture(scope="module", params=["A", "A_tp2"])
def recorded(
    request: pytest.FixtureRequest, realdata: Path
) -> tuple[Seq2SeqLM, Mapping[str, np.ndarray], Seq2SeqBatch]:
    """A network from one archive, what was recorded of it, and its batch."""
    folder = realdata / "nemo_v1" / request.param / "prott5nv"
    reference = dict(np.load(folder / "reference.npz", allow_pickle=False))
    module = presets.prott5nv(
        **SIZES, seq_length=64, seq_length_dec=64, tokenizer=prott5nv_tokenizer(), context=BuildContext()
    )
    state = dict(read_nemo(folder / "prott5nv.nemo").tensors)
    for name, tensor in state.items():  # two ranks padded the vocabulary to 256; the rows past 128 are no pieces
        if tensor.shape[:1] == (256,) and ("word_embeddings" in name or "tokens_head" in name):
            state[name] = tensor[:128]
    network = module.network.eval()
    network.load_state_dict(from_nemo(state, network))
    source = padded(reference["encoder_input_ids"], reference["encoder_mask"], reference["encoder_input_ids"])
    target = padded(
        reference["decoder_input_ids"],
        reference["decoder_mask"],
        reference.get("labels", reference["decoder_input_ids"]),
    )
    return network, reference, Seq2SeqBatch(source, target)


def error(got: torch.Tensor, expected: torch.Tensor, real: torch.Tensor) -> float:
    """The largest difference at real tokens, relative to the largest value."""
    return float((got - expected)[real].abs().max() / expected[real].abs().max())


@torch.no_grad()
def test_prott5nv_against_nemo(recorded: tuple[Seq2SeqLM, Mapping[str, np.ndarray], Seq2SeqBatch]) -> None:
    network, reference, batch = recorded
    memory = network.encode(batch.source)
    states = torch.from_numpy(reference["hidden_states"])
    assert error(memory.states.transpose(0, 1), states, batch.source.padding_mask) < TOLERANCE
    logits = network.decoder_logits(memory, batch.target)
    expected = torch.from_numpy(reference["decoder_logits"])[..., : logits.shape[-1]]
    assert error(logits, expected, batch.target.padding_mask) < TOLERANCE
    if "token_loss" in reference:
        # The loss was recorded over the padded vocabulary, so over all 128 columns.
        losses = token_cross_entropy(logits, batch.target.labels, logits.shape[-1], network.groups)
        recorded_losses = torch.from_numpy(reference["token_loss"])
        assert error(losses, recorded_losses, batch.target.loss_mask) < TOLERANCE


@torch.no_grad()
def test_greedy_tokens_against_nemo(recorded: tuple[Seq2SeqLM, Mapping[str, np.ndarray], Seq2SeqBatch]) -> None:
    network, reference, batch = recorded
    if "greedy_tokens" not in reference:
        assert reference["decoder_logits"].shape[-1] == 256  # of the archive of two ranks logits alone were recorded
        return
    wanted = torch.from_numpy(reference["greedy_tokens"])
    state = network.start(network.encode(batch.source), wanted.shape[1])
    tokens = wanted[:, 0]
    for place in range(1, wanted.shape[1]):
        # v1's tokenizer counted 32 pieces, so that its decoding never gives a sentinel but the first two.
        tokens = network.step(tokens, state)[:, :32].argmax(-1)
        assert tokens.tolist() == wanted[:, place].tolist(), place


def test_ids_against_nemo(realdata: Path) -> None:
    reference = np.load(realdata / "nemo_v1" / "A" / "prott5nv" / "reference.npz", allow_pickle=False)
    tokenizer = prott5nv_tokenizer()
    columns = (reference["sequences"], reference["encoder_input_ids"], reference["encoder_mask"])
    rows = list(zip(*columns, strict=True))
    for sequence, ids, keep in rows[1:]:  # in the first some residues were replaced by sentinels
        assert tokenizer.encode(str(sequence)).tolist() == ids[keep.astype(bool)].tolist()
    assert rows[0][1].max() >= 30
