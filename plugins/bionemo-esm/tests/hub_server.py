"""A stand-in for the Hugging Face hub on loopback: creating, sending and downloading, for one token."""

import base64
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

TOKEN = "hf_LoopbackSecretThatNobodyMayRead"
SIGNATURE = "SignedForOneUpload"


class Hub:
    """What the stand-in has, and what it was asked."""

    def __init__(self) -> None:
        self.url = ""
        self.repositories: dict[str, dict[str, Any]] = {}
        """By name: `private`, `files` with their content, perhaps `gated` or `forbidden`."""
        self.requests: list[str] = []
        self.unauthorised: list[str] = []
        self.objects: dict[str, bytes] = {}
        self.commits = 0
        self.forbidden = False
        """Whether the token may only read."""
        self.full = False

    def answer(self, method: str, path: str, body: bytes, token: str, headers: dict[str, str]) -> tuple[int, Any]:
        path = path.replace("/api/datasets/", "/api/models/").replace("/datasets/", "/")  # one store for both kinds
        if path.startswith("/lfs/"):  # an address that itself is the permission
            if self.full:
                return 403, {"error": "Quota exceeded"}
            self.objects[path.removeprefix("/lfs/")] = body
            return 200, {}
        name = "/".join(path.removeprefix("/api/models/").removeprefix("/").split("/")[:2]).removesuffix(".git")
        found = self.repositories.get(name, {"private": True})
        if token != TOKEN and (token or found["private"] or method == "POST"):
            self.unauthorised.append(path)
            return 401, {"error": f"Invalid credentials: {token}"}  # a careless server that repeats the token
        of_anyone = {
            "/api/whoami-v2": {"name": "someone", "type": "user"},
            "/api/validate-yaml": {"errors": [], "warnings": []},
        }
        if path in of_anyone:
            return 200, of_anyone[path]
        if path == "/api/repos/create":
            return self.create(json.loads(body))
        if name not in self.repositories:
            headers["X-Error-Code"] = "RepoNotFound"
            return 404, {"error": "Repository not found"}
        if "/paths-info/" in path:
            asked, files = json.loads(body)["paths"], self.repositories[name]["files"]
            return 200, [self.entry(one, files[one]) for one in asked if one in files]
        if method in ("GET", "HEAD") and any(f"/{part}/" in path for part in ("revision", "tree", "resolve")):
            return self.download(name, path, headers)
        if path.endswith("/info/lfs/objects/batch"):
            asked = [one for one in json.loads(body)["objects"]]
            actions = [
                {**one, "actions": {"upload": {"href": f"{self.url}/lfs/{one['oid']}?key={SIGNATURE}"}}}
                for one in asked
            ]
            return 200, {"transfer": "basic", "objects": actions}
        if "/preupload/" in path:
            names = [one["path"] for one in json.loads(body)["files"]]
            kinds = {one: "lfs" if one.endswith(".safetensors") else "regular" for one in names}
            return 200, {
                "files": [{"path": one, "uploadMode": kinds[one], "shouldIgnore": False, "oid": None} for one in names]
            }
        if "/commit/" in path:
            return self.commit(name, body)
        repository = self.repositories[name]
        siblings = [{"rfilename": one} for one in (".gitattributes", *repository["files"])]
        return 200, {"id": name, "sha": "0" * 40, "private": repository["private"], "siblings": siblings}

    def download(self, name: str, path: str, headers: dict[str, str]) -> tuple[int, Any]:
        repository = self.repositories[name]
        if repository.get("forbidden"):
            return 403, {"error": "Your token cannot read it"}
        files = repository["files"]
        commit = hashlib.sha1(repr(sorted(files.items())).encode()).hexdigest()
        asked, rest = path.partition(f"{name}/")[2].split("/", 1)
        revision, _, file = rest.partition("/")
        if revision not in ("main", commit):
            headers["X-Error-Code"] = "RevisionNotFound"
            return 404, {"error": "Invalid rev id"}
        if asked == "revision":
            siblings = [{"rfilename": one} for one in files]
            return 200, {"id": name, "sha": commit, "private": repository["private"], "siblings": siblings}
        if asked == "tree":
            return self.tree(files, file, headers)
        if repository.get("gated"):  # its files are listed, but not given
            headers["X-Error-Code"] = "GatedRepo"
            return 403, {"error": "Access to this model is restricted"}
        entry = self.entry(file, files[file])
        etag = entry.get("lfs", entry)["oid"]
        headers |= {"X-Repo-Commit": commit, "ETag": f'"{etag}"'}
        return 200, repository.get("sent", files)[file]

    def tree(self, files: dict[str, bytes], folder: str, headers: dict[str, str]) -> tuple[int, Any]:
        """The files in and below a folder, and the folders directly in it; a client takes what it asked for."""
        start = f"{folder}/" if folder else ""
        found = [self.entry(one, content) for one, content in files.items() if one.startswith(start)]
        if not found:
            headers["X-Error-Code"] = "EntryNotFound"
            return 404, {"error": f"{folder} does not exist"}
        names = {one["path"].removeprefix(start).partition("/") for one in found}
        folders = {start + first for first, slash, _ in names if slash}
        return 200, [*found, *({"type": "directory", "path": one, "oid": "0" * 40, "size": 0} for one in folders)]

    def entry(self, file: str, content: bytes) -> dict[str, Any]:
        oid = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
        large = {"lfs": {"oid": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 130}}
        kept = large if file.endswith((".safetensors", ".bin")) else {}
        return {"type": "file", "path": file, "size": len(content), "oid": oid, **kept}

    def create(self, asked: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        name = f"{asked['organization']}/{asked['name']}"
        if self.forbidden:
            return 403, {"error": "You don't have the rights to create a model under this namespace"}
        if name in self.repositories:
            return 409, {"error": "You already created this model repo", "url": f"{self.url}/{name}"}
        self.repositories[name] = {"private": asked.get("visibility") == "private", "files": {}}
        return 200, {"url": f"{self.url}/{name}", "name": name, "id": name}

    def commit(self, name: str, body: bytes) -> tuple[int, dict[str, Any]]:
        self.commits += 1
        for line in body.splitlines():
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "file":
                self.repositories[name]["files"][value["path"]] = base64.b64decode(value["content"])
            if entry["key"] == "lfsFile":
                self.repositories[name]["files"][value["path"]] = self.objects[value["oid"]]
        return 200, {"commitUrl": f"{self.url}/{name}/commit/{'1' * 40}", "commitOid": "1" * 40}


@contextmanager
def serve_hub() -> Iterator[Hub]:
    """Run the stand-in on a free port."""
    hub = Hub()

    class Handler(BaseHTTPRequestHandler):
        def respond(self) -> None:
            path = self.path.partition("?")[0]
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            hub.requests.append(f"{self.command} {path}")
            token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
            headers: dict[str, str] = {}
            status, content = hub.answer(self.command, path, body, token, headers)
            answer = content if isinstance(content, bytes) else json.dumps(content).encode()
            self.send_response(status)
            if status in (401, 403):
                self.send_header("X-Error-Message", content["error"])
            for header in headers.items():
                self.send_header(*header)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(answer)

        do_GET = do_HEAD = do_POST = do_PUT = respond  # noqa: N815 - the names that http.server asks for

        def log_message(self, *arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        hub.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield hub
        finally:
            server.shutdown()
            thread.join()


def assert_token_nowhere(folder: Path, capsys: pytest.CaptureFixture[str]) -> str:
    said = "".join(capsys.readouterr())
    assert TOKEN not in said
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert not [path for path in files if TOKEN.encode() in path.read_bytes()]
    return said
