"""ESM-1nv against hidden states, logits and losses that the original code recorded."""

from pathlib import Path

import numpy as np
import pytest
import torch
from foreign_weights import from_nemo

from bionemo_core.data.batch import TokenBatch
from bionemo_core.nn.heads import token_cross_entropy
from bionemo_core.protocols import BuildContext
from bionemo_esm import presets
from bionemo_esm.tokenizer import esm1nv_tokenizer

TOLERANCE = 1e-5


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


@torch.no_grad()
@pytest.mark.parametrize("which", ["", "masked_"])
def test_esm1nv_against_nemo(realdata: Path, which: str) -> None:
    folder = realdata / "nemo_v1" / "A" / "esm1nv"
    reference = np.load(folder / "reference.npz", allow_pickle=False)
    tokenizer = esm1nv_tokenizer()
    model = presets.esm1nv(
        num_layers=2, hidden_size=64, num_attention_heads=4, seq_length=64, tokenizer=tokenizer, context=BuildContext()
    )
    network = model.network.eval()
    network.load_state_dict(from_nemo(folder / "esm1nv.nemo", network))
    mask = reference["attention_mask"]
    batch = padded_batch(reference[f"{which}input_ids"], mask, reference["labels"])
    logits, expected = network.logits(batch), torch.from_numpy(reference[f"{which}lm_logits"])
    real = batch.padding_mask
    assert (logits - expected)[real].abs().max() / expected.abs().max() < TOLERANCE
    if not which:
        hidden = network.hidden_states(batch).transpose(0, 1)
        recorded = torch.from_numpy(reference["hidden_states"])
        assert (hidden - recorded)[real].abs().max() / recorded.abs().max() < TOLERANCE
    else:
        # The loss was recorded of the masked input. It ran over the padded vocabulary, so over all 128 columns.
        losses = token_cross_entropy(logits, batch.labels, logits.shape[-1], network.groups)
        assert (losses - torch.from_numpy(reference["lm_loss"]))[real].abs().max() < 1e-4


def test_ids_of_the_alphabet_against_nemo(realdata: Path) -> None:
    reference = np.load(realdata / "nemo_v1" / "A" / "esm1nv" / "reference.npz", allow_pickle=False)
    tokenizer = esm1nv_tokenizer()
    bos, eos, pad, unk = reference["special_ids"].tolist()
    assert (tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id, tokenizer.unk_id) == (bos, eos, pad, unk)
    columns = (reference["sequences"], reference["input_ids"], reference["attention_mask"])
    for sequence, ids, keep in zip(*columns, strict=True):
        assert [bos, *tokenizer.encode(str(sequence)), eos] == ids[keep.astype(bool)].tolist()
