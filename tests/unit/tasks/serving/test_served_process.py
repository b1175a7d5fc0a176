"""The command: it says where it listens, answers there, and finishes what it accepted when it is told to stop."""

import json
import re
import signal
import socket

import numpy as np
import pytest
from runs import Home

from bionemo_core import cli
from bionemo_core.client import Client
from bionemo_core.errors import ConfigError, DataError

pytest.importorskip("bionemo_esm")
pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")

MODEL = ("model=esm1nv_tiny", "model.num_layers=1", "model.hidden_size=32", "model.num_attention_heads=2")
COMMON = ("trainer.accelerator=cpu", "trainer.num_threads=1", "task.port=0")


@pytest.mark.processes
def test_a_signal_lets_the_accepted_request_be_answered(home: Home) -> None:
    run = home.task("serve", *MODEL, *COMMON, "name=served")
    try:
        assert run.wait_for(lambda one: one.log.exists() and "Ctrl-C stops it." in one.output()), run.output()
        found = re.search(r"serving esm1nv_tiny on (http://127\.0\.0\.1:(\d+));", run.output())
        assert found, run.output()
        ask_as_a_client(Client(found[1]))
        body = json.dumps({"sequences": ["MKTAYI"]}).encode()
        head = ("POST /v1/embed HTTP/1.1", "Host: a", "Content-Type: application/json", f"Content-Length: {len(body)}")
        with socket.create_connection(("127.0.0.1", int(found[2])), timeout=60) as request:
            # `100 Continue` says that the request was accepted and its body is awaited.
            request.sendall("\r\n".join((*head, "Expect: 100-continue", "", "")).encode())
            assert request.recv(1 << 16).startswith(b"HTTP/1.1 100")
            run.signal(signal.SIGTERM)
            request.sendall(body)
            with request.makefile("rb") as answer:
                assert answer.readline().startswith(b"HTTP/1.1 200")
                content = answer.read()
        assert len(json.loads(content.partition(b"\r\n\r\n")[2])["outputs"]["embeddings"][0]) == 32
    except BaseException:
        run.kill()
        raise
    assert run.wait() == 0
    assert "stopped: all accepted requests were answered." in run.output()


def ask_as_a_client(client: Client) -> None:
    sequences = ["MKTAYIAKQR"[: 1 + row % 10] for row in range(70)]
    vectors = client.embed(sequences)
    assert vectors.shape == (70, 32) and vectors.dtype == np.float32
    assert np.allclose(vectors[69], client.embed(sequences[69:])[0], atol=1e-6 * np.abs(vectors).max())
    assert client.score(["WT", "K2A"], wild_type="MKT")[0] == 0 != client.score(["K2A"], wild_type="MKT")[0]
    assert client.score(["MKT"]).shape == (1,)
    assert client.ask("model")["offers"] == ["embed", "score"]
    for error, call in (
        (DataError, lambda: client.embed(["MK7"])),
        (ConfigError, lambda: client.predict(["MK"])),
        (ConfigError, lambda: client.sample(["MK"])),
        (ConfigError, lambda: client.embed(["MK"], outputs=["embeddings", "hiddens"])),
    ):
        with pytest.raises(error):
            call()


def test_a_port_in_use_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert cli.main(["serve", *MODEL, *COMMON, f"task.port={port}"]) == 2
    assert f"task.port={port}: cannot listen there" in capsys.readouterr().err


def test_an_open_address_without_a_token_is_refused(capsys: pytest.CaptureFixture[str], monkeypatch) -> None:
    monkeypatch.delenv("BIONEMO_SERVE_TOKEN", raising=False)
    assert cli.main(["serve", *MODEL, *COMMON, "task.host=0.0.0.0"]) == 2
    assert "BIONEMO_SERVE_TOKEN" in capsys.readouterr().err


def test_help_shows_the_keys(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["serve", "--help"]) == 0
    assert "task.timeout_s" in capsys.readouterr().out
