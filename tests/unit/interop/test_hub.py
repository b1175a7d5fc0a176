"""Models by address: which paths are one, and files of https and NGC, cached and verified whenever they are used."""

import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from bionemo_core.builtin import load_registry
from bionemo_core.errors import ArtefactError, ConfigError, NetworkError
from bionemo_core.interop import hub
from bionemo_core.models.load import open_model


class Site:
    """The pages that the server answers with, by path, and the requests that it got."""

    def __init__(self) -> None:
        self.pages: dict[str, bytes] = {}
        self.requests: list[str] = []
        self.url = ""


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    served = Site()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path, _, query = self.path.partition("?")
            served.requests.append(self.path)
            content = served.pages.get(path if not path.endswith("/files") else f"{path}?{query}")
            self.send_response(404 if content is None else 200)
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


def test_a_broken_download_says_what_to_remove(site: Site, tmp_path: Path) -> None:
    site.pages["/x.nemo"] = b"<html>please log in</html>"
    with pytest.raises(ArtefactError, match=r"downloaded from http.*x\.nemo.*remove the folder (.*) to") as refusal:
        open_model(f"{site.url}/x.nemo", load_registry(), home=str(tmp_path))
    folder = Path(str(refusal.value).partition("remove the folder ")[2].partition(" to download")[0])
    assert (folder / "x.nemo").is_file() and folder.is_relative_to(tmp_path / "downloads")
