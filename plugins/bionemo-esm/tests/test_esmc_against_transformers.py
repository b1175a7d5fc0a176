"""ESM C against Hugging Face's `EsmcForMaskedLM` from the same random weights, in float32, and folders both ways."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from batches import batch, example

from bionemo_core import cli
from bionemo_core.builtin import load_registry
from bionemo_core.errors import ArtefactError, ConfigError
from bionemo_core.inference.embedding import Embedder, EmbeddingSettings
from bionemo_core.interop.connector import OurModel
from bionemo_core.interop.huggingface import read_huggingface, write_huggingface
from bionemo_core.models.load import OpenedModel, open_model
from bionemo_core.models.named_weights import network_tensors
from bionemo_core.protocols import BuildContext
from bionemo_esm import presets
from bionemo_esm.esmc_connector import EsmcHuggingFace
from bionemo_esm.sizes import ESMC_SIZES, EsmcShape
from bionemo_esm.tokenizer import esmc_tokenizer

transformers = pytest.importorskip("transformers", minversion="5.24")

SEQUENCES = ("MKTAYIAKQRQISFVKSHFSRQLEERLGLIEVQ", "MKVLAAGIVGXBU", "ACDEFGHIKLM|NPQRSTVWYACDEF")
MASKED = ((3, 5, 20), (1,), (2, 9, 17, 18))
TOKENIZER = esmc_tokenizer()
EXAMPLES = [example(TOKENIZER, sequence, masked) for sequence, masked in zip(SEQUENCES, MASKED, strict=True)]
TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    """Their model, with noise on all weights so that no term hides behind a zero, and the folder it saved itself to."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 96}
    model = transformers.EsmcForMaskedLM(transformers.EsmcConfig(**sizes, initializer_range=0.1)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    folder = tmp_path_factory.mktemp("theirs") / "esmc"
    model.save_pretrained(folder)
    return model, folder


@pytest.fixture(scope="module")
def opened(theirs: tuple[Any, Path]) -> OpenedModel:
    opened = open_model(str(theirs[1]), load_registry())
    assert opened.report.complete and opened.spec.model.name == "esmc_tiny"
    return opened


def relative(got: torch.Tensor, expected: torch.Tensor) -> float:
    return float((got - expected).abs().max() / expected.abs().max())


@torch.no_grad()
@pytest.mark.parametrize("packed", [False, True])
def test_logits_against_transformers(theirs: tuple[Any, Path], opened: OpenedModel, packed: bool) -> None:
    ours = batch(EXAMPLES, TOKENIZER, packed=packed)
    logits = opened.module.network.logits(ours)[..., : TOKENIZER.vocab_size]
    rows = logits[0].split(ours.lengths) if packed else [row[:n] for row, n in zip(logits, ours.lengths, strict=True)]
    for one, got in zip(EXAMPLES, rows, strict=True):
        expected = theirs[0](input_ids=torch.tensor(one.tokens[None]).long()).logits[0]
        assert got.shape == expected.shape == (len(one.tokens), 64)
        assert relative(got, expected) < TOLERANCE


@pytest.mark.parametrize("packed", [False, True])
def test_loss_and_gradients_against_transformers(theirs: tuple[Any, Path], opened: OpenedModel, packed: bool) -> None:
    model, network = theirs[0], opened.module.network
    model.zero_grad()
    network.zero_grad()
    padded = batch(EXAMPLES, TOKENIZER, packed=False)
    labels = padded.labels.masked_fill(~padded.loss_mask, -100)
    expected = model(input_ids=padded.tokens, attention_mask=padded.padding_mask.long(), labels=labels).loss
    expected.backward()
    ours = batch(EXAMPLES, TOKENIZER, packed=packed)
    loss = network(ours) / ours.num_loss_tokens
    loss.backward()
    assert loss.item() == pytest.approx(expected.item(), rel=TOLERANCE)
    gradients = {name: parameter.grad for name, parameter in network.named_parameters()}
    foreign = EsmcHuggingFace().write(our_model(opened, gradients))
    for name, parameter in model.named_parameters():
        assert relative(foreign.tensors[name], parameter.grad) < 2 * TOLERANCE, name


@torch.no_grad()
def test_layers_against_transformers(theirs: tuple[Any, Path], opened: OpenedModel) -> None:
    settings = EmbeddingSettings(("embeddings", "hiddens"), layers=[0, 1, -1])
    got = Embedder(opened.module, opened.tokenizer, settings).run(SEQUENCES)
    for row, sequence in enumerate(SEQUENCES):
        ids = torch.tensor([[0, *TOKENIZER.encode(sequence).tolist(), 2]])
        states = theirs[0](input_ids=ids, output_hidden_states=True).hidden_states
        for number in (0, 1, 3):
            expected = states[number][0, 1:-1]
            assert relative(torch.tensor(got.rows(f"hiddens_layer{number}")[row]), expected) < TOLERANCE
            mean = torch.tensor(got.arrays[f"embeddings_layer{number}"][row])
            assert relative(mean, expected.mean(0)) < TOLERANCE


def our_model(opened: OpenedModel, tensors: Any = None, carried: Any = None) -> OurModel:
    choice = opened.spec.model
    more = {} if carried is None else {"carried": carried}
    tensors = tensors or network_tensors(opened.module.network)
    return OurModel(choice.name, choice.params, opened.tokenizer, tensors, **more)


def test_a_folder_comes_back_bit_for_bit(theirs: tuple[Any, Path], opened: OpenedModel, tmp_path: Path) -> None:
    source = read_huggingface(theirs[1])
    write_huggingface(tmp_path / "ours", EsmcHuggingFace().write(our_model(opened)))
    again = read_huggingface(tmp_path / "ours")
    assert again.tensors.keys() == source.tensors.keys()
    for name, tensor in source.tensors.items():
        assert torch.equal(again.tensors[name], tensor) and again.tensors[name].dtype == tensor.dtype, name
    loaded = transformers.EsmcForMaskedLM.from_pretrained(tmp_path / "ours").eval()
    ids = torch.tensor(EXAMPLES[0].tokens[None]).long()
    assert torch.equal(loaded(input_ids=ids).logits, theirs[0](input_ids=ids).logits)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "ours")
    for sequence in SEQUENCES:
        assert tokenizer(sequence)["input_ids"] == [0, *TOKENIZER.encode(sequence).tolist(), 2]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"hidden_act": "gelu"}, "hidden_act"),
        ({"vocab_size": 65}, "vocab_size"),
        ({"attention_bias": True}, "attention_bias"),
        ({"tie_word_embeddings": True}, "tie_word_embeddings"),
        ({"head_dim": 7}, "head_dim"),
        ({"rope_parameters": {"rope_type": "default", "rope_theta": 5000.0}}, "rope_parameters"),
    ],
)
def test_a_folder_that_computes_something_else_is_refused(
    theirs: tuple[Any, Path], tmp_path: Path, change: dict[str, Any], said: str
) -> None:
    for path in theirs[1].iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    config = json.loads((tmp_path / "config.json").read_text()) | change
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ArtefactError, match=said):
        open_model(str(tmp_path), load_registry())


def test_published_sizes_and_what_cannot_be_split() -> None:
    widths = [EsmcShape(*sizes).mlp_width for sizes in ESMC_SIZES.values()]
    assert widths == [2560, 3072, transformers.EsmcConfig().intermediate_size]
    ours = transformers.EsmcConfig()
    assert ESMC_SIZES["esmc_6b"] == (ours.num_hidden_layers, ours.hidden_size, ours.num_attention_heads)
    with pytest.raises(ConfigError, match="tensor_model_parallel_size=2: ESM C"):
        presets.esmc(tokenizer=TOKENIZER, context=BuildContext(tensor_model_parallel_size=2))


def test_a_folder_without_a_head_embeds_and_says_what_it_lacks(theirs: tuple[Any, Path], tmp_path: Path) -> None:
    theirs[0].esmc.save_pretrained(tmp_path / "body")
    opened = open_model(str(tmp_path / "body"), load_registry())
    assert "EsmcModel has no language-model head" in opened.report.text()
    Embedder(opened.module, opened.tokenizer)
    with pytest.raises(ArtefactError, match="needs tensors that were not loaded"):
        Embedder(opened.module, opened.tokenizer, EmbeddingSettings(("logits",)))


def test_train_embed_score_and_finetune_by_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("BIONEMO_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    Path("v.csv").write_text("mutant\nK2R\nA4G:Y5F\n")
    draw = np.random.default_rng(0)
    texts = ["".join(draw.choice(list("LAGVSERTIDPK"), size=12)) for _ in range(12)]
    for split in ("train", "val", "test"):
        Path("labels", split).mkdir(parents=True)
        rows = "".join(f"{i},{text},{text.count('A')}\n" for i, text in enumerate(texts))
        Path("labels", split, "x000.csv").write_text(f"id,sequence,label\n{rows}")
    common = ("trainer.accelerator=cpu", "trainer.num_threads=1", "trainer.progress_bar=false", "batch.num_workers=0")
    steps = ("trainer.max_steps=2", "trainer.val_check_interval=2", "trainer.limit_val_batches=1")
    small = ("model.num_layers=2", "model.hidden_size=32", "model.num_attention_heads=2", "model.ffn_hidden_size=64")
    short = ("batch.seq_length=64", "batch.micro_batch_size=2")

    def run(*arguments: str) -> None:
        assert cli.main([*arguments, *common]) == 0, capsys.readouterr().err

    run("model=esmc_tiny", "data=sample", "name=pre", *small, *steps, *short)
    (pre,) = (tmp_path / "home/runs/pre").iterdir()
    opened = f"restore_from_path={pre}"
    outputs = "task.outputs=[embeddings,log_likelihoods]"
    run("task=embed", opened, "task.input=labels/train/x000.csv", "task.output=e.npz", outputs)
    with np.load("e.npz") as got:
        assert got["embeddings"].shape == (12, 32)
    run("task=predict", opened, "task.variants=v.csv", "task.wild_type=MKTAYI", "task.output=s.csv")
    assert len(Path("s.csv").read_text().splitlines()) == 3
    labels = ("data.dataset_path=labels", "data.target_column=label", "task.kind=sequence_regression")
    for encoder in ("frozen", "lora", "full"):
        names = (f"task.encoder={encoder}", f"name={encoder}")
        run("task=finetune", opened, "data=labelled_csv", *labels, *names, *steps, *short)
