"""Models from a stand-in for the hub: public, private, gated, offline, damaged; and no token anywhere."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from hub_server import TOKEN, Hub, assert_token_nowhere

from bionemo_core import cli
from bionemo_core.builtin import load_registry
from bionemo_core.config.schema import Choice
from bionemo_core.errors import ArtefactError, ConfigError, DataError, NetworkError
from bionemo_core.interop import hub as addresses
from bionemo_core.interop.connector import OurModel
from bionemo_core.interop.huggingface import write_huggingface
from bionemo_core.io.staging import stage
from bionemo_core.models.load import open_model
from bionemo_core.models.locate import complete_choice
from bionemo_core.models.named_weights import network_tensors
from bionemo_core.protocols import BuildContext

FILES = {"config.json": b"{}", "model.safetensors": b"weights", "vocab.txt": b"A\nC\n", "run.py": b"raise SystemExit"}


def publish(hub: Hub, files: dict[str, bytes], private: bool = False, **more: object) -> None:
    hub.repositories["owner/model"] = {"private": private, "files": dict(files), **more}


def fetch(tmp_path: Path, name: str = "owner/model") -> Path:
    return addresses.fetch_model(name, tmp_path / "home")


def test_what_is_read_is_fetched_once(hub: Hub, tmp_path: Path) -> None:
    publish(hub, {**FILES, "pytorch_model.bin": b"pickle", "onnx/model.safetensors": b"other"})
    folder = fetch(tmp_path)
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model.safetensors", "vocab.txt"]
    assert (folder / "model.safetensors").read_bytes() == b"weights" and folder.is_relative_to(tmp_path / "hub_cache")
    hub.requests.clear()
    assert fetch(tmp_path, "hf://owner/model") == folder
    assert hub.requests == ["GET /api/models/owner/model/revision/main"], "only where the branch stands is asked"
    assert fetch(tmp_path, f"owner/model@{folder.name}") == folder
    assert len(hub.requests) == 1, "a commit needs no request at all"


def test_what_was_pulled_opens_offline(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(hub, FILES, private=True)
    folder = fetch(tmp_path)
    hub.requests.clear()
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.delenv("HF_TOKEN")
    assert fetch(tmp_path) == folder
    for name in ("owner/other", "owner/model@v2"):
        with pytest.raises(ConfigError, match=r"HF_HUB_OFFLINE forbids .*no complete copy.*hf download"):
            fetch(tmp_path, name)
    (folder / "model.safetensors").unlink()
    with pytest.raises(ConfigError, match="no complete copy"):
        fetch(tmp_path)
    assert not hub.requests


def test_a_model_comes_from_the_cache_if_the_hub_is_away(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(hub, FILES)
    folder = fetch(tmp_path)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert fetch(tmp_path) == folder
    with pytest.raises(NetworkError, match=r"http://127.0.0.1:9.*Connect"):
        fetch(tmp_path, "owner/other")


@pytest.mark.parametrize("file", ["model.safetensors", "vocab.txt"])
def test_what_changed_is_refused(hub: Hub, tmp_path: Path, file: str) -> None:
    publish(hub, FILES)
    blob = (fetch(tmp_path) / file).resolve()
    blob.write_bytes(blob.read_bytes()[::-1])
    with pytest.raises(ArtefactError, match=rf"{file}: changed since the download. Remove {blob}"):
        fetch(tmp_path)
    blob.unlink()
    fetch(tmp_path)


def test_other_bytes_than_the_listed_ones_are_refused(hub: Hub, tmp_path: Path) -> None:
    publish(hub, FILES, sent={**FILES, "model.safetensors": b"weighty"})
    with pytest.raises(ArtefactError, match=r"model\.safetensors: changed"):
        fetch(tmp_path)


def test_weights_in_several_files(hub: Hub, tmp_path: Path) -> None:
    shard = "model-00001-of-00001.safetensors"
    index = json.dumps({"weight_map": {"x": shard}}).encode()
    publish(hub, {"config.json": b"{}", "model.safetensors.index.json": index, shard: b"weights"})
    assert (fetch(tmp_path) / shard).read_bytes() == b"weights"


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"model.safetensors": b"x"}, r"no config\.json"),
        ({"README.md": b"x"}, r"no config\.json"),
        ({"config.json": b"{}", "vocab.txt": b"x"}, r"no model\.safetensors, pytorch_model\.bin or index"),
    ],
)
def test_what_is_no_model_is_refused(hub: Hub, tmp_path: Path, files: dict[str, bytes], message: str) -> None:
    publish(hub, files)
    with pytest.raises(ArtefactError, match=message):
        fetch(tmp_path)


@pytest.mark.parametrize("weights", ["pytorch_model.bin", "pytorch_model-00001-of-00001.bin"])
def test_pickled_weights_are_fetched_where_there_are_no_others(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, weights: str
) -> None:
    index = json.dumps({"weight_map": {"x": weights}}).encode()
    listed = {"pytorch_model.bin.index.json": index} if "-of-" in weights else {}
    publish(hub, {"config.json": b"{}", weights: b"pickle", **listed})
    folder = fetch(tmp_path)
    assert {path.name for path in folder.iterdir()} == {"config.json", weights, *listed}
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert fetch(tmp_path) == folder


@pytest.mark.parametrize(
    ("name", "token", "repository", "message"),
    [
        (
            "owner/none",
            TOKEN,
            {},
            "nothing at this path, so it was looked up.*status 404: it has no such model, or a private",
        ),
        ("owner/model", None, {"private": True}, "status 401: it has no such model, or a private one. Set HF_TOKEN"),
        ("owner/model", "hf_wrong", {}, "status 401: it has no such model, or does not accept your token"),
        (
            "owner/model",
            TOKEN,
            {"gated": True},
            r"gated: accept its terms at http://\S+/owner/model .* your token has no",
        ),
        ("owner/model", None, {"gated": True}, "gated: accept its terms at .* your account. Set HF_TOKEN"),
        ("owner/model", TOKEN, {"forbidden": True}, "status 403: your token may not read repositories of owner"),
        ("owner/model@v9", TOKEN, {}, "no revision 'v9'"),
    ],
)
def test_a_refusal_says_what_to_do(
    hub: Hub,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    name: str,
    token: str | None,
    repository: dict[str, bool],
    message: str,
) -> None:
    monkeypatch.delenv("HF_TOKEN")
    if token:
        monkeypatch.setenv("HF_TOKEN", token)
    publish(hub, FILES, **repository)  # type: ignore[arg-type]
    with pytest.raises(NetworkError, match=message) as refusal:
        fetch(tmp_path, name)
    assert not token or token not in str(refusal.value)
    assert_token_nowhere(tmp_path, capfd)
    assert not list((tmp_path / "hub_cache").rglob("model.safetensors"))


@pytest.mark.parametrize("listing", [b"[]", b"{}", b'{"sha": "../../x", "siblings": []}', b"<html>"])
def test_an_answer_that_is_none_of_the_hub_is_a_network_error(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, listing: bytes
) -> None:
    publish(hub, FILES)
    monkeypatch.setattr(hub, "download", lambda *_: (200, listing))
    with pytest.raises(NetworkError, match="owner/model"):
        fetch(tmp_path)
    assert not list(tmp_path.rglob("x"))


def test_without_the_library(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "huggingface_hub", None)
    with pytest.raises(ConfigError, match="owner/model: needs the extra `hub`: pip install huggingface-hub"):
        fetch(tmp_path)
    assert not hub.requests


def test_the_name_of_a_model_opens_its_published_weights(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    registry = load_registry()
    hub.repositories["facebook/esm2_t6_8M_UR50D"] = {"private": False, "files": FILES}
    with pytest.raises(ArtefactError, match=r"downloaded from facebook/esm2_t6_8M_UR50D"):
        open_model("esm2_8m", registry)
    asked = len(hub.requests)
    (tmp_path / "esm2_8m").mkdir()
    with pytest.raises(ConfigError, match=r"esm2_8m: not a model"):
        open_model("esm2_8m", registry)
    (tmp_path / "esm2_8m").rmdir()
    with pytest.raises(ConfigError, match=r"esm1nv: not a model.*a name that `bionemo-run models` lists"):
        open_model("esm1nv", registry)
    assert len(hub.requests) == asked, "neither is asked of the hub"


def test_a_private_model_is_pulled_into_a_task_and_the_token_stays_out(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    registry = load_registry()
    sizes = {"num_layers": 1, "hidden_size": 16, "num_attention_heads": 2, "ffn_hidden_size": 24, "seq_length": 32}
    choice = complete_choice("model", "esm2_8m", sizes, "bionemo-esm", registry)
    tokenizer = registry.build(Choice("tokenizer", "esm2"))
    tensors = network_tensors(registry.build(choice, tokenizer=tokenizer, context=BuildContext()).network)
    written = registry.build(Choice("connector", "esm_huggingface")).write(
        OurModel("esm2_8m", choice.params, tokenizer, tensors)
    )
    write_huggingface(tmp_path / "theirs", written)
    publish(hub, {path.name: path.read_bytes() for path in (tmp_path / "theirs").iterdir()}, private=True)
    arguments = ["task=convert", "restore_from_path=owner/model", "task.to=artefact"]
    assert cli.main([*arguments, f"task.output={tmp_path / 'online'}"]) == 0
    assert "Fetching" not in assert_token_nowhere(tmp_path, capfd), "a bar is for a terminal"
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert cli.main([*arguments, f"task.output={tmp_path / 'offline'}"]) == 0
    opened = open_model(str(tmp_path / "offline"), registry)
    assert opened.report.complete and opened.spec.model.params["hidden_size"] == 16
    used = tokenizer.vocab_size
    for name, tensor in network_tensors(opened.module.network).items():
        rows = used if name in ("embedding.word_embeddings.weight", "head.output.bias") else len(tensor)
        assert torch.equal(tensor[:rows], tensors[name][:rows]), name


def test_files_of_a_dataset_are_data(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    files = {"a.csv": b"sequence\nMKV\n", "parts/b.csv": b"sequence\nMKL\n", "parts/c.safetensors": b"large"}
    hub.repositories["owner/proteins"] = {"private": True, "files": files}
    for value, names in (
        ("hf://datasets/owner/proteins/a.csv", ["a.csv"]),
        ("hf://datasets/owner/proteins/parts/*.csv", ["a.csv", "parts/b.csv"]),
        ("hf://datasets/owner/proteins", ["a.csv", "parts/b.csv", "parts/c.safetensors"]),
    ):
        copies = tmp_path / "home/objects/hf"
        assert stage(value, "data.path", tmp_path / "home") == str(copies / value.removeprefix("hf://"))
        made = {path.relative_to(copies / "datasets/owner/proteins").as_posix(): path for path in copies.rglob("*.*")}
        assert sorted(made) == names and all(path.read_bytes() == files[name] for name, path in made.items())
    hub.repositories["owner/proteins"]["sent"] = {**files, "parts/c.safetensors": b"wrong"}
    shutil.rmtree(tmp_path / "home")
    with pytest.raises(NetworkError, match="the sha256 of what arrived"):
        stage("hf://datasets/owner/proteins/parts/c.safetensors", "data.path", tmp_path / "home")
    with pytest.raises(DataError, match=r"data\.path: hf://datasets/owner/none/x\.csv: there is no .* set HF_TOKEN"):
        stage("hf://datasets/owner/none/x.csv", "data.path", tmp_path / "home")
    assert_token_nowhere(tmp_path, capfd)
