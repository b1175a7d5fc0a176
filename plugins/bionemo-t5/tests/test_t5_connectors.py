"""Weights out to v1 archives and Hugging Face folders and back: bit for bit, and read by the other side."""

import logging
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bionemo_core import cli
from bionemo_core.builtin import load_registry
from bionemo_core.config.schema import Restore
from bionemo_core.data.batches.batch import Seq2SeqBatch
from bionemo_core.data.batches.rows import RowShape, collate_pairs
from bionemo_core.errors import ArtefactError, ConfigError
from bionemo_core.interop.connector import ForeignModel, OurModel
from bionemo_core.interop.foreign_config import ForeignConfig
from bionemo_core.interop.huggingface import read_huggingface, write_huggingface
from bionemo_core.interop.nemo import read_nemo, write_nemo
from bionemo_core.interop.nemo_models import PROTEIN_PIECES
from bionemo_core.interop.stored import Carried
from bionemo_core.models.load import OpenedModel, open_model
from bionemo_core.models.locate import complete_choice, open_stored
from bionemo_core.models.named_weights import network_tensors
from bionemo_core.parallel.groups import start_groups
from bionemo_core.parallel.transfer import Vocabularies, transfer_weights
from bionemo_core.protocols import BuildContext, Seq2SeqExample
from bionemo_t5.connector import ProtT5nvNemo, T5HuggingFace
from bionemo_t5.tokenizer import PROTT5NV_PIECES, prott5_tokenizer, prott5nv_tokenizer

transformers = pytest.importorskip("transformers")

TOKENIZER = prott5_tokenizer()


def ours(opened: OpenedModel, carried: Carried | None = None) -> OurModel:
    choice = opened.spec.model
    tensors = network_tensors(opened.module.network)
    return OurModel(choice.name, choice.params, opened.tokenizer, tensors, carried or Carried())


def assert_same_bits(got: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert got.keys() == expected.keys()
    for name, tensor in expected.items():
        assert got[name].dtype == tensor.dtype and torch.equal(got[name], tensor), name


def test_the_pieces_of_v1_are_those_of_the_tokenizer() -> None:
    assert tuple(piece.text for piece in PROTEIN_PIECES) == PROTT5NV_PIECES


@pytest.mark.parametrize("which", ["A", "A_tp2"])
def test_a_v1_archive_comes_back_bit_for_bit(realdata: Path, tmp_path: Path, which: str) -> None:
    path = realdata / "nemo_v1" / which / "prott5nv" / "prott5nv.nemo"
    opened = open_model(str(path), load_registry())
    assert opened.report.complete and opened.tokenizer.vocab_size == 126
    write_nemo(tmp_path / "again.nemo", ProtT5nvNemo().write(ours(opened)))
    source, again = dict(read_nemo(path).tensors), dict(read_nemo(tmp_path / "again.nemo").tensors)
    # Two ranks padded the vocabulary to 256 rows; those past 128 belong to no piece.
    source = {name: tensor[:128] if tensor.shape[0] == 256 else tensor for name, tensor in source.items()}
    assert_same_bits(again, source)
    reopened = open_model(str(tmp_path / "again.nemo"), load_registry())
    assert_same_bits(network_tensors(reopened.module.network), network_tensors(opened.module.network))


KINDS = {
    "ProtT5-XL": {"feed_forward_proj": "relu", "d_kv": 24, "tie_word_embeddings": True},
    "T5 1.1": {"feed_forward_proj": "gated-gelu", "d_kv": 16, "tie_word_embeddings": False, "num_decoder_layers": 3},
}


@pytest.fixture(scope="module", params=KINDS)
def theirs(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[torch.nn.Module, Path]:
    """A Hugging Face T5 with random weights and the vocabulary of ProtT5, and the folder that it saved itself to."""
    torch.manual_seed(2)
    config = transformers.T5Config(
        vocab_size=128,
        d_model=32,
        num_heads=2,
        num_layers=2,
        d_ff=48,
        pad_token_id=0,
        eos_token_id=1,
        decoder_start_token_id=0,
        dropout_rate=0.0,
        layer_norm_epsilon=1e-2,  # large enough to be seen in the logits
        relative_attention_num_buckets=12,
        relative_attention_max_distance=20,
        **KINDS[request.param],
    )
    model = transformers.T5ForConditionalGeneration(config).eval()
    if request.param == "T5 1.1":  # they build it tied; a checkpoint with a head of its own unties it
        model.lm_head.weight = torch.nn.Parameter(torch.randn_like(model.lm_head.weight) * 0.1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    folder = tmp_path_factory.mktemp("theirs") / "t5"
    model.save_pretrained(folder)
    return model, folder


def rows() -> Seq2SeqBatch:
    draw = np.random.default_rng(0)

    def ids(length: int) -> np.ndarray:
        return draw.integers(3, TOKENIZER.vocab_size, length).astype(np.int32)

    made = [Seq2SeqExample(ids(s), ids(t), ids(t), np.ones(t, dtype=bool)) for s, t in ((20, 7), (9, 12))]
    shape = RowShape(64, 2, TOKENIZER.pad_id, False, target_length=64)
    return Seq2SeqBatch.of(collate_pairs(made, 2, shape))


@torch.no_grad()
def test_their_folder_and_ours_agree_in_logits_and_bits(
    theirs: tuple[torch.nn.Module, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model, folder = theirs
    opened = open_model(str(folder), load_registry())
    assert opened.report.complete and opened.spec.tokenizer.name == "prott5"
    source = dict(read_huggingface(folder).tensors)
    write_huggingface(tmp_path / "ours", T5HuggingFace().write(ours(opened)), shard_bytes=30_000)
    assert_same_bits(dict(read_huggingface(tmp_path / "ours").tensors), source)
    with caplog.at_level(logging.WARNING):
        loaded = transformers.T5ForConditionalGeneration.from_pretrained(tmp_path / "ours").eval()
    assert "newly initialized" not in caplog.text and "not used" not in caplog.text

    laid = rows()
    inputs = {"input_ids": laid.source.tokens, "attention_mask": laid.source.padding_mask.long()}
    expected = model(**inputs, decoder_input_ids=laid.target.tokens).logits
    again = loaded(**inputs, decoder_input_ids=laid.target.tokens).logits
    got = opened.module.network.logits(laid)[..., : TOKENIZER.vocab_size]
    real = laid.target.padding_mask
    for logits in (again, got):
        assert (logits - expected)[real].abs().max() / expected.abs().max() < 1e-5


def test_a_decoder_that_is_no_deeper_but_otherwise_unlike_does_not_go_out(theirs: tuple[torch.nn.Module, Path]) -> None:
    model = ours(open_model(str(theirs[1]), load_registry()))
    params = {**model.params, "decoder_layernorm_epsilon": 0.1}
    with pytest.raises(ConfigError, match="no place for decoder_layernorm_epsilon"):
        T5HuggingFace().write(replace(model, params=params))


UNLIKE = {"num_decoder_layers": 3, "decoder_activation": "swiglu", "decoder_layernorm_epsilon": 0.1}


def test_a_v1_archive_with_a_decoder_of_its_own_comes_back(tmp_path: Path) -> None:
    sizes = {"num_layers": 1, "hidden_size": 32, "num_attention_heads": 2, "ffn_hidden_size": 48, "seq_length": 64}
    registry, tokenizer = load_registry(), prott5nv_tokenizer()
    params = {**sizes, **UNLIKE, "decoder_bias_activation_fusion": False, "bias_activation_fusion": True}
    choice = complete_choice("model", "prott5nv", params, "bionemo-t5", registry)
    network = registry.build(choice, tokenizer=tokenizer, context=BuildContext()).network
    tensors = network_tensors(network)
    write_nemo(tmp_path / "t5.nemo", ProtT5nvNemo().write(OurModel("prott5nv", choice.params, tokenizer, tensors)))
    again = open_model(str(tmp_path / "t5.nemo"), registry)
    assert again.report.complete
    assert {key: again.spec.model.params[key] for key in params} == params
    assert_same_bits(network_tensors(again.module.network), tensors)
    assert again.module.network.decoder.block.config.layernorm_epsilon == 0.1


def test_a_tied_head_without_scaling_is_refused(theirs: tuple[torch.nn.Module, Path]) -> None:
    source = read_huggingface(theirs[1])
    tied = {name: source.tensors[name] for name in source.tensors if name != "lm_head.weight"}
    config = ForeignConfig(source.config.values | {"scale_decoder_outputs": False}, "here")
    with pytest.raises(ArtefactError, match="scale_decoder_outputs"):
        T5HuggingFace().read(ForeignModel(config, tied, source.files))


def test_the_tokenizer_of_a_written_folder_is_theirs(theirs: tuple[torch.nn.Module, Path], tmp_path: Path) -> None:
    opened = open_model(str(theirs[1]), load_registry())
    write_huggingface(tmp_path / "ours", T5HuggingFace().write(ours(opened)))
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "ours")
    for sequence in ("MKTAYIAKQR", "PRTEINO"):
        assert tokenizer(" ".join(sequence))["input_ids"] == [*opened.tokenizer.encode(sequence).tolist(), 1]
    assert tokenizer.convert_tokens_to_ids("<extra_id_0>") == opened.tokenizer.mask_id


def test_a_t5_of_another_vocabulary_only_seeds(tmp_path: Path) -> None:
    config = transformers.T5Config(vocab_size=300, d_model=32, num_heads=2, num_layers=1, d_ff=48, d_kv=16)
    transformers.T5ForConditionalGeneration(config).save_pretrained(tmp_path)
    with pytest.raises(ArtefactError, match=r"300 pieces\..* restore.vocabulary"):
        open_model(str(tmp_path), load_registry())


def test_a_nemo_t5_of_another_vocabulary_seeds_a_model(realdata: Path, tmp_path: Path) -> None:
    source = read_nemo(realdata / "nemo_v1/A/prott5nv/prott5nv.nemo")
    words = torch.randn(384, 64)
    tensors = dict(source.tensors) | {
        f"enc_dec_model.{side}_embedding.word_embeddings.weight": words for side in ("encoder", "decoder")
    }
    tensors["enc_dec_model.tokens_head.bias"] = torch.randn(384)
    target = "nemo.collections.nlp.models.language_modeling.megatron_t5_model.MegatronT5Model"
    config = source.config.values | {"target": target, "tokenizer": {"library": "megatron", "type": "BertWordPiece"}}
    write_nemo(tmp_path / "words.nemo", ForeignModel(ForeignConfig(config, "here"), tensors))

    registry = load_registry()
    with pytest.raises(ArtefactError, match="384 pieces"):
        open_model(str(tmp_path / "words.nemo"), registry)
    stored = open_stored(str(tmp_path / "words.nemo"), registry)
    tokenizer = prott5nv_tokenizer()
    network = registry.build(stored.spec.model, tokenizer=tokenizer, context=BuildContext()).network
    sizes = Vocabularies(tokenizer.vocab_size, stored.foreign_vocab_size)
    with pytest.raises(ArtefactError, match="for a vocabulary of 384"):
        transfer_weights(network, start_groups(), stored, Restore(), sizes)
    report = transfer_weights(network, start_groups(), stored, Restore(vocabulary="tile"), sizes)
    assert report.complete and {one.method for one in report.resized} == {"tile"}
    assert torch.equal(network.decoder_words.weight, words[:128])


def test_the_lines_of_its_model_card_open_the_folder(
    theirs: tuple[torch.nn.Module, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["task=convert", f"restore_from_path={theirs[1]}", "task.to=huggingface", f"task.output={tmp_path}/t5"]
    assert cli.main(arguments) == 0
    card = (tmp_path / "t5" / "README.md").read_text()
    assert "pipeline_tag" not in card and "| num_layers | 2 |" in card
    monkeypatch.chdir(tmp_path)
    opened: dict[str, Any] = {}
    exec(re.findall(r"```python\n(.*?)```", card, re.DOTALL)[0], opened)
    assert type(opened["model"]) is type(theirs[0])
    assert_same_bits(opened["model"].state_dict(), theirs[0].state_dict())
    assert opened["tokenizer"]("M K T A Y").input_ids == [*TOKENIZER.encode("MKTAY").tolist(), TOKENIZER.eos_id]
