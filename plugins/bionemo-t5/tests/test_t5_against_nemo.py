"""ProtT5nv against hidden states, logits and losses that the original code recorded."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from t5_weights import from_nemo

from bionemo_core.data.batches.batch import Seq2SeqBatch, TokenBatch
from bionemo_core.inference.decoding import greedy
from bionemo_core.interop.nemo import read_nemo
from bionemo_core.nn.heads import token_cross_entropy
from bionemo_core.nn.seq2seq import Seq2SeqLM
from bionemo_core.protocols import BuildContext
from bionemo_t5 import presets
from bionemo_t5.tokenizer import PROTT5NV_PIECES, prott5nv_tokenizer

TOLERANCE = 1e-5
SIZES = {"num_layers": 2, "hidden_size": 64, "num_attention_heads": 4, "ffn_hidden_size": 128}


Recorded = tuple[Seq2SeqLM, Mapping[str, np.ndarray], Seq2SeqBatch]


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
def recorded(request: pytest.FixtureRequest, realdata: Path) -> Recorded:
    return build(realdata / "nemo_v1" / request.param / "prott5nv", 96)


def build(folder: Path, num_sentinel_tokens: int) -> Recorded:
    """A network from one archive, what was recorded of it, and its batch."""
    reference = dict(np.load(folder / "reference.npz", allow_pickle=False))
    module = presets.prott5nv(
        **SIZES,
        seq_length=64,
        seq_length_dec=64,
        masked_lm_prob=0.02,  # few spans, for which two sentinels are enough
        tokenizer=prott5nv_tokenizer(num_sentinel_tokens),
        context=BuildContext(),
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
def test_prott5nv_against_nemo(recorded: Recorded) -> None:
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


# Every piece of ours, or those that NeMo counts: its tokenizer takes each of the 96 sentinels for the unknown piece, so
# that `vocab_size` is 30 + <cls> + <sep>, and its decoder sets all logits from there on to minus infinity.
COUNTED = {"greedy_tokens_padded_vocab_raw": 96, "greedy_tokens": 2}


@torch.no_grad()
@pytest.mark.parametrize("recording", COUNTED)
def test_greedy_tokens_against_nemo(realdata: Path, recording: str) -> None:
    network, reference, batch = build(realdata / "nemo_v1" / "A" / "prott5nv", COUNTED[recording])
    wanted = torch.from_numpy(reference[recording])
    tokenizer = prott5nv_tokenizer(COUNTED[recording])
    assert not (wanted[:, 1:] == tokenizer.eos_id).any(), "theirs goes on after an end token, ours does not"
    got = greedy(network, network.encode(batch.source), tokenizer, max_length=wanted.shape[1] - 1)
    assert got.tolist() == wanted[:, 1:].tolist()


@torch.no_grad()
def test_tokens_differ_from_nemo_s_only_where_a_sentinel_is_likelier(realdata: Path) -> None:
    network, reference, batch = build(realdata / "nemo_v1" / "A" / "prott5nv", 96)
    counted = int(reference["tokenizer_vocab_size"])
    assert counted == len(PROTT5NV_PIECES) + COUNTED["greedy_tokens"]
    logits = network.decoder_logits(network.encode(batch.source), batch.target)
    theirs = torch.from_numpy(reference["decoder_logits"])
    real = batch.target.padding_mask
    assert error(logits, theirs, real) < TOLERANCE
    likeliest = logits[real].argmax(-1)
    differs = likeliest != theirs[real][:, :counted].argmax(-1)
    assert differs.any() and (likeliest[differs] >= counted).all()


def test_ids_against_nemo(realdata: Path) -> None:
    reference = np.load(realdata / "nemo_v1" / "A" / "prott5nv" / "reference.npz", allow_pickle=False)
    tokenizer = prott5nv_tokenizer()
    columns = (reference["sequences"], reference["encoder_input_ids"], reference["encoder_mask"])
    rows = list(zip(*columns, strict=True))
    for sequence, ids, keep in rows[1:]:  # in the first some residues were replaced by sentinels
        assert tokenizer.encode(str(sequence)).tolist() == ids[keep.astype(bool)].tolist()
    assert rows[0][1].max() >= 30
