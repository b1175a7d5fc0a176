"""The logger `mlflow`, against a stand-in of its server on loopback."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from time import monotonic, sleep
from urllib.parse import urlsplit

import pytest

from bionemo_core.errors import ConfigError, NetworkError
from bionemo_core.protocols import RunContext
from bionemo_core.reporting.loggers import mlflow

pytest.importorskip("mlflow")


class _Server(ThreadingHTTPServer):
    """It keeps what it is told: the requests by the last two parts of their path."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.told: list[tuple[str, dict]] = []
        self.address = f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def do_GET(self) -> None:
        if self.path.endswith("/get") or "runs/get?" in self.path:
            self._answer({"run": _run()})
        else:
            self._answer({"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "no such experiment"}, 404)

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))) or "{}")
        call = "/".join(urlsplit(self.path).path.split("/")[-2:])
        self.server.told.append((call, body))
        self._answer({"experiments/create": {"experiment_id": "7"}, "runs/create": {"run": _run()}}.get(call, {}))

    def _answer(self, content: dict, status: int = 200) -> None:
        text = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_: object) -> None: ...


def _run() -> dict:
    info = {"run_id": "abc", "run_uuid": "abc", "experiment_id": "7", "status": "RUNNING", "start_time": 1}
    return {"info": {**info, "lifecycle_stage": "active", "artifact_uri": ""}, "data": {}}


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")


@pytest.fixture
def server() -> Iterator[_Server]:
    one = _Server()
    threading.Thread(target=one.serve_forever, daemon=True).start()
    yield one
    one.shutdown()
    one.server_close()


def _context(folder: Path, resumed: int | None = None) -> RunContext:
    return RunContext(folder, "my-run", resumed)


def test_metrics_reach_the_server_under_a_run_with_our_name_and_no_tags_of_mlflow(server, tmp_path):
    logger = mlflow(_context(tmp_path), server.address, experiment="e", tags={"lab": "x"})
    logger.log_metrics({"val_loss": 1.5}, step=3)
    logger.finalize("success")
    import mlflow as package

    package.flush_async_logging()
    told = dict(server.told)
    assert told["experiments/create"]["name"] == "e"
    assert told["runs/create"]["run_name"] == "my-run"
    tags = {tag["key"]: tag["value"] for tag in told["runs/create"]["tags"]}
    assert tags.pop("mlflow.runName", "my-run") == "my-run" and tags == {"lab": "x"}
    (metric,) = told["runs/log-batch"]["metrics"]
    assert (metric["key"], metric["value"], metric["step"]) == ("val_loss", 1.5, 3)
    assert told["runs/update"]["status"] == "FINISHED"


def test_a_resumed_run_goes_on_in_the_same_run_of_the_server(server, tmp_path):
    first = mlflow(_context(tmp_path), server.address).run_id
    assert mlflow(_context(tmp_path, 5), server.address).run_id == first == "abc"
    assert [call for call, _ in server.told].count("runs/create") == 1
    assert ("runs/update", "RUNNING") in [(call, body.get("status")) for call, body in server.told]


def test_the_use_of_the_machine_is_sent_until_the_end(server, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.05")
    logger = mlflow(_context(tmp_path), server.address, system_metrics=True)
    deadline = monotonic() + 20
    while not (keys := _metric_keys(server)) and monotonic() < deadline:
        sleep(0.02)
    logger.finalize("success")
    assert {"system/cpu_utilization_percentage", "system/system_memory_usage_percentage"} <= keys
    assert not [thread for thread in threading.enumerate() if "SystemMetricsMonitor" in thread.name]


def _metric_keys(server: _Server) -> set[str]:
    return {one["key"] for call, body in list(server.told) if call == "runs/log-batch" for one in body["metrics"]}


def test_a_server_that_is_gone_at_the_end_does_not_fail_the_run(server, tmp_path, caplog):
    logger = mlflow(_context(tmp_path), server.address)
    assert logger.experiment is not None  # it has asked the server for its run
    server.shutdown()
    server.server_close()
    logger.finalize("success")
    assert "was not told the end of the run" in caplog.text


def test_without_a_server_the_run_does_not_start(tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with pytest.raises(ConfigError, match=r"logger\.mlflow\.tracking_uri: no server is named"):
        mlflow(_context(tmp_path))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    with pytest.raises(NetworkError, match=r"the server http://127\.0\.0\.1:9 made no run"):
        mlflow(_context(tmp_path))
    assert not list(tmp_path.iterdir())
