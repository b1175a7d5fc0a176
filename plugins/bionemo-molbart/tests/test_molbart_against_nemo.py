"""MegaMolBART and MolMIM against states, logits, losses and greedy tokens that the original code recorded."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bionemo_core.data.batches.batch import Seq2SeqBatch, TokenBatch
from bionemo_core.inference.decoding import greedy
from bionemo_core.interop.nemo import read_nemo
from bionemo_core.nn.heads import token_cross_entropy
from bionemo_core.nn.seq2seq import Seq2SeqLM
from bionemo_core.protocols import BuildContext
from bionemo_molbart import presets
from bionemo_molbart.connector import megamolbart_keys, molmim_keys
from bionemo_molbart.latents import Latents, a_mim, per_sequence
from bionemo_molbart.model import LatentSeq2SeqLM
from bionemo_molbart.tokenizer import molbart_tokenizer

TOLERANCE = 1e-5
TOKENIZER = molbart_tokenizer()
SIZES = {"num_layers": 2, "num_attention_heads": 4}
OF_64 = {"hidden_size": 64, "ffn_hidden_size": 128, "seq_length": 64}
OF_32 = {"hidden_size": 32, "ffn_hidden_size": 64, "seq_length": 48}
TRANSFORMS = {"molmim": "sampled_var_cond_gaussian", "molmim_cond_gaussian": "cond_gaussian"}

Recorded = tuple[Any, Mapping[str, np.ndarray], Seq2SeqBatch]


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


def recorded(folder: Path, network: Seq2SeqLM, keys: Any) -> Recorded:
    """The network with an archive's weights, what was recorded of it, and its batch."""
    reference = dict(np.load(folder / "reference.npz", allow_pickle=False))
    translated = keys.to_ours(read_nemo(folder / f"{folder.name}.nemo").tensors, folder.name)
    assert not translated.unexpected
    assert not translated.lacking
    network.load_state_dict(translated.tensors)
    ids, mask = reference["encoder_input_ids"], reference["encoder_mask"]
    target = padded(reference["decoder_input_ids"], reference["decoder_mask"], reference["labels"])
    return network.eval(), reference, Seq2SeqBatch(padded(ids, mask, ids), target)


@pytest.fixture(scope="module")
def megamolbart(realdata: Path) -> Recorded:
    module = presets.megamolbart(**SIZES, **OF_64, tokenizer=TOKENIZER, context=BuildContext())
    return recorded(realdata / "nemo_v1" / "A" / "megamolbart", module.network, megamolbart_keys(2))


@pytest.fixture(scope="module", params=list(TRANSFORMS))
def molmim(request: pytest.FixtureRequest, realdata: Path) -> Recorded:
    transform = TRANSFORMS[request.param]
    sizes = OF_64 if request.param == "molmim" else OF_32
    module = presets.molmim(**SIZES, **sizes, hidden_transform=transform, tokenizer=TOKENIZER, context=BuildContext())
    keys = molmim_keys(2, transform=transform)
    return recorded(realdata / "nemo_v1" / "A" / request.param, module.network, keys)


def error(got: torch.Tensor, expected: np.ndarray, real: torch.Tensor | None = None) -> float:
    """The largest difference, at real tokens where given, relative to the largest value."""
    wanted = torch.from_numpy(expected)
    difference = (got - wanted).abs()
    return float((difference if real is None else difference[real]).max() / wanted.abs().max())


@torch.no_grad()
def test_megamolbart_against_nemo(megamolbart: Recorded) -> None:
    network, reference, batch = megamolbart
    memory = network.encode(batch.source)
    assert error(memory.states.transpose(0, 1), reference["hidden_states"], batch.source.padding_mask) < TOLERANCE
    logits = network.decoder_logits(memory, batch.target)
    assert error(logits, reference["decoder_logits"], batch.target.padding_mask) < TOLERANCE
    # The losses were recorded over the padded vocabulary, so over all 640 columns.
    losses = token_cross_entropy(logits, batch.target.labels, logits.shape[-1], network.groups)
    assert error(losses, reference["token_loss"], batch.target.loss_mask) < TOLERANCE


@torch.no_grad()
def test_megamolbart_greedy_tokens_against_nemo(megamolbart: Recorded) -> None:
    network, reference, batch = megamolbart
    check_greedy(network, batch, reference["greedy_tokens"])


@torch.no_grad()
def test_molmim_against_nemo(molmim: Recorded) -> None:
    network, reference, batch = molmim
    memory, latents = network.latents(batch.source)
    assert error(memory.states.transpose(0, 1), reference["perceiver_output"]) < TOLERANCE
    assert error(latents.mean.transpose(0, 1), reference["z_mean"]) < TOLERANCE
    logvar = latents.logvar.expand_as(latents.mean).transpose(0, 1)
    assert error(logvar, reference["z_logvar"]) < TOLERANCE
    logits = network.decoder_logits(network.encode(batch.source), batch.target)
    assert error(logits, reference["decoder_logits"], batch.target.padding_mask) < TOLERANCE


@torch.no_grad()
def test_molmim_losses_against_nemo(molmim: Recorded) -> None:
    network, reference, batch = molmim
    memory, latents = network.latents(batch.source)
    z = torch.from_numpy(reference["sampled_z"]).transpose(0, 1)
    drawn = memory.with_states(z.contiguous())
    logits = network.decoder_logits(drawn, batch.target)
    assert error(logits, reference["sampled_decoder_logits"], batch.target.padding_mask) < TOLERANCE
    losses = token_cross_entropy(logits, batch.target.labels, logits.shape[-1], network.groups)
    assert error(losses, reference["loss__tokens_loss"], batch.target.loss_mask) < TOLERANCE
    latent = per_sequence(a_mim(Latents(latents.mean, latents.logvar, z)), "sum")
    assert error(latent, reference["loss__hiddens_mim_loss"]) < TOLERANCE


@torch.no_grad()
def test_molmim_greedy_tokens_against_nemo(molmim: Recorded) -> None:
    network, reference, batch = molmim
    check_greedy(network, batch, reference["greedy_tokens_raw"])


def check_greedy(network: Seq2SeqLM | LatentSeq2SeqLM, batch: Seq2SeqBatch, wanted: np.ndarray) -> None:
    """v1 goes on after the end token; up to it the tokens are the same."""
    got = greedy(network, network.encode(batch.source), TOKENIZER, max_length=wanted.shape[1] - 1)
    for ours, theirs in zip(got.tolist(), wanted[:, 1:].tolist(), strict=True):
        length = theirs.index(TOKENIZER.eos_id) + 1 if TOKENIZER.eos_id in theirs else len(theirs)
        assert ours[:length] == theirs[:length]
