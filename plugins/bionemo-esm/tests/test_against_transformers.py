"""ESM-2 and ESM-1b against Hugging Face `EsmForMaskedLM` from the same random weights, in float32."""

import numpy as np
import pytest
import torch
from batches import batch, example
from foreign_weights import from_transformers, padded_rows

from bionemo_core.data.batches.batch import TokenBatch
from bionemo_core.inference.embedding import Embedder, EmbeddingSettings
from bionemo_core.inference.embedding.contact_head import note_contact_head
from bionemo_core.nn.encoder import EncoderLM
from bionemo_core.protocols import BuildContext
from bionemo_core.training.module import LanguageModule
from bionemo_esm import presets
from bionemo_esm.tokenizer import esm2_tokenizer

transformers = pytest.importorskip("transformers")

SEQUENCES = ("MKTAYIAKQRQISFVKSHFSRQLEERLGLIEVQ", "MKVLAAGIVGXBU", "ACDEFGHIKLMNPQRSTVWYACDEF")
MASKED = ((3, 5, 20), (1,), (2, 9, 17, 18))
TOKENIZER = esm2_tokenizer()
EXAMPLES = [example(TOKENIZER, sequence, masked) for sequence, masked in zip(SEQUENCES, MASKED, strict=True)]
SHAPE = {"num_layers": 6, "hidden_size": 320, "num_attention_heads": 20}
TOLERANCE = 1e-5


@pytest.fixture(scope="module", params=["esm2", "esm1b"])
def pair(request: pytest.FixtureRequest) -> tuple[torch.nn.Module, EncoderLM]:
    """Their model and ours with the same weights; noise on all of them, so that no term hides behind a zero."""
    torch.manual_seed(0)
    config = transformers.EsmConfig(
        vocab_size=33,
        mask_token_id=32,
        pad_token_id=1,
        hidden_size=320,
        num_hidden_layers=6,
        num_attention_heads=20,
        intermediate_size=1280,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        max_position_embeddings=1026,
        position_embedding_type="rotary" if request.param == "esm2" else "absolute",
        emb_layer_norm_before=request.param == "esm1b",
        token_dropout=True,
        layer_norm_eps=1e-5,
    )
    theirs = transformers.EsmForMaskedLM(config).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
        theirs.esm.embeddings.word_embeddings.weight[1] = 0.0
    factory = getattr(presets, request.param)
    ours = factory(**SHAPE, tokenizer=TOKENIZER, context=BuildContext()).network.eval()
    ours.load_state_dict(from_transformers(theirs.state_dict(), ours))
    return theirs, ours


def their_logits(model: torch.nn.Module, padded: TokenBatch) -> torch.Tensor:
    return model(input_ids=padded.tokens, attention_mask=padded.padding_mask.long()).logits


@torch.no_grad()
def test_padded_logits_against_transformers(pair: tuple[torch.nn.Module, EncoderLM]) -> None:
    theirs, ours = pair
    padded = batch(EXAMPLES, TOKENIZER, packed=False)
    expected = their_logits(theirs, padded)
    got = ours.logits(padded)[..., : TOKENIZER.vocab_size]
    error = (got - expected)[padded.padding_mask].abs().max() / expected.abs().max()
    assert error < TOLERANCE


@torch.no_grad()
def test_packed_and_single_sequences_against_transformers(pair: tuple[torch.nn.Module, EncoderLM]) -> None:
    theirs, ours = pair
    packed = batch(EXAMPLES, TOKENIZER, packed=True)
    assert packed.tokens.shape[0] == 1
    in_pack = ours.logits(packed)[0, :, : TOKENIZER.vocab_size].split(packed.lengths)
    for one, from_pack in zip(EXAMPLES, in_pack, strict=True):
        alone = batch([one], TOKENIZER, packed=False)
        length = len(one.tokens)
        expected = their_logits(theirs, alone)[0, :length]
        from_ours = ours.logits(alone)[0, :length, : TOKENIZER.vocab_size]
        for got in (from_pack, from_ours):
            assert (got - expected).abs().max() / expected.abs().max() < TOLERANCE


@pytest.mark.parametrize("packed", [False, True])
def test_loss_and_gradients_against_transformers(pair: tuple[torch.nn.Module, EncoderLM], packed: bool) -> None:
    theirs, ours = pair
    theirs.zero_grad()
    ours.zero_grad()
    padded = batch(EXAMPLES, TOKENIZER, packed=False)
    labels = padded.labels.masked_fill(~padded.loss_mask, -100)
    expected = theirs(input_ids=padded.tokens, attention_mask=padded.padding_mask.long(), labels=labels).loss
    expected.backward()
    ours_batch = batch(EXAMPLES, TOKENIZER, packed=packed)
    loss = ours(ours_batch) / ours_batch.num_loss_tokens
    loss.backward()
    assert loss.item() == pytest.approx(expected.item(), rel=TOLERANCE)
    gradients = {name: p.grad for name, p in theirs.named_parameters() if p.grad is not None}
    gradients.setdefault("lm_head.bias", theirs.lm_head.bias.grad)
    tied = padded_rows(theirs.esm.embeddings.word_embeddings.weight.grad, 128)
    got = ours.embedding.word_embeddings.weight.grad
    # Hugging Face's table keeps no gradient for its padding row; ours takes part in the tied head.
    rows = torch.arange(128) != TOKENIZER.pad_id
    assert (got - tied)[rows].abs().max() / tied.abs().max() < TOLERANCE
    assert got[TOKENIZER.vocab_size :].abs().max() == 0, "padded columns must take no part in training"


def relative(got: np.ndarray, expected: np.ndarray) -> float:
    return float(np.abs(got - expected).max() / np.abs(expected).max())


@torch.no_grad()
@pytest.mark.parametrize("terminal_rows", [False, True])
def test_layers_and_poolings_against_transformers(pair: tuple[torch.nn.Module, EncoderLM], terminal_rows: bool) -> None:
    theirs, ours = pair
    module = LanguageModule(ours, None, seq_length=1026)
    kept = slice(None) if terminal_rows else slice(1, -1)
    for pooling in ("mean", "max", "bos"):
        outputs = ("embeddings", "hiddens")
        settings = EmbeddingSettings(
            outputs, layers=[-1, 0, 2, 6], pooling=pooling, terminal_rows=terminal_rows, static_shapes=True
        )
        got = Embedder(module, TOKENIZER, settings).run(SEQUENCES)
        assert list(got.arrays) == [f"{name}_layer{number}" for name in outputs for number in (6, 0, 2)]
        for number in (6, 0, 2):
            hiddens = got.rows(f"hiddens_layer{number}")
            for row, sequence in enumerate(SEQUENCES):
                ids = torch.tensor([[0, *TOKENIZER.encode(sequence).tolist(), 2]])
                states = theirs(input_ids=ids, output_hidden_states=True).hidden_states[number][0].numpy()
                assert relative(hiddens[row], states[kept]) < TOLERANCE
                residues = states[1:-1]
                expected = {"mean": residues.mean(0), "max": residues.max(0), "bos": states[0]}[pooling]
                assert relative(got.arrays[f"embeddings_layer{number}"][row], expected) < TOLERANCE


@torch.no_grad()
@pytest.mark.parametrize("packing", [True, False])
def test_contacts_and_attention_maps_against_transformers(
    pair: tuple[torch.nn.Module, EncoderLM], packing: bool
) -> None:
    theirs, ours = pair
    module = LanguageModule(ours, None, seq_length=1026)
    module.capabilities = frozenset({"packing"} if packing else ())
    note_contact_head(ours, theirs.state_dict())
    theirs.set_attn_implementation("eager")
    for terminal_rows in (False, True):
        outputs = ("attentions", "contacts")[: 2 - terminal_rows]
        settings = EmbeddingSettings(outputs, terminal_rows=terminal_rows, static_shapes=packing)
        got = Embedder(module, TOKENIZER, settings).run(SEQUENCES)
        kept = slice(None) if terminal_rows else slice(1, -1)
        for row, sequence in enumerate(SEQUENCES):
            ids = torch.tensor([[0, *TOKENIZER.encode(sequence).tolist(), 2]])
            attentions = theirs(input_ids=ids, output_attentions=True).attentions
            expected = torch.stack(attentions)[:, 0, :, kept, kept].numpy()
            assert relative(got.maps("attentions")[row], expected) < TOLERANCE
            if not terminal_rows:
                contacts = theirs.predict_contacts(ids, torch.ones_like(ids))[0].numpy()
                assert got.maps("contacts")[row].shape == (len(sequence),) * 2
                assert np.abs(got.maps("contacts")[row] - contacts).max() < TOLERANCE
                assert np.ptp(contacts) > 0.01
