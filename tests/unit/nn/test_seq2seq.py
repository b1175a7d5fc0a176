"""The encoder-decoder: packing, padding and causality change nothing; decoding with a cache is the same function."""

import pytest
import torch
from pairs import PAD, VOCAB, batch, examples, network

from bionemo_core.errors import ConfigError
from bionemo_core.nn.seq2seq import Seq2SeqLM

VARIANTS = {
    "learned": {},
    "rotary": {"positions": "rope", "activation": "swiglu"},
    "t5": {
        "positions": "relative",
        "normalization": "rmsnorm",
        "bias": False,
        "kv_channels": 12,
        "softmax_scale": 1.0,
        "activation": "relu",
        "tokens_head_bias": False,
        "scale_tied_head": True,
    },
    "post_ln": {"block": "post_ln", "share_token_embeddings": False, "activation": "geglu"},
    "normformer": {"block": "normformer", "share_decoder_tokens_head_embeddings": False, "activation": "reglu"},
    "perceiver": {"encoder_arch": "perceiver", "hidden_steps": 3, "share_decoder_tokens_head_embeddings": False},
    "perceiver, one latent": {"encoder_arch": "perceiver", "hidden_steps": 1, "block": "post_ln"},
}


@pytest.fixture(scope="module", params=VARIANTS)
def model(request: pytest.FixtureRequest) -> Seq2SeqLM:
    return network(**VARIANTS[request.param]).double().eval()


def run_alone(model: Seq2SeqLM) -> tuple[list[torch.Tensor], torch.Tensor]:
    """Return each sequence's logits, and the sum of the losses, from batches of one sequence."""
    logits, loss = [], torch.zeros((), dtype=torch.float64)
    for example in examples():
        single = batch([example], packed=False)
        logits.append(model.logits(single)[0, : len(example.labels)])
        loss = loss + model(single)
    return logits, loss


@pytest.mark.parametrize("static", [False, True])
@pytest.mark.parametrize("packed", [False, True])
def test_a_batch_equals_each_sequence_alone(model: Seq2SeqLM, packed: bool, static: bool) -> None:
    expected, expected_loss = run_alone(model)
    together = batch(examples(), packed=packed, static=static)
    logits = model.logits(together)
    if packed:
        got = list(logits[0, : sum(map(len, expected))].split([len(rows) for rows in expected]))
    else:
        got = [row[: len(alone)] for row, alone in zip(logits, expected, strict=False)]
    for ours, theirs in zip(got, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)
    loss = model(together)
    torch.testing.assert_close(loss.double(), expected_loss, rtol=1e-6, atol=0)
    gradients = torch.autograd.grad(loss, list(model.parameters()))
    for ours, theirs in zip(gradients, torch.autograd.grad(expected_loss, list(model.parameters())), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6)


def test_logits_do_not_depend_on_later_tokens(model: Seq2SeqLM) -> None:
    example = examples(((6, 8),))[0]
    changed = example._replace(decoder_input=example.decoder_input.copy())
    changed.decoder_input[5:] = 7
    before, after = (model.logits(batch([case], packed=False))[0, :8] for case in (example, changed))
    assert torch.equal(before[:5], after[:5])
    assert not torch.allclose(before[5:], after[5:])


def test_padding_columns_get_no_gradient(model: Seq2SeqLM) -> None:
    loss = model(batch(examples(), packed=True))
    weight = model.head.output.weight
    table = model.decoder_words.weight if weight is None else weight
    (gradient,) = torch.autograd.grad(loss, [table])
    assert gradient[VOCAB:].abs().max() == 0
    assert gradient[:VOCAB].abs().max() > 0


@torch.no_grad()
def test_a_step_with_the_cache_equals_the_whole_prefix(model: Seq2SeqLM) -> None:
    together = batch(examples(((9, 12), (3, 12), (12, 12))), packed=False)
    memory = model.encode(together.source)
    expected = model.decoder_logits(memory, together.target)[..., :VOCAB]
    for tolerance, dtype in ((1e-10, torch.float64), (1e-5, torch.float32)):
        model.to(dtype)
        state = model.start(model.encode(together.source), 12)
        for position in range(12):
            got = model.step(together.target.tokens[:, position], state)
            error = (got - expected[:, position]).abs().max() / expected.abs().max()
            assert error < tolerance, (position, dtype)
        assert state.length == 12
        with pytest.raises(ConfigError, match="already holds 12 tokens"):
            model.step(together.target.tokens[:, 0], state)
    model.double()


@torch.no_grad()
def test_rows_of_a_state_can_be_reordered_and_repeated(model: Seq2SeqLM) -> None:
    together = batch(examples(((9, 6), (3, 6), (12, 6))), packed=False)
    tokens = together.target.tokens
    chosen = torch.tensor([2, 0, 0])
    state = model.start(model.encode(together.source), 6)
    for position in range(3):
        model.step(tokens[:, position], state)
    branched = state.select(chosen)
    expected = model.decoder_logits(model.encode(together.source), together.target)[chosen, 3, :VOCAB]
    torch.testing.assert_close(model.step(tokens[chosen, 3], branched), expected)
    assert (state.length, branched.length, branched.rows) == (3, 4, 3)
    untouched = model.step(tokens[:, 3], state)
    torch.testing.assert_close(untouched[chosen], expected)


@torch.no_grad()
def test_decoding_starts_from_a_packed_source_too(model: Seq2SeqLM) -> None:
    pairs = examples()
    first = torch.full((len(pairs),), 2)
    steps = []
    for packed in (False, True):
        memory = model.encode(batch(pairs, packed=packed, static=packed).source)
        state = model.start(memory, 4)
        assert state.rows >= len(pairs)
        steps.append(model.step(first.new_full((state.rows,), 2), state)[: len(pairs)])
    torch.testing.assert_close(*steps)


@torch.no_grad()
@pytest.mark.parametrize("steps", [1, 3])
def test_latents_do_not_change_with_padding(steps: int) -> None:
    model = network(encoder_arch="perceiver", hidden_steps=steps).double().eval()
    example, longer = examples(((5, 3), (14, 3)))
    short, padded = batch([example], packed=False), batch([example, longer], packed=False)
    assert padded.source.tokens.shape[1] > short.source.tokens.shape[1]
    padded.source.tokens[0, 5:] = 9  # the tokens of the padding do not matter either
    expected = model.encode(short.source).states
    assert expected.shape == (steps, 1, 32)
    assert model.encode(padded.source).padding_mask is None
    torch.testing.assert_close(model.encode(padded.source).states[:, :1], expected, rtol=0, atol=1e-12)


def test_a_max_length_above_the_positions_is_refused(model: Seq2SeqLM) -> None:
    memory = model.encode(batch(examples(), packed=False).source)
    if model.decoder_embedding.position_embeddings is None:
        model.start(memory, 40)
    else:
        with pytest.raises(ConfigError, match=r"40 tokens were requested.* only 16 positions"):
            model.start(memory, 40)


def test_dropout_is_active_in_training_only() -> None:
    model = network(dropout=0.5)
    together = batch(examples(), packed=True)
    assert not torch.equal(model(together), model(together))
    assert torch.equal(model.eval()(together), model(together))


def test_unknown_values_are_refused_by_name() -> None:
    for key, options in {
        "encoder_arch='transfomer'": {"encoder_arch": "transfomer"},
        "position_embedding_type='alibi'": {"positions": "alibi"},
        "transformer_block_type='sandwich'": {"block": "sandwich"},
        "normalization='l2'": {"normalization": "l2"},
        "hidden_steps=0": {"encoder_arch": "perceiver", "hidden_steps": 0},
        "position_embedding_type=relative": {"encoder_arch": "perceiver", "positions": "relative"},
    }.items():
        with pytest.raises(ConfigError, match=key):
            network(**options)


def test_shared_tables_are_one_parameter() -> None:
    names = [name for name, _ in network().named_parameters()]
    assert [name for name in names if "word_embeddings" in name] == ["encoder_embedding.word_embeddings.weight"]
    assert PAD == 0
