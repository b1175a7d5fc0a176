"""v1's inference interface over tiny models: shapes, defaults, seeds, refusals."""

from types import SimpleNamespace

import pytest
import torch
from tiny_models import HIDDEN, LATENTS, SEQ_LENGTH, TEXTS, TOKENIZER, inference, network

from bionemo_core.errors import ConfigError, DataError
from bionemo_core.inference.batched import BatchedDecoding
from bionemo_core.inference.methods import SAMPLING_METHODS, method_options
from bionemo_core.inference.philox import RowRng
from bionemo_core.inference.sampling import Seq2SeqInference

FLAT = ("greedy-perturbate", "topkp-perturbate", "beam-search-perturbate", "beam-search-single-sample")


def test_v1s_names_and_defaults():
    assert {name: dict(options) for name, options in SAMPLING_METHODS.items()} == {
        "greedy-perturbate": {},
        "topkp-perturbate": {"top_k": 0, "top_p": 0.9, "temperature": 1.0},
        "beam-search-perturbate": {"beam_size": 5, "keep_only_best_tokens": True, "beam_alpha": 0.0},
        "beam-search-single-sample": {"beam_size": None, "keep_only_best_tokens": False, "beam_alpha": 0.0},
        "beam-search-perturbate-sample": {"beam_size": 5, "keep_only_best_tokens": False, "beam_alpha": 0.0},
    }
    assert method_options("beam-search-single-sample", {}, 7, 1.0)["beam_size"] == 7


def test_hidden_states_of_unequal_texts():
    hiddens, mask = inference().seq_to_hiddens(TEXTS)
    assert mask.sum(dim=1).tolist() == [len(text) for text in TEXTS]
    assert hiddens.shape[2] == HIDDEN
    alone, _ = inference().seq_to_hiddens(TEXTS[3:4])
    torch.testing.assert_close(hiddens[3, :2], alone[0, :2])
    latents, every = inference("perceiver").seq_to_hiddens(TEXTS)
    assert latents.shape == (len(TEXTS), LATENTS, HIDDEN) and every.all()


def test_an_embedding_is_the_mean_over_real_positions():
    hiddens, mask = inference().seq_to_hiddens(TEXTS)
    expected = torch.stack([h[:n].mean(dim=0) for h, n in zip(hiddens, mask.sum(dim=1), strict=True)])
    torch.testing.assert_close(inference().seq_to_embeddings(TEXTS), expected)
    with pytest.raises(DataError, match="row 1 of the mask is empty"):
        inference().hiddens_to_embedding(hiddens[:2], torch.stack((mask[0], torch.zeros_like(mask[1]))))


@pytest.mark.parametrize("kind", ["transformer", "perceiver"])
def test_without_noise_samples_are_the_decoded_hidden_states(kind):
    model = inference(kind)
    plain = model.hiddens_to_seq(*model.seq_to_hiddens(TEXTS))
    assert len(set(plain)) > 1
    assert model.sample(2, seqs=TEXTS, scaled_radius=0.0) == [[text, text] for text in plain]
    assert model.sample(1, False, "topkp-perturbate", None, 0.0, seqs=TEXTS, top_k=1) == [[text] for text in plain]
    one_beam = model.sample(sampling_method="beam-search-perturbate", seqs=TEXTS, scaled_radius=0.0, beam_size=1)
    assert one_beam == [[text] for text in plain]


@pytest.mark.parametrize("method", FLAT)
def test_the_shape_of_samples(method):
    texts, embeddings = inference().sample(3, True, method, seqs=TEXTS[:4], scaled_radius=0.5)
    assert [len(own) for own in texts] == [3] * 4
    assert all(isinstance(text, str) for own in texts for text in own)
    assert embeddings.shape == (4, 1 if method == "beam-search-single-sample" else 3, HIDDEN)


def test_a_beam_search_can_return_all_beams():
    nested = inference().sample(2, sampling_method="beam-search-perturbate-sample", seqs=TEXTS[:3])
    assert [[len(beams) for beams in own] for own in nested] == [[5, 5]] * 3
    best = inference().sample(2, sampling_method="beam-search-perturbate", seqs=TEXTS[:3])
    assert best == [[beams[0] for beams in own] for own in nested]
    single = inference().sample(4, sampling_method="beam-search-single-sample", seqs=TEXTS[:3])
    wide = inference().sample(1, sampling_method="beam-search-perturbate-sample", seqs=TEXTS[:3], beam_size=4)
    assert single == [own[0] for own in wide]


@pytest.mark.parametrize("method", SAMPLING_METHODS)
def test_samples_depend_on_neither_batch_nor_other_sequences(method):
    expected = inference(batch_size=256).sample(3, sampling_method=method, seqs=TEXTS)
    assert inference(batch_size=4).sample(3, sampling_method=method, seqs=TEXTS) == expected
    assert inference().sample(3, sampling_method=method, seqs=TEXTS[5:], first_sequence=5) == expected[5:]
    if method != "beam-search-single-sample":
        fewer = inference().sample(2, sampling_method=method, seqs=TEXTS)
        assert fewer == [own[:2] for own in expected]
    assert inference().sample(3, sampling_method=method, seqs=TEXTS, seed=2) != expected


def test_samples_from_hidden_states():
    model = inference()
    hiddens, masks = model.seq_to_hiddens(TEXTS)
    given = model.sample(2, hiddens=hiddens, enc_masks=masks, scaled_radius=0.4)
    assert given == model.sample(2, seqs=TEXTS, scaled_radius=0.4)


def test_interpolation_leaves_the_end_points_out():
    model = inference("perceiver")
    hiddens, _ = model.seq_to_hiddens(TEXTS[:2])
    points = [torch.lerp(hiddens[0], hiddens[1], k / 4) for k in (1, 2, 3)]
    expected = model.hiddens_to_seq(torch.stack(points), torch.ones(3, LATENTS, dtype=torch.bool))
    texts, embeddings = model.interpolate_samples(*TEXTS[:2], num_interpolations=3, return_embedding=True)
    assert texts == [[text] for text in expected]
    torch.testing.assert_close(embeddings[:, 0], torch.stack(points).mean(dim=1))
    assert len(inference().interpolate_samples(TEXTS[3], TEXTS[5])) == 11


def test_the_prior_of_a_latent_space():
    model = inference("perceiver", batch_size=4)
    texts = model.sample_prior(10)
    assert len(texts) == 10 and len(set(texts)) > 5
    assert inference("perceiver").sample_prior(4, first_sequence=6) == texts[6:]
    with pytest.raises(ConfigError, match="no latent space"):
        inference().sample_prior(1)


def test_the_interface_of_an_opened_model():
    module = SimpleNamespace(network=network(), seq_length=SEQ_LENGTH, objective=SimpleNamespace(target_length=9))
    model = Seq2SeqInference.of(SimpleNamespace(module=module, tokenizer=TOKENIZER))
    assert (model.seq_length, model.max_length) == (SEQ_LENGTH, 9)
    assert all(len(text) <= 9 for own in model.sample(2, seqs=TEXTS) for text in own)
    encoder_only = SimpleNamespace(network=SimpleNamespace(encode=None), seq_length=8)
    with pytest.raises(ConfigError, match="it lacks start, step"):
        Seq2SeqInference.of(SimpleNamespace(module=encoder_only, tokenizer=TOKENIZER))


def test_ids_become_text_up_to_the_first_end_token():
    eos, pad = TOKENIZER.eos_id, TOKENIZER.pad_id
    rows = [[5, 6, eos, 7], [eos, 5, 5, 5], [5, 6, 7, 8], [6, 6, eos, pad]]
    assert inference().detokenize(torch.tensor(rows)) == ["AB", "", "ABCD", "BB"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sampling_method": "beam-search-perturb"}, "beam-search-perturbate"),
        ({"top_p": 0.5}, "greedy-perturbate: no option 'top_p'"),
        ({"num_samples": 0}, "num_samples: got 0"),
        ({"scaled_radius": -1.0}, "scaled_radius: got -1.0"),
        ({"sampling_method": "beam-search-single-sample", "num_samples": 2, "beam_size": 3}, "Leave beam_size out"),
        ({"hiddens_to_seq_kwargs": {"beam": 1}}, "no option 'beam'"),
        ({"seqs": None}, "either seqs, or hiddens"),
    ],
)
def test_invalid_options_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        inference().sample(**{"seqs": TEXTS[:1], **options})


def test_a_sequence_that_is_too_long_is_named():
    with pytest.raises(DataError, match=r"sequence 2 \('A+'\) has 25 tokens, but the model takes 1 to 24"):
        inference().sample(seqs=["AB", "A" * 25])
    with pytest.raises(DataError, match="sequence 1: empty sequence"):
        inference().seq_to_embeddings([""])


def test_a_max_length_can_be_given():
    texts = inference().sample(1, hiddens_to_seq_kwargs={"max_length": 2}, seqs=TEXTS)
    assert max(len(own[0]) for own in texts) <= 2
    assert max(len(own[0]) for own in inference().sample(1, seqs=TEXTS)) > 2


@pytest.mark.parametrize("method", ["greedy-perturbate", "topkp-perturbate", "beam-search-perturbate-sample"])
def test_a_short_first_cache_changes_no_token(method):
    model = inference()
    hiddens, mask = model.seq_to_hiddens(TEXTS)
    rng = RowRng.of(4, len(TEXTS))
    settings = method_options(method, {}, 1, 0.0)
    decoded = [
        BatchedDecoding(network(), TOKENIZER, method, settings, 16, 3, short).decode(hiddens, mask, rng).tokens
        for short in (None, 2, 5, 16, 99)
    ]
    lengths = (decoded[0] != TOKENIZER.pad_id).sum(dim=2)
    assert lengths.min() <= 5 < lengths.max(), "some texts must end within the short length, and others not"
    assert all(torch.equal(decoded[0], tokens) for tokens in decoded)
