"""The parts of foreign formats: merged shards, key tables, SentencePiece models, YAML, torch files, archives."""

import errno
import io
import os
import random
import re
import tempfile
from collections import OrderedDict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bionemo_core.errors import ArtefactError, ConfigError, StorageError
from bionemo_core.interop import torch_pickle
from bionemo_core.interop.connector import Connector, ForeignModel, OurModel, Reading, check_pieces
from bionemo_core.interop.foreign_config import ForeignConfig
from bionemo_core.interop.keys import Key, KeyTable, each_layer
from bionemo_core.interop.merging import merge_shards
from bionemo_core.interop.nemo import read_nemo, write_nemo
from bionemo_core.interop.sentencepiece_model import Kind, VocabularyPiece, read_pieces, write_model
from bionemo_core.interop.torch_pickle import load_tensors
from bionemo_core.interop.yaml_text import read_yaml

ENCODER = "model.language_model.encoder.layers"


def split(whole: dict[str, torch.Tensor], rank: int, by_rows: tuple[str, ...], by_columns: tuple[str, ...]):
    part = {}
    for name, tensor in whole.items():
        dim = 0 if name.endswith(by_rows) else 1 if name.endswith(by_columns) else None
        part[name] = tensor if dim is None else tensor.chunk(2, dim)[rank]
    return part


def test_tensor_parallel_shards_are_concatenated() -> None:
    layer = f"{ENCODER}.0"
    whole = {
        "model.language_model.embedding.word_embeddings.weight": torch.randn(8, 4),
        f"{layer}.self_attention.query_key_value.weight": torch.randn(12, 4),
        f"{layer}.self_attention.query_key_value.bias": torch.randn(12),
        f"{layer}.self_attention.dense.weight": torch.randn(4, 4),
        f"{layer}.self_attention.dense.bias": torch.randn(4),
        f"{layer}.inter_attention.key_value.weight": torch.randn(8, 4),
        f"{layer}.mlp.dense_h_to_4h.bias": torch.randn(16),
        f"{layer}.mlp.dense_4h_to_h.weight": torch.randn(4, 16),
        "model.lm_head.bias": torch.randn(8),
        "model.lm_head.dense.weight": torch.randn(4, 4),
        "enc_dec_model.tokens_head.weight": torch.randn(8, 4),
    }
    rows = ("word_embeddings.weight", "query_key_value.weight", "query_key_value.bias", "key_value.weight")
    rows += ("dense_h_to_4h.bias", "lm_head.bias", "tokens_head.weight")
    columns = ("self_attention.dense.weight", "dense_4h_to_h.weight")
    shards = {(rank, 0): split(whole, rank, rows, columns) for rank in range(2)}
    together = merge_shards(shards, "here")
    assert together.keys() == whole.keys()
    assert all(torch.equal(together[name], whole[name]) for name in whole)


def test_layers_of_pipeline_stages_are_numbered_on() -> None:
    shared = torch.randn(8, 4)
    first = {
        "model.word_embeddings.weight": shared,
        f"{ENCODER}.0.x": torch.ones(1),
        f"{ENCODER}.1.x": torch.ones(1) * 2,
    }
    last = {
        "model.word_embeddings.weight": shared,
        f"{ENCODER}.0.x": torch.ones(1) * 3,
        "model.lm_head.y": torch.ones(1),
    }
    together = merge_shards({(0, 0): first, (0, 1): last}, "here")
    assert [together[f"{ENCODER}.{i}.x"].item() for i in range(3)] == [1, 2, 3]
    assert "model.lm_head.y" in together


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        ({"a.bias": torch.ones(2)}, {"b.bias": torch.ones(2)}, "same names"),
        ({"a.bias": torch.ones(2)}, {"a.bias": torch.zeros(2)}, "should be the same"),
        ({"a.bias": torch.ones(2)}, {"a.bias": torch.ones(3)}, "shapes"),
    ],
)
def test_shards_that_are_of_two_models_are_refused(first: dict, second: dict, message: str) -> None:
    with pytest.raises(ArtefactError, match=message):
        merge_shards({(0, 0): first, (1, 0): second}, "here")


def test_a_stage_with_another_copy_is_refused() -> None:
    with pytest.raises(ArtefactError, match="differs between the pipeline stages"):
        merge_shards({(0, 0): {"w": torch.ones(1)}, (0, 1): {"w": torch.zeros(1)}}, "here")


TABLE = KeyTable(
    [
        Key("words", "shared", ("weight",), vocabulary=True, also=("copy",)),
        *each_layer(
            2, Key("layers.{i}.qkv", ("l.{i}.q", "l.{i}.k", "l.{i}.v"), heads=2), Key("layers.{i}.n", "l.{i}.n")
        ),
        Key("latents", "init", ("",)),
    ],
    ignored=("*.inv_freq",),
)


def theirs() -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(0)
    state = {"shared.weight": torch.randn(5, 4, generator=draw), "init": torch.randn(1, 4, generator=draw)}
    for i in range(2):
        for part in "qkvn":
            state[f"l.{i}.{part}.weight"] = torch.randn(4, 4, generator=draw)
            state[f"l.{i}.{part}.bias"] = torch.randn(4, generator=draw)
    return state


def test_a_table_there_and_back() -> None:
    found = TABLE.to_ours({**theirs(), "l.0.inv_freq": torch.ones(1), "new": torch.ones(1)}, "here")
    assert found.unexpected == ("new",) and found.left_out == ("l.0.inv_freq",) and not found.lacking
    q, k, v = (theirs()[f"l.0.{part}.weight"] for part in "qkv")
    assert torch.equal(found.tensors["layers.0.qkv.weight"], torch.cat([q[:2], k[:2], v[:2], q[2:], k[2:], v[2:]]))
    back = TABLE.to_theirs(found.tensors, vocab_size=5)
    assert back.keys() == theirs().keys()
    assert all(torch.equal(back[name], tensor) for name, tensor in theirs().items())


def test_what_a_table_lacks_is_named() -> None:
    state = theirs()
    del state["l.1.k.bias"]
    found = TABLE.to_ours(state, "here")
    assert found.lacking == ("l.1.k.bias",) and "layers.1.qkv.bias" not in found.tensors
    assert "l.1.k.bias" in found.notes()[0]
    with pytest.raises(ArtefactError, match=r"layers.1.qkv.bias"):
        TABLE.to_theirs(found.tensors, vocab_size=5)


def test_copies_must_be_copies() -> None:
    state = theirs()
    assert torch.equal(
        TABLE.to_ours({**state, "copy.weight": state["shared.weight"]}, "here").tensors["words.weight"],
        state["shared.weight"],
    )
    with pytest.raises(ArtefactError, match="should be equal, but differ"):
        TABLE.to_ours({**state, "copy.weight": state["shared.weight"] + 1}, "here")


def test_heads_that_do_not_divide_are_refused() -> None:
    with pytest.raises(ArtefactError, match="2 heads"):
        TABLE.to_ours({**theirs(), "l.0.q.weight": torch.ones(3, 4)}, "here")


pieces = st.lists(
    st.builds(VocabularyPiece, st.text(min_size=1, max_size=5), st.floats(-1e9, 0, width=32), st.sampled_from(Kind)),
    min_size=1,
    max_size=20,
)


@given(pieces, st.integers(0, 500))
def test_a_sentencepiece_model_there_and_back(written: list[VocabularyPiece], pad_id: int) -> None:
    assert read_pieces(write_model(written, pad_id), "here") == written


@given(st.binary(max_size=200))
def test_any_bytes_are_a_sentencepiece_model_or_refused(content: bytes) -> None:
    try:
        read_pieces(content, "here")
    except ArtefactError as refusal:
        assert "here" in str(refusal)


@given(st.binary(max_size=300))
def test_any_bytes_are_yaml_or_refused(content: bytes) -> None:
    try:
        assert isinstance(read_yaml(content, "here"), dict)
    except ArtefactError as refusal:
        assert "here" in str(refusal)


def test_yaml_with_a_few_aliases_is_read() -> None:
    assert read_yaml(b"a: &x [1, 2]\nb: *x\n", "here") == {"a": [1, 2], "b": [1, 2]}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.int64])
def test_a_torch_file_of_tensors_is_read(dtype: torch.dtype) -> None:
    state = OrderedDict(a=torch.arange(6).view(2, 3).to(dtype), b=torch.nn.Parameter(torch.ones(2)), _extra_state=None)
    buffer = io.BytesIO()
    torch.save(state, buffer)
    read = load_tensors(buffer, "here")
    assert read.keys() == {"a", "b"} and torch.equal(read["a"], state["a"]) and read["a"].dtype == dtype


@pytest.mark.parametrize(
    "content", [{"a": 1}, [torch.ones(1)], {"a": [torch.ones(1)]}, {1: torch.ones(1)}, {"a": torch.eye(3).to_sparse()}]
)
def test_a_torch_file_of_anything_else_is_refused(content: object) -> None:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    with pytest.raises(ArtefactError, match="here"):
        load_tensors(buffer, "here")


class Touches:
    """A pickle of this creates the file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (os.fspath(self.path),)


def hostile_torch_file(canary: Path) -> io.BytesIO:
    buffer = io.BytesIO()
    torch.save({"a": torch.ones(2), "b": Touches(canary)}, buffer)
    return buffer


def test_a_hostile_pickle_never_reaches_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "load", lambda *args, **options: pytest.fail("torch.load was called"))
    with pytest.raises(ArtefactError, match="refused before loading: its pickle names 'posix mkdir'"):
        load_tensors(hostile_torch_file(tmp_path / "canary"), "here")


def test_torch_refuses_a_hostile_pickle_that_the_first_check_lets_through(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    canary = tmp_path / "canary"
    monkeypatch.setattr(torch_pickle, "_check_opcodes", lambda program, where: None)
    with pytest.raises(ArtefactError, match="torch's restricted reader refused it"):
        load_tensors(hostile_torch_file(canary), "here")
    assert not canary.exists()


def test_every_cut_torch_file_is_refused() -> None:
    buffer = io.BytesIO()
    torch.save({"a": torch.arange(50.0)}, buffer)
    whole = buffer.getvalue()
    for length in range(0, len(whole), 37):
        with pytest.raises(ArtefactError):
            load_tensors(io.BytesIO(whole[:length]), "here")


def test_every_flipped_bit_of_a_torch_file_is_found_or_harmless() -> None:
    buffer, state = io.BytesIO(), {"a": torch.arange(50.0), "b": torch.ones(3, 4)}
    torch.save(state, buffer)
    whole, draw = buffer.getvalue(), random.Random(2)
    for _ in range(300):
        place = draw.randrange(len(whole))
        flipped = whole[:place] + bytes([whole[place] ^ 1 << draw.randrange(8)]) + whole[place + 1 :]
        try:
            read = load_tensors(io.BytesIO(flipped), "here")
        except ArtefactError:
            continue
        assert read.keys() == state.keys() and all(torch.equal(read[name], state[name]) for name in state), place


@pytest.mark.parametrize("optimised", [False, True])
def test_an_archive_there_and_back(tmp_path: Path, optimised: bool) -> None:
    table = torch.randn(8, 4)
    config = {"megatron_amp_O2": optimised, "tokenizer": {"model": "x.model", "other": None}, "sizes": [1, 2.5]}
    prefix = "model.module" if optimised else "model"
    tensors = {f"{prefix}.a": table[:5], f"{prefix}.b": table, f"{prefix}.c": table}
    write_nemo(tmp_path / "x.nemo", ForeignModel(ForeignConfig(config, "here"), tensors, {"x.model": b"pieces"}))
    again = read_nemo(tmp_path / "x.nemo")
    assert again.config.values == config and again.files == {"x.model": b"pieces"}
    assert torch.equal(again.tensors["model.a"], table[:5]) and torch.equal(again.tensors["model.c"], table)
    assert (tmp_path / "x.nemo").stat().st_size < 15_000, "a tensor with two names is stored once"
    with pytest.raises(ConfigError, match="already exists"):
        write_nemo(tmp_path / "x.nemo", again)


@pytest.mark.parametrize("found", [["a", "b"], ["a", "c", "b"], ["a", "b", "c", "d"]])
def test_another_vocabulary_is_named_by_its_first_difference(found: list[str]) -> None:
    with pytest.raises(ArtefactError, match="not the plugin's vocabulary"):
        check_pieces(found, ["a", "b", "c"], "here")


def test_the_connector_in_the_documentation_works() -> None:
    text = (Path(__file__).parents[3] / "docs" / "checkpoints.md").read_text()
    example = next(
        block for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "MixerHuggingFace" in block
    )
    names = {
        "Key": Key,
        "KeyTable": KeyTable,
        "Reading": Reading,
        "ForeignModel": ForeignModel,
        "ForeignConfig": ForeignConfig,
    }
    exec(example, names)
    connector = names["MixerHuggingFace"]()
    assert isinstance(connector, Connector)
    config = ForeignConfig({"model_type": "mixer", "d_model": 4, "kernel": 3}, "here")
    shapes = {"embed.weight": (5, 4), "conv.weight": (4, 4, 3), "conv.bias": (4,), "lm_head.weight": (5, 4)}
    tensors = {name: torch.randn(shape) for name, shape in {**shapes, "lm_head.bias": (5,)}.items()}
    assert connector.recognises(config)
    reading = connector.read(ForeignModel(config, tensors))
    tokenizer = SimpleNamespace(vocab_size=5)
    again = connector.write(OurModel("mixer", reading.params, tokenizer, reading.tensors))
    assert again.config.values == config.values
    assert again.tensors.keys() == tensors.keys()
    assert all(torch.equal(again.tensors[name], tensor) for name, tensor in tensors.items())


def test_an_archive_that_the_disk_does_not_take_is_a_storage_error(tmp_path: Path, monkeypatch: Any) -> None:
    class Full(io.BytesIO):
        def write(self, content: Any) -> int:
            if self.tell() > 1000:  # within a record: torch then closes the archive, and finds another position
                raise OSError(errno.ENOSPC, "No space left on device")
            return super().write(content)

    monkeypatch.setattr(tempfile, "TemporaryFile", lambda **_: Full())
    with pytest.raises(StorageError, match=r"x\.nemo cannot be written: No space left on device\. Free space"):
        write_nemo(tmp_path / "x.nemo", ForeignModel(ForeignConfig({}, "here"), {"w": torch.zeros(900)}, {}))
    assert list(tmp_path.iterdir()) == []
