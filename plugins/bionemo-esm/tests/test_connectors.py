"""Weights out to v1 archives and Hugging Face folders and back: bit for bit, and read by the other side."""

import json
import logging
import shutil
import tarfile
from pathlib import Path

import pytest
import torch
from batches import batch, example

from bionemo_core.builtin import load_registry
from bionemo_core.errors import ArtefactError, ConfigError
from bionemo_core.interop.connector import ForeignModel, OurModel
from bionemo_core.interop.foreign_config import ForeignConfig
from bionemo_core.interop.huggingface import read_huggingface, write_huggingface
from bionemo_core.interop.nemo import read_nemo, write_nemo
from bionemo_core.interop.stored import Carried
from bionemo_core.models.load import OpenedModel, open_model
from bionemo_core.models.named_weights import network_tensors
from bionemo_esm.connector import Esm1nvNemo, EsmHuggingFace
from bionemo_esm.tokenizer import ESM1NV_PIECES, esm2_tokenizer

transformers = pytest.importorskip("transformers")
sentencepiece = pytest.importorskip("sentencepiece")

SEQUENCES = ("MKTAYIAKQRQISFVKSHFSRQLEERLGLIEVQ", "MKVLAAGIVGXBU")


def ours(opened: OpenedModel, carried: Carried | None = None) -> OurModel:
    tensors = network_tensors(opened.module.network)
    choice = opened.spec.model
    return OurModel(choice.name, choice.params, opened.tokenizer, tensors, carried or Carried())


def assert_same_bits(got: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert got.keys() == expected.keys()
    for name, tensor in expected.items():
        assert got[name].dtype == tensor.dtype and torch.equal(got[name], tensor), name


@pytest.fixture(scope="module")
def esm1nv(realdata: Path) -> OpenedModel:
    return open_model(str(realdata / "nemo_v1/A/esm1nv/esm1nv.nemo"), load_registry())


def test_a_v1_archive_comes_back_bit_for_bit(esm1nv: OpenedModel, realdata: Path, tmp_path: Path) -> None:
    source = read_nemo(realdata / "nemo_v1/A/esm1nv/esm1nv.nemo")
    carried = Esm1nvNemo().read(source).carried
    write_nemo(tmp_path / "again.nemo", Esm1nvNemo().write(ours(esm1nv, carried)))
    again = read_nemo(tmp_path / "again.nemo")
    assert_same_bits(dict(again.tensors), dict(source.tensors))
    assert again.files == source.files, "the tokenizer's files are carried over"
    for key in ("num_layers", "hidden_size", "ffn_hidden_size", "num_attention_heads", "max_position_embeddings"):
        assert again.config.values[key] == source.config.values[key]
    reopened = open_model(str(tmp_path / "again.nemo"), load_registry())
    assert_same_bits(network_tensors(reopened.module.network), network_tensors(esm1nv.module.network))


def test_a_written_archive_has_the_layout_of_v1(esm1nv: OpenedModel, tmp_path: Path) -> None:
    write_nemo(tmp_path / "new.nemo", Esm1nvNemo().write(ours(esm1nv)))
    with tarfile.open(tmp_path / "new.nemo", "r:") as tar:
        names = tar.getnames()
    assert {"./model_config.yaml", "./model_weights.ckpt"} <= {f"./{name.removeprefix('./')}" for name in names}
    assert len(names) == 5 and sum("_protein_sequence_sentencepiece." in name for name in names) == 2


def test_the_written_sentencepiece_model_splits_as_ours_does(esm1nv: OpenedModel, realdata: Path) -> None:
    files = Esm1nvNemo().write(ours(esm1nv)).files
    written = sentencepiece.SentencePieceProcessor(model_proto=files["protein_sequence_sentencepiece.model"])
    original = sentencepiece.SentencePieceProcessor(
        model_proto=read_nemo(realdata / "nemo_v1/A/esm1nv/esm1nv.nemo").files["protein_sequence_sentencepiece.model"]
    )
    pieces = range(len(ESM1NV_PIECES))
    assert [written.id_to_piece(i) for i in pieces] == list(ESM1NV_PIECES)
    assert [written.get_score(i) for i in pieces] == [original.get_score(i) for i in pieces]
    for sequence in (*SEQUENCES, "ACDEFGHIKLMNPQRSTVWYXBZUO"):
        assert written.encode(sequence) == original.encode(sequence) == esm1nv.tokenizer.encode(sequence).tolist()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"normalization": "rmsnorm"}, "normalization"),
        ({"megatron_legacy": True}, "megatron_legacy"),
        ({"bert_binary_head": True}, "bert_binary_head"),
        ({"hidden_size": "64"}, "hidden_size"),
        ({"num_layers": 0}, "num_layers"),
        ({"num_attention_heads": None}, "num_attention_heads"),
        ({"kv_channels": 7}, "kv_channels"),
        ({"position_embedding_type": "rope"}, "position_embedding_type"),
    ],
)
def test_an_archive_that_computes_something_else_is_refused(
    realdata: Path, change: dict[str, object], said: str
) -> None:
    source = read_nemo(realdata / "nemo_v1/A/esm1nv/esm1nv.nemo")
    edited = ForeignModel(ForeignConfig(source.config.values | change, "here"), source.tensors, source.files)
    with pytest.raises(ArtefactError, match=said):
        Esm1nvNemo().read(edited)


@pytest.fixture(scope="module", params=["rotary", "absolute", "rotary-norm-untied", "absolute-untied"])
def theirs(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[torch.nn.Module, Path]:
    """A Hugging Face ESM-2 or ESM-1b with random weights, and the folder that it saved itself to."""
    torch.manual_seed(1)
    config = transformers.EsmConfig(
        vocab_size=33,
        mask_token_id=32,
        pad_token_id=1,
        hidden_size=40,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=80,
        hidden_dropout_prob=0.03,
        attention_probs_dropout_prob=0.07,
        initializer_range=0.04,
        max_position_embeddings=66,
        position_embedding_type=request.param.partition("-")[0],
        emb_layer_norm_before="norm" in request.param or request.param == "absolute",
        tie_word_embeddings="untied" not in request.param,
        token_dropout=True,
        layer_norm_eps=1e-2,  # large enough to be seen in the logits
    )
    model = transformers.EsmForMaskedLM(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    folder = tmp_path_factory.mktemp("theirs") / request.param
    model.save_pretrained(folder)
    return model, folder


@torch.no_grad()
def test_their_folder_and_ours_agree_in_logits_and_bits(
    theirs: tuple[torch.nn.Module, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model, folder = theirs
    opened = open_model(str(folder), load_registry())
    assert opened.report.complete
    switches = ("hidden_dropout", "attention_dropout", "init_method_std", "layernorm_epsilon", "token_dropout")
    assert [opened.spec.model.params[name] for name in switches] == [0.03, 0.07, 0.04, 1e-2, True]
    source = read_huggingface(folder)
    assert ("lm_head.decoder.weight" in source.tensors) == (not model.config.tie_word_embeddings)
    foreign = EsmHuggingFace().write(ours(opened, EsmHuggingFace().read(source).carried))
    assert_same_bits(dict(foreign.tensors), dict(source.tensors))

    write_huggingface(tmp_path / "ours", foreign, shard_bytes=20_000)
    assert (tmp_path / "ours" / "model.safetensors.index.json").is_file(), "in several files"
    with caplog.at_level(logging.WARNING):
        loaded = transformers.EsmForMaskedLM.from_pretrained(tmp_path / "ours").eval()
    assert "newly initialized" not in caplog.text and "not used" not in caplog.text
    assert_same_bits(dict(read_huggingface(tmp_path / "ours").tensors), dict(source.tensors))

    tokenizer = esm2_tokenizer()
    padded = batch([example(tokenizer, sequence, (3,)) for sequence in SEQUENCES], tokenizer, packed=False)
    expected = model(input_ids=padded.tokens, attention_mask=padded.padding_mask.long()).logits
    again = loaded(input_ids=padded.tokens, attention_mask=padded.padding_mask.long()).logits
    got = opened.module.network.logits(padded)[..., : tokenizer.vocab_size]
    real = padded.padding_mask
    for logits in (again, got):
        assert (logits - expected)[real].abs().max() / expected.abs().max() < 1e-5


def test_the_tokenizer_of_a_written_folder_is_theirs(theirs: tuple[torch.nn.Module, Path], tmp_path: Path) -> None:
    opened = open_model(str(theirs[1]), load_registry())
    write_huggingface(tmp_path / "ours", EsmHuggingFace().write(ours(opened)))
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "ours")
    for sequence in SEQUENCES:
        assert tokenizer(sequence)["input_ids"] == [0, *opened.tokenizer.encode(sequence).tolist(), 2]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_report_says_how_half_precision_differs(theirs: tuple[torch.nn.Module, Path], dtype: str) -> None:
    opened = open_model(str(theirs[1]), load_registry(), dtype=dtype)
    rotary = opened.module.network.rotary is not None
    assert ("transformers rounds them (inv_freq)" in opened.report.text()) == (rotary and dtype == "bfloat16")


def test_a_torch_file_of_tensors_is_read_too(theirs: tuple[torch.nn.Module, Path], tmp_path: Path) -> None:
    model, folder = theirs
    shutil.copy(folder / "config.json", tmp_path / "config.json")
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    opened = open_model(str(tmp_path), load_registry())
    expected = network_tensors(open_model(str(folder), load_registry()).module.network)
    assert_same_bits(network_tensors(opened.module.network), expected)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"hidden_act": "relu"}, "hidden_act"),
        ({"vocab_size": 34}, "vocab_size"),
        ({"position_embedding_type": "relative_key"}, "position_embedding_type"),
        ({"is_folding_model": True}, "is_folding_model"),
        ({"num_hidden_layers": 10**9}, "num_hidden_layers"),
        ({"model_type": "martian"}, "no installed plugin recognises|cannot be opened"),
    ],
)
def test_a_folder_that_computes_something_else_is_refused(
    theirs: tuple[torch.nn.Module, Path], tmp_path: Path, change: dict[str, object], said: str
) -> None:
    shutil.copytree(theirs[1], tmp_path / "edited")
    config = tmp_path / "edited" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | change))
    with pytest.raises(ArtefactError, match=said):
        open_model(str(tmp_path / "edited"), load_registry())


def test_what_the_other_format_cannot_say_is_refused(theirs: tuple[torch.nn.Module, Path]) -> None:
    opened = open_model(str(theirs[1]), load_registry(), overrides={"activation": "relu"})
    with pytest.raises(ConfigError, match="activation"):
        EsmHuggingFace().write(ours(opened))
