"""Models by address: downloaded once, cached, and verified whenever they are used."""

import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch

from bionemo_core.builtin import load_registry
from bionemo_core.config.schema import Choice
from bionemo_core.errors import ArtefactError, ConfigError, NetworkError
from bionemo_core.interop import hub
from bionemo_core.interop.connector import OurModel
from bionemo_core.interop.huggingface import write_huggingface
from bionemo_core.models.load import open_model
from bionemo_core.models.locate import complete_choice
from bionemo_core.protocols import BuildContext
from bionemo_core.tasks.convert import network_tensors

COMMIT = "0123456789abcdef0123456789abcdef01234567"
FILES = {"config.json": b"{}", "model.safetensors": b"weights", "vocab.txt": b"A\nC\n", "run.py": b"raise SystemExit"}


class Site:
    """The pages that the server answers with, by path, and the requests that it got."""

    def __init__(self) -> None:
        self.pages: dict[str, bytes] = {}
        self.requests: list[str] = []
        self.endless: set[str] = set()
        """Pages whose length is not announced."""
        self.url = ""

    def publish(self, name: str, files: dict[str, bytes], commit: str = COMMIT, hashed: bool = True) -> None:
        siblings = [
            {"rfilename": file, **({"lfs": {"sha256": hashlib.sha256(content).hexdigest()}} if hashed else {})}
            for file, content in files.items()
        ]
        listing = json.dumps({"sha": commit, "siblings": siblings}).encode()
        self.pages[f"/api/models/{name}/revision/main"] = listing
        self.pages |= {f"/{name}/resolve/{commit}/{file}": content for file, content in files.items()}


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    served = Site()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path, _, query = self.path.partition("?")
            served.requests.append(self.path)
            content = served.pages.get(path if not path.endswith("/files") else f"{path}?{query}")
            self.send_response(404 if content is None else 200)
            if path not in served.endless:
                self.send_header("Content-Length", str(len(content or b"")))
            self.end_headers()
            self.wfile.write(content or b"")

        def log_message(self, *arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        served.url = f"http://127.0.0.1:{server.server_address[1]}"
        monkeypatch.setenv(hub.HUB_VARIABLE, served.url)
        monkeypatch.setenv(hub.NGC_VARIABLE, served.url)
        monkeypatch.delenv(hub.OFFLINE_VARIABLE, raising=False)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield served
        server.shutdown()
        thread.join()


def test_a_name_of_the_hub_is_fetched_once(site: Site, tmp_path: Path) -> None:
    site.publish("owner/model", FILES)
    folder = hub.fetch_model("owner/model", tmp_path)
    assert {file.name for file in folder.iterdir()} >= {"config.json", "model.safetensors", "vocab.txt"}
    assert not (folder / "run.py").exists(), "only what is read is fetched"
    assert (folder / "model.safetensors").read_bytes() == b"weights" and folder.name == COMMIT
    num_requests = len(site.requests)
    assert hub.fetch_model("owner/model", tmp_path) == folder
    assert len(site.requests) == num_requests + 1, "the second time only asks for the commit of `main`"
    assert hub.fetch_model(f"owner/model@{COMMIT}", tmp_path) == folder
    assert len(site.requests) == num_requests + 1, "a commit needs no request at all"


def test_what_changed_in_the_cache_is_refused(site: Site, tmp_path: Path) -> None:
    site.publish("owner/model", FILES)
    folder = hub.fetch_model("owner/model", tmp_path)
    (folder / "model.safetensors").write_bytes(b"weighty")
    with pytest.raises(ArtefactError, match="changed since the download"):
        hub.fetch_model("owner/model", tmp_path)


def test_a_file_that_is_not_the_listed_one_is_refused(site: Site, tmp_path: Path) -> None:
    site.publish("owner/model", FILES)
    site.pages[f"/owner/model/resolve/{COMMIT}/model.safetensors"] = b"others"
    with pytest.raises(NetworkError, match="sha256"):
        hub.fetch_model("owner/model", tmp_path)


def test_weights_in_several_files(site: Site, tmp_path: Path) -> None:
    shard = "model-00001-of-00001.safetensors"
    index = json.dumps({"weight_map": {"x": shard}}).encode()
    files = {"config.json": b"{}", "model.safetensors.index.json": index, shard: b"weights"}
    site.publish("owner/model", files, hashed=False)
    assert (hub.fetch_model("owner/model", tmp_path) / shard).read_bytes() == b"weights"


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"model.safetensors": b"x"}, "no config.json"),
        ({"config.json": b"{}"}, "no weights"),
        (
            {"config.json": b"{}", "model.safetensors.index.json": b'{"weight_map": {"x": "../x"}}'},
            "not a plain file name",
        ),
        ({"config.json": b"{}", "model.safetensors.index.json": b'{"weight_map": {"x": "y"}}'}, "does not list"),
    ],
)
def test_a_listing_that_is_no_model_is_refused(
    site: Site, tmp_path: Path, files: dict[str, bytes], message: str
) -> None:
    site.publish("owner/model", files)
    with pytest.raises(ArtefactError, match=message):
        hub.fetch_model("owner/model", tmp_path)


@pytest.mark.parametrize("listing", [b"[]", b"{}", b'{"sha": "../../x", "siblings": []}', b"<html>", b"[" * 9999])
def test_an_invalid_listing_is_refused(site: Site, tmp_path: Path, listing: bytes) -> None:
    site.pages["/api/models/owner/model/revision/main"] = listing
    with pytest.raises(ArtefactError):
        hub.fetch_model("owner/model", tmp_path)


def test_a_missing_name_is_a_network_error(site: Site, tmp_path: Path) -> None:
    with pytest.raises(NetworkError, match="404"):
        hub.fetch_model("owner/none", tmp_path)


def test_an_address_with_its_checksum(site: Site, tmp_path: Path) -> None:
    site.pages["/x.nemo"] = b"archive"
    right = hashlib.sha256(b"archive").hexdigest()
    path = hub.fetch_model(f"{site.url}/x.nemo#sha256={right}", tmp_path)
    assert path.name == "x.nemo" and path.read_bytes() == b"archive"
    with pytest.raises(NetworkError, match="sha256"):
        hub.fetch_model(f"{site.url}/x.nemo#sha256={'0' * 64}", tmp_path / "other")
    for wrong in ("sha256=abc", "md5=x"):
        with pytest.raises(ConfigError, match="64 hexadecimal"):
            hub.fetch_model(f"{site.url}/x.nemo#{wrong}", tmp_path)


def test_an_address_without_a_checksum_keeps_the_first_download(site: Site, tmp_path: Path) -> None:
    site.pages["/x.nemo"] = b"archive"
    path = hub.fetch_model(f"{site.url}/x.nemo", tmp_path)
    path.write_bytes(b"edited")
    assert hub.fetch_model(f"{site.url}/x.nemo", tmp_path).read_bytes() == b"archive", "it is fetched again"


def test_an_address_with_a_password_is_refused_and_not_repeated(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="holds a password") as refusal:
        hub.fetch_model("https://me:kept-4711@host/x.nemo", tmp_path)
    assert "4711" not in str(refusal.value) and not list(tmp_path.iterdir())


def test_a_name_of_ngc(site: Site, tmp_path: Path) -> None:
    place = "/v2/models/org/nvidia/team/clara/esm1nv/1.0/files?redirect=true&path=esm1nv.nemo"
    site.pages[place] = b"archive"
    path = hub.fetch_model("ngc://nvidia/clara/esm1nv:1.0", tmp_path)
    assert path.name == "esm1nv.nemo" and path.read_bytes() == b"archive"
    with pytest.raises(ConfigError, match="ngc://org/team/model:version"):
        hub.fetch_model("ngc://nvidia", tmp_path)


def test_the_name_of_a_model_opens_its_published_weights(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("bionemo_esm")
    monkeypatch.chdir(tmp_path)
    registry = load_registry()
    site.publish("facebook/esm2_t6_8M_UR50D", FILES)
    with pytest.raises(ArtefactError, match=r"downloaded from facebook/esm2_t6_8M_UR50D"):
        open_model("esm2_8m", registry, home=str(tmp_path / "home"))
    assert site.requests[0].startswith("/api/models/facebook/esm2_t6_8M_UR50D/revision/main")
    asked = len(site.requests)
    (tmp_path / "esm2_8m").mkdir()
    with pytest.raises(ConfigError, match=r"esm2_8m: not a model"):
        open_model("esm2_8m", registry, home=str(tmp_path / "home"))
    (tmp_path / "esm2_8m").rmdir()
    with pytest.raises(ConfigError, match=r"esm1nv: not a model.*a name that `bionemo-run models` lists"):
        open_model("esm1nv", registry, home=str(tmp_path / "home"))
    assert len(site.requests) == asked, "neither is asked of the hub"


def test_which_paths_are_addresses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "mine").mkdir(parents=True)
    assert hub.is_address("https://x/y.nemo") and hub.is_address("ngc://a/b:1") and hub.is_address("owner/model")
    assert hub.is_address("owner/model@v1")
    assert not any(map(hub.is_address, ("runs/mine", "./owner/model", "/owner/model", "model.nemo", "../a/b", "a/b/c")))


def test_a_misspelt_path_is_never_asked_of_the_hub(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "conv").mkdir()
    (tmp_path / "conv" / "model.nemo").touch()
    registry = load_registry()
    for path, message in {
        "conv/modle.nemo": "nothing at this path. Did you mean 'model.nemo'",
        "conv/model": "nothing at this path. Did you mean 'model.nemo'",
        "nowhere/model.nemo": "There is no folder nowhere",
    }.items():
        with pytest.raises(ConfigError, match=message):
            open_model(path, registry)
    assert not site.requests
    assert hub.is_address("conv/model@main"), "a revision says that the hub is meant"


def test_offline_no_request_is_made(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site.publish("owner/model", FILES)
    folder = hub.fetch_model("owner/model", tmp_path)
    site.requests.clear()
    monkeypatch.setenv(hub.OFFLINE_VARIABLE, "1")
    with pytest.raises(ConfigError, match=f"HF_HUB_OFFLINE forbids .* Downloaded before: owner/model@{COMMIT}"):
        hub.fetch_model("owner/model", tmp_path)
    with pytest.raises(ConfigError, match="never downloaded"):
        hub.fetch_model("owner/other", tmp_path)
    assert hub.fetch_model(f"owner/model@{COMMIT}", tmp_path) == folder
    assert not site.requests


def test_a_name_that_the_hub_lacks_may_be_a_misspelt_path(site: Site, tmp_path: Path) -> None:
    with pytest.raises(NetworkError, match=r"owner/none: there is nothing at this path, so it was looked up.*404"):
        hub.fetch_model("owner/none", tmp_path)


def test_a_broken_download_says_what_to_remove(site: Site, tmp_path: Path) -> None:
    site.pages["/x.nemo"] = b"<html>please log in</html>"
    with pytest.raises(ArtefactError, match=r"downloaded from http.*x\.nemo.*remove the folder (.*) to") as refusal:
        open_model(f"{site.url}/x.nemo", load_registry(), home=str(tmp_path))
    folder = Path(str(refusal.value).partition("remove the folder ")[2].partition(" to download")[0])
    assert (folder / "x.nemo").is_file() and folder.is_relative_to(tmp_path / "downloads")


def test_an_endless_listing_is_cut_off(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = "/api/models/owner/model/revision/main"
    site.pages[place] = b" " * 5_000_000
    monkeypatch.setattr(hub, "_MAX_LISTING_BYTES", 2**20)
    with pytest.raises(NetworkError, match=r"announces 5\.0 MB, expected at most"):
        hub.fetch_model("owner/model", tmp_path)
    site.endless.add(place)
    with pytest.raises(NetworkError, match=r"more than 1\.0 MB and did not announce a size"):
        hub.fetch_model("owner/model", tmp_path)


def test_a_model_of_the_hub_opens_by_its_name(site: Site, tmp_path: Path) -> None:
    registry = load_registry()
    sizes = {"num_layers": 1, "hidden_size": 16, "num_attention_heads": 2, "ffn_hidden_size": 24, "seq_length": 32}
    choice = complete_choice("model", "esm2_8m", sizes, "bionemo-esm", registry)
    tokenizer = registry.build(Choice("tokenizer", "esm2"))
    network = registry.build(choice, tokenizer=tokenizer, context=BuildContext()).network
    connector = registry.build(Choice("connector", "esm_huggingface"))
    tensors = network_tensors(network)
    write_huggingface(tmp_path / "theirs", connector.write(OurModel("esm2_8m", choice.params, tokenizer, tensors)))
    site.publish("owner/tiny", {path.name: path.read_bytes() for path in (tmp_path / "theirs").iterdir()})
    opened = open_model("owner/tiny", registry, home=str(tmp_path / "home"))
    assert opened.report.complete and opened.spec.model.params["hidden_size"] == 16
    used = tokenizer.vocab_size
    for name, tensor in network_tensors(opened.module.network).items():
        rows = used if name in ("embedding.word_embeddings.weight", "head.output.bias") else len(tensor)
        assert torch.equal(tensor[:rows], tensors[name][:rows]), name
