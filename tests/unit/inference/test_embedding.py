"""Embeddings depend only on the sequence and the model, and equal those of the network itself."""

import itertools
from collections.abc import Callable

import numpy as np
import pytest
import torch

from bionemo_core.data.batches.batch import TokenBatch
from bionemo_core.data.batches.rows import RowShape, collate
from bionemo_core.errors import ConfigError, DataError
from bionemo_core.inference.embedding import OUTPUTS, Embedder, EmbeddingSettings, embed
from bionemo_core.inference.windows import LongRule, Window, average_windows, split_windows
from bionemo_core.protocols import BuildContext, Example

presets = pytest.importorskip("bionemo_esm.presets")

RESIDUES = list("LAGVSERTIDPKQNFYMHWC")
SEQ_LENGTH = 66


@pytest.fixture(scope="module", params=["esm1nv", "esm2"])
def model(request):
    """Return a small network with noise on every weight, and its tokenizer."""
    alphabet = {"esm1nv": presets.esm1nv_alphabet, "esm2": presets.esm2_alphabet}[request.param]
    tokenizer = alphabet()
    factory = getattr(presets, request.param)
    module = factory(
        num_layers=2,
        hidden_size=32,
        num_attention_heads=4,
        seq_length=SEQ_LENGTH,
        tokenizer=tokenizer,
        context=BuildContext(),
    )
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in module.network.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return module, tokenizer


@pytest.fixture(scope="module")
def sequences() -> list[str]:
    draw = np.random.default_rng(0)
    return ["".join(draw.choice(RESIDUES, size=size)) for size in draw.integers(1, SEQ_LENGTH - 2, size=24)]


@pytest.fixture(scope="module")
def run(model) -> Callable[..., dict[str, np.ndarray]]:
    module, tokenizer = model

    def compute(sequences: list[str], **settings: object) -> dict[str, np.ndarray]:
        return Embedder(module, tokenizer, EmbeddingSettings(outputs=OUTPUTS, **settings)).run(sequences).arrays

    return compute


def relative(got: np.ndarray, expected: np.ndarray) -> float:
    return float(np.abs(got - expected).max() / np.abs(expected).max())


def run_alone(module, tokenizer, sequence: str) -> tuple[np.ndarray, np.ndarray]:
    """Return hidden states and logits at the residues of one sequence, which the network gets as one padded row."""
    ids = np.array([tokenizer.bos_id, *tokenizer.encode(sequence), tokenizer.eos_id], dtype=np.int32)
    shape = RowShape(SEQ_LENGTH, 1, tokenizer.pad_id, packing=False, dynamic_padding=False)
    batch = TokenBatch.of(collate([Example(ids, ids, np.ones(len(ids), dtype=bool))], 1, shape))
    with torch.no_grad():
        hidden = module.network.eval().hidden_states(batch)[1 : len(ids) - 1, 0]
        logits = module.network.logits(batch)[0, 1 : len(ids) - 1, : tokenizer.vocab_size]
    return hidden.numpy(), logits.numpy()


def test_outputs_equal_those_of_each_sequence_alone(model, sequences, run):
    module, tokenizer = model
    got = run(sequences)
    hidden, logits = zip(*(run_alone(module, tokenizer, sequence) for sequence in sequences), strict=True)
    assert relative(got["hiddens"], np.concatenate(hidden)) < 1e-5
    assert relative(got["logits"], np.concatenate(logits)) < 1e-5
    assert relative(got["embeddings"], np.stack([states.mean(axis=0) for states in hidden])) < 1e-6
    expected = []
    for sequence, rows in zip(sequences, logits, strict=True):
        log_probabilities = torch.from_numpy(rows).log_softmax(-1).numpy()
        expected += [row[token] for row, token in zip(log_probabilities, tokenizer.encode(sequence), strict=True)]
    assert relative(got["log_likelihoods"], np.array(expected)) < 1e-5


@pytest.mark.parametrize("tokens_per_batch", [1, 200, 100_000])
def test_embeddings_depend_on_neither_batch_nor_order(sequences, run, tokens_per_batch):
    reference = run(sequences)["embeddings"]
    order = np.random.default_rng(tokens_per_batch).permutation(len(sequences))
    shuffled = run([sequences[i] for i in order], tokens_per_batch=tokens_per_batch)["embeddings"]
    assert relative(shuffled, reference[order]) < 1e-6


@pytest.mark.parametrize(("device", "tokens"), [("cpu", 4_096), ("cuda", 32_768)])
def test_batches_are_as_large_as_the_device_needs(model, monkeypatch, device, tokens):
    module, tokenizer = model
    monkeypatch.setattr(Embedder, "device", torch.device(device))
    assert Embedder(module, tokenizer).num_packs == tokens // module.seq_length
    assert (
        Embedder(module, tokenizer, EmbeddingSettings(tokens_per_batch=2_048)).num_packs == 2_048 // module.seq_length
    )


def test_static_shapes_change_nothing(sequences, run):
    fixed, free = run(sequences, static_shapes=True, tokens_per_batch=300), run(sequences)
    assert all(relative(fixed[name], free[name]) < 1e-5 for name in OUTPUTS)
    assert relative(fixed["embeddings"], free["embeddings"]) < 1e-6


def test_results_are_averaged_over_windows(model, run):
    module, tokenizer = model
    limit = SEQ_LENGTH - 2
    long = "".join(np.random.default_rng(5).choice(RESIDUES, size=150))
    got = run(["MKV", long], on_long="window", window_overlap=16)
    spans = split_windows(150, limit, 16)
    assert spans == [Window(0, 64), Window(48, 112), Window(86, 150)]
    total, count = np.zeros((150, 32)), np.zeros((150, 1))
    for start, stop in spans:
        total[start:stop] += run_alone(module, tokenizer, long[start:stop])[0]
        count[start:stop] += 1
    assert relative(got["hiddens"][3:], total / count) < 1e-5
    assert relative(got["embeddings"][1], (total / count).mean(axis=0)) < 1e-5
    assert relative(got["embeddings"][:1], run(["MKV"])["embeddings"]) < 1e-6


def test_a_long_sequence_is_refused_or_truncated(model, run):
    module, tokenizer = model
    long = "M" * 80
    with pytest.raises(DataError, match=r"'2' has 80 tokens, but the model takes 64.*on_long=window"):
        embed(module, tokenizer, ["MKV", long])
    cut = run([long], on_long="truncate")
    assert relative(cut["embeddings"], run(["M" * 64])["embeddings"]) < 1e-6
    assert len(cut["hiddens"]) == 64


def test_sequences_and_settings_that_cannot_be_used_are_named(model):
    module, tokenizer = model
    with pytest.raises(DataError, match="'1': token 3 '!' is not in the tokenizer's alphabet"):
        Embedder(module, tokenizer).run(["MK!V"])
    with pytest.raises(DataError, match="'2' is empty"):
        Embedder(module, tokenizer).run(["MKV", ""])
    with pytest.raises(DataError, match="sequence 2: empty sequence"):
        embed(module, tokenizer, ["MKV", ""])
    with pytest.raises(ConfigError, match=r"outputs: got .*'embedding'"):
        Embedder(module, tokenizer, EmbeddingSettings(outputs=("embedding",)))
    with pytest.raises(ConfigError, match=r"there is no argument 'devcie'\. Did you mean 'device'"):
        embed(module, tokenizer, ["MKV"], devcie="cpu")
    with pytest.raises(ConfigError, match="on_long: got 'cut'"):
        Embedder(module, tokenizer, EmbeddingSettings(on_long="cut"))
    with pytest.raises(ConfigError, match=r"task\.window_overlap: has no effect without task.on_long=window"):
        Embedder(module, tokenizer, EmbeddingSettings(on_long="truncate", window_overlap=4, key_prefix="task."))


def test_embedding_leaves_the_model_as_it_was(model, sequences):
    module, tokenizer = model
    before = {name: value.clone() for name, value in module.network.named_parameters()}
    module.train()
    first = embed(module, tokenizer, sequences[:3])
    assert module.training
    assert (first == embed(module, tokenizer, sequences[:3])).all(), "dropout must be off"
    assert all((value == before[name]).all() for name, value in module.network.named_parameters())


@pytest.mark.parametrize(("residues", "length", "overlap"), [(10, 10, 3), (11, 10, 0), (29, 10, 9), (30, 10, 5)])
def test_windows_cover_every_residue_and_are_full(residues, length, overlap):
    spans = split_windows(residues, length, overlap)
    assert set().union(*(range(*span) for span in spans)) == set(range(residues))
    assert all(stop - start == min(length, residues) for start, stop in spans)
    assert all(later.start <= earlier.stop - min(overlap, 1) for earlier, later in itertools.pairwise(spans))


def test_windows_must_advance():
    with pytest.raises(ConfigError, match="window_overlap: got 10 tokens, expected 0 to 9"):
        LongRule("window", 10, 10).check()


def test_the_mean_over_windows_by_hand():
    parts = [np.array([[1.0], [2.0], [3.0]], dtype=np.float32), np.array([[5.0], [7.0], [9.0]], dtype=np.float32)]
    mean = average_windows(parts, [Window(0, 3), Window(2, 5)], 5)
    assert mean[:, 0].tolist() == [1.0, 2.0, 4.0, 7.0, 9.0]


class Convolution(torch.nn.Module):
    """A network that sees its neighbours in a row, padding left out."""

    def __init__(self, vocab_size: int) -> None:
        super().__init__()
        self.tokens = torch.nn.Embedding(vocab_size, 8)
        self.mix = torch.nn.Conv1d(8, 8, 5, padding="same", bias=False)

    def hidden_states(self, batch: TokenBatch) -> torch.Tensor:
        hidden_BLH = self.tokens(batch.tokens) * batch.padding_mask[..., None]
        return self.mix(hidden_BLH.transpose(1, 2)).permute(2, 0, 1)


def test_a_model_that_does_not_declare_packing_gets_one_sequence_a_row(sequences):
    """Packed, the ends of neighbours would reach into each other."""
    tokenizer = presets.esm1nv_alphabet()
    torch.manual_seed(0)
    module = torch.nn.Module()
    module.network, module.seq_length = Convolution(tokenizer.vocab_size), SEQ_LENGTH
    module.capabilities = frozenset({"exact_resume"})
    embedder = Embedder(module, tokenizer, EmbeddingSettings(outputs=("hiddens",)))
    together = embedder.run(sequences).rows("hiddens")
    for sequence, states in zip(sequences, together, strict=True):
        assert relative(states, embedder.run([sequence]).arrays["hiddens"]) < 1e-6
    module.capabilities = frozenset({"packing"})
    packed = Embedder(module, tokenizer, EmbeddingSettings(outputs=("hiddens",))).run(sequences).rows("hiddens")
    assert max(relative(a, b) for a, b in zip(packed, together, strict=True)) > 0.01


def test_lists_of_sequences_are_read_as_the_command_reads_files(model):
    module, tokenizer = model
    expected = embed(module, tokenizer, ["MKTAYV", "GSHMLE"])
    assert np.array_equal(embed(module, tokenizer, ["mktayv", b"GSH mle*\n"]), expected)
    assert np.array_equal(embed(module, tokenizer, ["mktayv", "gshmle"], canonicalize=False), expected)
    assert np.array_equal(embed(module, tokenizer, (text for text in ("MKTAYV", "GSHMLE"))), expected)
    for given in ("MKTAYV", ["MKTAYV", None]):
        with pytest.raises(DataError, match=r"got one text|sequence 2: got None"):
            embed(module, tokenizer, given)
    with pytest.raises(DataError, match=r"sequence 2: .*residue '!' at position 3 .*or keep it with unknown='unk'"):
        embed(module, tokenizer, ["MKV", "mk!v"])
    assert len(embed(module, tokenizer, ["MKV", "mk!v"], unknown="unk")) == 2
    with pytest.raises(ConfigError, match="unknown: got 'skip', expected error or unk"):
        embed(module, tokenizer, ["MKV"], unknown="skip")


@torch.no_grad()
def test_terminal_rows_are_those_of_the_network(model, sequences):
    module, tokenizer = model
    settings = EmbeddingSettings(outputs=("embeddings", "hiddens"), terminal_rows=True)
    got = Embedder(module, tokenizer, settings).run(sequences)
    usual = Embedder(module, tokenizer, EmbeddingSettings(outputs=("embeddings", "hiddens"))).run(sequences)
    assert relative(got.arrays["embeddings"], usual.arrays["embeddings"]) < 1e-6
    assert got.lengths.tolist() == [len(sequence) + 2 for sequence in sequences]
    for rows, inner in zip(got.rows("hiddens"), usual.rows("hiddens"), strict=True):
        assert relative(rows[1:-1], inner) < 1e-6
        assert np.abs(rows[0] - rows[-1]).max() > 1e-3
    ids = np.concatenate([[tokenizer.bos_id], tokenizer.encode(sequences[0]), [tokenizer.eos_id]]).astype(np.int32)
    alone = collate([Example(ids, ids, np.ones(len(ids), dtype=bool))], 1, RowShape(SEQ_LENGTH, 1, tokenizer.pad_id))
    was_training = module.training
    expected = module.eval().network.hidden_states(TokenBatch.of(alone))[: len(ids), 0].numpy()
    module.train(was_training)
    assert relative(got.rows("hiddens")[0], expected) < 1e-5
    for wrong in ({"outputs": ("embeddings",)}, {"outputs": OUTPUTS}, {"outputs": ("hiddens",), "on_long": "window"}):
        with pytest.raises(ConfigError, match=r"terminal_rows=true: .*set terminal_rows=false"):
            Embedder(module, tokenizer, EmbeddingSettings(**wrong, terminal_rows=True))


def test_layers_in_windows_and_what_a_choice_refuses(model):
    module, tokenizer = model
    draw = np.random.default_rng(5)
    texts = ["".join(draw.choice(RESIDUES, size=150)), "MKTAYIAK"]

    def compute(**settings):
        return Embedder(module, tokenizer, EmbeddingSettings(**settings)).run(texts)

    settings = {"outputs": ("embeddings", "hiddens"), "on_long": "window", "layers": [1, -1]}
    got = compute(**settings, pooling="max")
    for layer in (1, 2):
        for vector, rows in zip(got.arrays[f"embeddings_layer{layer}"], got.rows(f"hiddens_layer{layer}"), strict=True):
            assert np.array_equal(vector, rows.max(axis=0))
    plain = compute(outputs=("hiddens",), on_long="window")
    assert relative(got.arrays["hiddens_layer2"], plain.arrays["hiddens"]) < 1e-6
    assert relative(got.arrays["hiddens_layer1"], plain.arrays["hiddens"]) > 1e-2
    one = embed(module, tokenizer, ["MKTAYIAK"], layers=[1], pooling="max")
    assert relative(one[0], got.arrays["embeddings_layer1"][1]) < 1e-5
    for wrong, said in (
        ({"layers": [3]}, r"layers: got 3, expected 0 \(the embedding\) to 2 \(the last layer\), or -1"),
        ({"layers": []}, "layers: got no layer"),
        ({"layers": [1], "outputs": ("logits",)}, "layers: not used without embeddings or hiddens"),
        ({"pooling": "median"}, "pooling: got 'median', expected one of mean, max, cls, bos"),
        ({"pooling": "max", "outputs": ("hiddens",)}, "pooling=max: not used without embeddings"),
        ({"pooling": "bos", "on_long": "window"}, "pooling=bos: a protein in several windows"),
    ):
        with pytest.raises(ConfigError, match=said):
            compute(**wrong)
    with pytest.raises(ConfigError, match="returns one array"):
        embed(module, tokenizer, ["MKV"], layers=[1, 2])
