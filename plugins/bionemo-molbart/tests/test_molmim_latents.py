"""MolMIM's transforms and losses against formulas written a second time, and the ramp of the latent weight."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.distributions import Independent, Normal, kl_divergence

from bionemo_core.data.batches.batch import Seq2SeqBatch, TokenBatch
from bionemo_core.data.batches.loader import LoaderSettings, train_loader
from bionemo_core.data.batches.rng import RecordRng
from bionemo_core.errors import ConfigError
from bionemo_core.inference.philox import RowRng
from bionemo_core.nn.cuda_graph_safe import is_cuda_graph_safe
from bionemo_core.protocols import BuildContext
from bionemo_molbart import presets
from bionemo_molbart.latents import TRANSFORMS, Latents, a_mim, per_sequence, vae
from bionemo_molbart.model import LatentOptions, LatentSeq2SeqLM
from bionemo_molbart.tokenizer import molbart_tokenizer

TOKENIZER = molbart_tokenizer()
SMALL = {"num_layers": 2, "hidden_size": 32, "num_attention_heads": 4, "seq_length": 64}
MOLECULES = ["CCO", "c1ccccc1O", "CC(=O)Oc1ccccc1C(=O)O", "CN(C)C", "C1CCCCC1"]


def network(seed: int = 1234, **options: object) -> LatentSeq2SeqLM:
    built = presets.molmim(**{**SMALL, **options}, tokenizer=TOKENIZER, context=BuildContext(seed=seed))
    found = built.network
    assert isinstance(found, LatentSeq2SeqLM)
    return found


class Records:
    lengths = np.array([len(TOKENIZER.encode(one)) for one in MOLECULES], dtype=np.int32)

    def __len__(self) -> int:
        return len(MOLECULES)

    def __getitem__(self, index: int) -> str:
        return MOLECULES[index]


def micro_batches(packing: bool, seq_length: int, micro_batch_size: int) -> list[Seq2SeqBatch]:
    """All molecules: in one pack, or in rows of their own."""
    objective = presets.molmim(**SMALL, tokenizer=TOKENIZER, context=BuildContext()).objective
    size = {"micro_batch_size": micro_batch_size, "global_batch_size": 1 if packing else len(MOLECULES)}
    loader = train_loader(
        Records(),
        TOKENIZER,
        objective,
        LoaderSettings(seq_length=seq_length, packing=packing, pack_window=5, **size),
        last_step=1,
    )
    (step,) = loader
    return step.micro_batches


def batch(packing: bool = True, seq_length: int = 64) -> Seq2SeqBatch:
    (micro_batch,) = micro_batches(packing, seq_length, 1 if packing else len(MOLECULES))
    assert isinstance(micro_batch, Seq2SeqBatch)
    assert micro_batch.num_sequences == len(MOLECULES)
    return micro_batch


def random_latents(logvar_shape: tuple[int, ...] = (3, 4, 8)) -> Latents:
    torch.manual_seed(3)
    return Latents(torch.randn(3, 4, 8), torch.randn(logvar_shape), torch.randn(3, 4, 8))


@pytest.mark.parametrize("logvar_shape", [(3, 4, 8), (1, 4, 1)])
@pytest.mark.parametrize("aggregation", ["mean", "sum"])
def test_a_mim_against_torch_distributions(aggregation: str, logvar_shape: tuple[int, ...]) -> None:
    latents = random_latents(logvar_shape)
    mean, logvar, z = latents.mean, latents.logvar.expand(3, 4, 8), latents.z
    prior = Independent(Normal(torch.zeros(8), torch.ones(8)), 1)
    posterior = Independent(Normal(mean, (logvar / 2).exp()), 1)
    expected = (-0.5 * (prior.log_prob(z) + posterior.log_prob(z))).mean(0) / (8 if aggregation == "mean" else 1)
    assert torch.allclose(per_sequence(a_mim(latents), aggregation), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("logvar_shape", [(3, 4, 8), (1, 4, 1)])
def test_vae_against_torch_distributions(logvar_shape: tuple[int, ...]) -> None:
    latents = random_latents(logvar_shape)
    posterior = Normal(latents.mean, (latents.logvar.expand(3, 4, 8) / 2).exp())
    expected = kl_divergence(posterior, Normal(0.0, 1.0)).sum(-1).mean(0)
    assert torch.allclose(per_sequence(vae(latents), "sum"), expected, rtol=1e-5)


def draws(name: str, count: int = 4000) -> tuple[Latents, torch.Tensor, torch.Tensor]:
    """Many draws for one hidden state, and what the linear map says of it: the mean, and the log variance if any."""
    made = network(hidden_transform=name)
    transform = made.latent
    hidden = torch.linspace(-1, 1, 32)
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in transform.parameters():
            parameter.normal_(0.0, 0.2)
        linear = next(transform.children())
        raw = linear(hidden)
        drawn = transform(hidden.expand(1, count, 32), RowRng.of(1, count))
    return drawn, raw[:32], raw[32:]


def test_cond_gaussian_draws_from_its_gaussian() -> None:
    latents, mean, logvar = draws("cond_gaussian")
    assert torch.allclose(latents.mean[0, 0], mean, atol=1e-6)
    assert torch.allclose(latents.logvar[0, 0], logvar, atol=1e-6)
    noise = (latents.z - latents.mean) * torch.exp(-latents.logvar / 2)
    assert noise.mean().abs() < 0.02
    assert noise.std() == pytest.approx(1.0, abs=0.02)


def test_variances_below_the_least_are_lifted() -> None:
    made = network(hidden_transform="cond_gaussian", min_logvar=-0.1)
    with torch.no_grad():
        made.latent.hiddens_to_mean_logvar.bias[32:] = torch.linspace(-3, 3, 32)
        latents = made.latent.eval()(torch.zeros(1, 1, 32))
    assert torch.equal(latents.logvar.flatten(), torch.linspace(-3, 3, 32).clamp(min=-0.1))


def test_sampled_variance_is_uniform_and_one_a_sequence() -> None:
    latents, mean, _ = draws("sampled_var_cond_gaussian")
    assert torch.allclose(latents.mean[0, 7], mean, atol=1e-6)
    assert latents.logvar.shape == (1, 4000, 1)
    share = (latents.logvar.flatten() + 6) / 6
    assert share.min() >= 0
    assert share.max() <= 1
    assert torch.histc(share, 4, 0, 1) == pytest.approx([1000.0] * 4, rel=0.12)
    noise = (latents.z - latents.mean) * torch.exp(-latents.logvar / 2)
    assert noise.std() == pytest.approx(1.0, abs=0.02)


def test_interpolated_mean_and_variance_share_one_draw() -> None:
    latents, mean, logvar = draws("interp_var_cond_gaussian")
    share = latents.mean[0] / mean
    assert torch.allclose(share, share[:, :1].expand_as(share), atol=1e-3)
    assert torch.allclose(latents.logvar[0], share[:, :1] * logvar.clamp(min=-6), atol=1e-3)
    assert torch.histc(share[:, 0], 4, 0, 1) == pytest.approx([1000.0] * 4, rel=0.12)


@torch.no_grad()
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("name", list(TRANSFORMS))
def test_nothing_is_drawn_by_encoding(name: str, training: bool) -> None:
    made = network(hidden_transform=name, hidden_dropout=0.0, attention_dropout=0.0).train(training)
    first, second = (made.latents(batch().source)[1] for _ in range(2))
    assert torch.equal(first.z, first.mean)
    assert torch.equal(first.z, second.z)
    assert torch.equal(first.logvar, second.logvar)


@torch.no_grad()
@pytest.mark.parametrize("loss", ["a_mim", "vae"])
def test_forward_adds_the_weighted_latent_loss(loss: str) -> None:
    made, both = network(hidden_loss=loss, loss_weight=0.5, loss_weight_ramp_steps=10).eval(), batch()
    made.set_step(4)
    losses = made(both)
    memory, latents = made.latents(both.source)
    function = {"a_mim": a_mim, "vae": vae}[loss]
    expected = per_sequence(function(latents), "mean").sum()
    assert losses.sequences.item() == pytest.approx(0.5 * 0.4 * expected.item(), rel=1e-5)
    assert losses.tokens.item() == pytest.approx(made.decoder_loss(made.encode(both.source), both.target).item())
    name = {"a_mim": "mim_loss", "vae": "vae_loss"}[loss]
    assert list(losses.logged) == ["hiddens_loss", name]
    assert losses.logged[name].item() == pytest.approx(expected.item(), rel=1e-5)
    assert memory.states.shape == (1, len(MOLECULES), 32)


@torch.no_grad()
def test_packed_equals_unpacked_and_latents_do_not_see_padding() -> None:
    made = network(hidden_transform="cond_gaussian", loss_weight_ramp_steps=0).eval()
    packed, rows = batch(), batch(packing=False)
    whole, apart = made(packed), made(rows)
    assert whole.tokens.item() == pytest.approx(apart.tokens.item(), rel=1e-5)
    assert whole.sequences.item() == pytest.approx(apart.sequences.item(), rel=1e-5)
    means = made.latents(rows.source)[1].mean
    longer = batch(packing=False, seq_length=40)
    assert torch.allclose(made.latents(longer.source)[1].mean, means, atol=1e-6)


@torch.no_grad()
@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("name", list(TRANSFORMS))
def test_draws_are_a_function_of_seed_pass_and_record(name: str, steps: int) -> None:
    options = {"hidden_transform": name, "hidden_steps": steps, "hidden_dropout": 0.0, "attention_dropout": 0.0}
    made = network(**options).train()

    def drawn(source: TokenBatch, *, seed: int = 1, passes: int = 0, records: int = 0) -> dict[int, torch.Tensor]:
        rng = RowRng.of_records(seed, source.record_keys + torch.tensor([passes, records]))
        z = made.latents(source, rng)[1].z
        return {record: z[:, row] for row, record in enumerate(source.record_keys[: source.num_sequences, 1].tolist())}

    packed = batch().source
    reference = drawn(packed)
    apart = {record: z for one in micro_batches(False, 64, 1) for record, z in drawn(one.source).items()}
    others = [drawn(packed, **change) for change in ({"seed": 2}, {"passes": 1}, {"records": 1})]
    assert reference.keys() == apart.keys() == set(range(len(MOLECULES)))
    for record, z in reference.items():
        assert torch.allclose(z, apart[record], atol=1e-5)
        assert all((other[record] - z).abs().max() > 0.05 for other in others)


@torch.no_grad()
def test_training_ignores_the_default_generator() -> None:
    made, both = network(hidden_dropout=0.0, attention_dropout=0.0, loss_weight_ramp_steps=0).train(), batch()
    losses = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        losses.append(made(both))
    assert torch.equal(losses[0].tokens, losses[1].tokens)
    assert torch.equal(losses[0].sequences, losses[1].sequences)
    assert not torch.equal(losses[0].tokens, made.eval()(both).tokens), "training draws"


def test_a_batch_without_record_keys_is_refused_in_training() -> None:
    both = batch()
    with pytest.raises(ConfigError, match="record_keys"):
        network().train()(replace(both, source=replace(both.source, record_keys=None)))


def test_what_a_recorded_pass_reads_is_in_tensors() -> None:
    made, both = network().eval(), batch()
    assert is_cuda_graph_safe(made)
    place = made.latent_weight.data_ptr()
    made.set_step(300)
    assert made.latent_weight.data_ptr() == place
    numbers = {"num_tokens": 1, "num_loss_tokens": 2, "num_sequences": 1, "budget": 3, "lengths": [1]}
    other = Seq2SeqBatch(replace(both.source, **numbers), replace(both.target, **numbers))
    one, two = made(both), made(other)
    assert torch.equal(one.tokens, two.tokens)
    assert torch.equal(one.sequences, two.sequences)


def test_a_cast_network_weighs_its_latents_in_full() -> None:
    made = network(loss_weight_ramp_steps=1000).to(torch.bfloat16)
    made.set_step(333)
    assert float(made.latent_weight) == pytest.approx(0.333)


def test_ramp_of_the_latent_weight() -> None:
    options = LatentOptions(loss_weight=2.0)
    assert [options.weight_at(step) for step in (0, 1, 500, 1000, 50_000)] == [0.0, 0.002, 1.0, 2.0, 2.0]
    assert LatentOptions(loss_weight_ramp_steps=0).weight_at(0) == 1.0
    made = network()
    assert made.latent_weight == 0.0
    made.set_step(250)
    assert made.latent_weight == 0.25


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hidden_transform": "gaussian"}, r"model\.hidden_transform: 'gaussian'"),
        ({"hidden_loss": "elbo"}, r"model\.hidden_loss: 'elbo'"),
        ({"hidden_aggregation_method": "max"}, r"model\.hidden_aggregation_method: 'max'"),
        ({"loss_weight_ramp_steps": -1}, r"model\.loss_weight_ramp_steps: -1"),
        ({"max_logvar": -7.0}, r"model\.max_logvar: -7"),
        ({"num_attention_heads": 12}, "hidden_size=32 is not a multiple of model.num_attention_heads=12"),
        ({"hidden_steps": 0}, "hidden_steps=0"),
    ],
)
def test_what_cannot_be_built(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        network(**options)


def test_latent_shape_and_several_latents() -> None:
    made = network(hidden_steps=3).eval()
    assert made.latent_shape == (3, 32)
    with torch.no_grad():
        assert made.encode(batch().source).states.shape == (3, len(MOLECULES), 32)


def test_an_interpolated_variance_is_lifted_after_its_share() -> None:
    made = network(hidden_transform="interp_var_cond_gaussian")
    with torch.no_grad():
        made.latent.hiddens_to_mean_logvar.bias[32:] = -9.0
        logvar = made.latent(torch.zeros(1, 2000, 32), RowRng.of(1, 2000)).logvar[0, :, 0]
    # Two thirds of the shares give more than -6, and are as they are.
    assert logvar.min() == -6 and (logvar == -6).float().mean().item() == pytest.approx(1 / 3, abs=0.05)


def test_every_parameter_gets_a_gradient() -> None:
    for name in TRANSFORMS:
        made = network(hidden_transform=name, loss_weight_ramp_steps=0)
        losses = made.train()(batch())
        (losses.tokens + losses.sequences).backward()

        lacking = [n for n, p in made.named_parameters() if p.grad is None]
        assert not lacking


def test_examples_of_the_encoder_have_no_ends() -> None:
    objective = presets.molmim(**{**SMALL, "seq_length": 128}, tokenizer=TOKENIZER, context=BuildContext()).objective
    example = objective.record_example("C" * 200, RecordRng(0, 0, 0, "masking"))
    assert len(example.source) == 126
    assert not {TOKENIZER.bos_id, TOKENIZER.eos_id} & set(example.source.tolist())
