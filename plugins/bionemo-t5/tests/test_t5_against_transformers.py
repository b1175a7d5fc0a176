"""T5 against Hugging Face `T5ForConditionalGeneration` from the same random weights, in float32."""

import numpy as np
import pytest
import torch
from t5_weights import from_transformers, padded

from bionemo_core.data.batches.batch import Seq2SeqBatch
from bionemo_core.data.batches.rows import RowShape, collate_pairs
from bionemo_core.nn.seq2seq import Seq2SeqLM
from bionemo_core.protocols import BuildContext, Seq2SeqExample
from bionemo_t5 import presets
from bionemo_t5.tokenizer import prott5nv_tokenizer

transformers = pytest.importorskip("transformers")

TOKENIZER = prott5nv_tokenizer()
VOCAB, TOLERANCE = TOKENIZER.vocab_size, 1e-5
LENGTHS = ((40, 13), (150, 7), (9, 60), (64, 64))
"""Longer than the greatest relative distance of 128, too."""

KINDS = {
    "plain, heads wider than hidden / heads (ProtT5-XL)": {
        "ours": {"activation": "relu", "kv_channels": 48},
        "theirs": {"feed_forward_proj": "relu", "d_kv": 48, "tie_word_embeddings": True},
    },
    "gated, head of its own (T5 1.1)": {
        "ours": {"activation": "geglu_tanh", "kv_channels": 16, "share_decoder_tokens_head_embeddings": False},
        "theirs": {"feed_forward_proj": "gated-gelu", "d_kv": 16, "tie_word_embeddings": False},
    },
}


def examples() -> list[Seq2SeqExample]:
    draw = np.random.default_rng(0)

    def ids(length: int) -> np.ndarray:
        return draw.integers(5, VOCAB, length).astype(np.int32)

    return [Seq2SeqExample(ids(s), ids(t), ids(t), np.ones(t, dtype=bool)) for s, t in LENGTHS]


def batch(made: list[Seq2SeqExample], *, packed: bool) -> Seq2SeqBatch:
    shape = RowShape(256, len(made), TOKENIZER.pad_id, packed, target_length=256)
    return Seq2SeqBatch.of(collate_pairs(made, len(made), shape))


@pytest.fixture(scope="module", params=KINDS)
def pair(request: pytest.FixtureRequest) -> tuple[torch.nn.Module, Seq2SeqLM]:
    """Their model and ours with the same weights; noise on all of them, so that no term hides behind a zero."""
    kind = KINDS[request.param]
    torch.manual_seed(0)
    config = transformers.T5Config(
        vocab_size=VOCAB,
        d_model=96,
        num_heads=4,
        num_layers=3,
        d_ff=160,
        dropout_rate=0.0,
        layer_norm_epsilon=1e-6,
        pad_token_id=TOKENIZER.pad_id,
        eos_token_id=TOKENIZER.eos_id,
        decoder_start_token_id=TOKENIZER.pad_id,
        **kind["theirs"],
    )
    theirs = transformers.T5ForConditionalGeneration(config).eval()
    if not kind["theirs"]["tie_word_embeddings"]:
        # They build it tied whatever the configuration says; a checkpoint with a head of its own unties it.
        theirs.lm_head.weight = torch.nn.Parameter(theirs.lm_head.weight.detach().clone())
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    sizes = {"num_layers": 3, "hidden_size": 96, "num_attention_heads": 4, "ffn_hidden_size": 160}
    module = presets.t5(**sizes, **kind["ours"], tokenizer=TOKENIZER, context=BuildContext())
    ours = module.network.eval()
    ours.load_state_dict(from_transformers(theirs.state_dict(), ours))
    return theirs, ours


def their_outputs(model: torch.nn.Module, laid: Seq2SeqBatch) -> tuple[torch.Tensor, torch.Tensor]:
    """Encoder states and decoder logits of padded rows."""
    out = model(
        input_ids=laid.source.tokens,
        attention_mask=laid.source.padding_mask.long(),
        decoder_input_ids=laid.target.tokens,
    )
    return out.encoder_last_hidden_state, out.logits


def error(got: torch.Tensor, expected: torch.Tensor) -> float:
    return float((got - expected).abs().max() / expected.abs().max())


@torch.no_grad()
def test_padded_states_and_logits_against_transformers(pair: tuple[torch.nn.Module, Seq2SeqLM]) -> None:
    theirs, ours = pair
    laid = batch(examples(), packed=False)
    states, logits = their_outputs(theirs, laid)
    memory = ours.encode(laid.source)
    assert error(memory.states.transpose(0, 1)[laid.source.padding_mask], states[laid.source.padding_mask]) < TOLERANCE
    got = ours.decoder_logits(memory, laid.target)[..., :VOCAB]
    assert error(got[laid.target.padding_mask], logits[laid.target.padding_mask]) < TOLERANCE


@torch.no_grad()
def test_packed_and_single_sequences_against_transformers(pair: tuple[torch.nn.Module, Seq2SeqLM]) -> None:
    theirs, ours = pair
    laid = batch(examples(), packed=True)
    assert laid.source.tokens.shape[0] == 1
    memory = ours.encode(laid.source)
    states_in_pack = memory.states[:, 0].split(laid.source.lengths)
    logits_in_pack = ours.decoder_logits(memory, laid.target)[0, :, :VOCAB].split(laid.target.lengths)
    for one, in_pack, answers in zip(examples(), states_in_pack, logits_in_pack, strict=True):
        alone = batch([one], packed=False)
        length, answered = len(one.source), len(one.labels)
        states, logits = (x[0] for x in their_outputs(theirs, alone))
        assert error(in_pack, states[:length]) < TOLERANCE
        assert error(ours.encode(alone.source).states[:length, 0], states[:length]) < TOLERANCE
        for got in (answers, ours.logits(alone)[0, :answered, :VOCAB]):
            assert error(got, logits[:answered]) < TOLERANCE


@pytest.mark.parametrize("packed", [False, True])
def test_loss_and_gradients_against_transformers(pair: tuple[torch.nn.Module, Seq2SeqLM], packed: bool) -> None:
    theirs, ours = pair
    theirs.zero_grad()
    ours.zero_grad()
    laid = batch(examples(), packed=False)
    out = theirs(
        input_ids=laid.source.tokens,
        attention_mask=laid.source.padding_mask.long(),
        decoder_input_ids=laid.target.tokens,
        labels=laid.target.labels.masked_fill(~laid.target.loss_mask, -100),
    )
    out.loss.backward()
    ours_batch = batch(examples(), packed=packed)
    loss = ours(ours_batch) / ours_batch.num_loss_tokens
    loss.backward()
    assert loss.item() == pytest.approx(out.loss.item(), rel=TOLERANCE)
    wanted = from_transformers({name: p.grad for name, p in _all(theirs)}, ours)
    for name, parameter in ours.named_parameters():
        assert error(parameter.grad, wanted[name]) < TOLERANCE, name


def _all(model: torch.nn.Module) -> list[tuple[str, torch.nn.Parameter]]:
    return list(model.named_parameters(remove_duplicate=False))


@torch.no_grad()
def test_decoding_with_the_cache_against_transformers(pair: tuple[torch.nn.Module, Seq2SeqLM]) -> None:
    theirs, ours = pair
    laid = batch(examples(), packed=False)
    memory = ours.encode(laid.source)
    state = ours.start(memory, 20)
    written = torch.full((len(LENGTHS), 1), TOKENIZER.pad_id)
    for _ in range(19):
        tokens = ours.step(written[:, -1], state).argmax(-1, keepdim=True)
        written = torch.cat((written, tokens), dim=1)
    logits = ours.step(written[:, -1], state)
    expected = theirs(
        input_ids=laid.source.tokens, attention_mask=laid.source.padding_mask.long(), decoder_input_ids=written
    ).logits
    assert error(logits, expected[:, -1]) < TOLERANCE


def test_their_padding_of_tables_is_ours(pair: tuple[torch.nn.Module, Seq2SeqLM]) -> None:
    theirs, ours = pair
    assert torch.equal(ours.decoder_words.weight, padded(theirs.shared.weight.detach(), 128))
