"""The task `serve`: open a model and answer requests over HTTP until a signal stops it."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import math
import os
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from bionemo_core.config.schema import RunSpec
from bionemo_core.errors import ConfigError
from bionemo_core.finetuning.pairs.second_model import open_second_for
from bionemo_core.inference.embedding.embedding_settings import embedding_tokens
from bionemo_core.inference.scoring import scoring_tokens
from bionemo_core.machine import has_package, num_gpus
from bionemo_core.runs.device import choose_device
from bionemo_core.runs.plan_text import quieten_libraries
from bionemo_core.tasks.opening import open_for_use, single_process
from bionemo_core.tasks.serving.engine import Engine
from bionemo_core.tasks.serving.limits import Limits
from bionemo_core.tasks.serving.workers import LISTENER, POLL_S, environments_of, supervise
from bionemo_core.tasks.settings import Serve
from bionemo_core.tasks.texts import inference_of
from bionemo_core.training.signals import StopSignal

if TYPE_CHECKING:
    from bionemo_core.plugins.registry import Registry
    from bionemo_core.tasks.serving.guard import App
    from bionemo_core.tasks.serving.served_model import ServedModel

log = logging.getLogger("bionemo")

TOKEN = "BIONEMO_SERVE_TOKEN"  # noqa: S105 - the name of the variable
METRICS_FOLDER = "PROMETHEUS_MULTIPROC_DIR"
"""The variable by which prometheus-client adds up the counts of several processes."""
_PACKAGES = {"fastapi": "fastapi", "prometheus_client": "prometheus-client", "uvicorn": "uvicorn"}
_PATIENCE_S = 5
_QUEUE = 128
"""Connections that the system holds until they are accepted."""


def serve(spec: RunSpec, registry: Registry, *, composed_yaml: str = "") -> None:
    """Run the task: answer requests until SIGTERM, SIGINT or SIGHUP, then finish those that were accepted.

    Raises:
        BioNeMoError: the model cannot be opened, or the address cannot be used.
    """
    quieten_libraries()
    task = Serve(**spec.task.params)
    if missing := [package for module, package in _PACKAGES.items() if not has_package(module)]:
        raise ConfigError(f"task=serve: needs {' and '.join(missing)}. Run `pip install {' '.join(missing)}`.")
    token = os.environ.get(TOKEN, "")
    check_host(task.host, token)
    if LISTENER in os.environ:
        with socket.socket(fileno=int(os.environ[LISTENER])) as listener:
            _answer(_on_one_device(spec), registry, task, token, listener)
        return
    with _listen(task) as listener:
        model, workers = spec.restore_from_path or spec.model.name, spec.trainer.devices
        address = _address(listener)
        if workers > 1:
            print(f"serving {model} on {address} with {workers} workers; Ctrl-C stops it.", flush=True)
            _supervise(spec, task, listener)
        else:
            print(f"opening {model}; {address}/ready says when it is open.", flush=True)
            _answer(spec, registry, task, token, listener, f"serving {model} on {address}; Ctrl-C stops it.")
    print("stopped: all accepted requests were answered.", flush=True)


def _answer(
    spec: RunSpec, registry: Registry, task: Serve, token: str, listener: socket.socket, ready: str = ""
) -> None:
    """Answer requests in this process, from the start; print `ready` once the model is open.

    Raises:
        BioNeMoError: the model cannot be opened.
    """
    from bionemo_core.tasks.serving.app import make_app  # after the check that its packages are there
    from bionemo_core.tasks.serving.guard import Guard
    from bionemo_core.tasks.serving.opening_app import OpeningApp
    from bionemo_core.tasks.serving.server_metrics import ServerMetrics

    engines: list[Engine] = []

    def make() -> App:
        served = open_served(spec, registry, task)
        metrics = ServerMetrics()
        engines.append(Engine(served.embed_tokens, metrics.count_pass))
        return Guard(make_app(served, engines[0], metrics), served.limits, metrics, token)

    def say(seconds: float) -> None:
        log.info("The model is open after %.1f s.", seconds)
        if ready:
            print(ready, flush=True)

    app = OpeningApp(make, spec.restore_from_path or spec.model.name, say)
    try:
        run_server(app, listener, task.timeout_s, failed=lambda: app.failure is not None)
    finally:
        for engine in engines:
            engine.close()
    if app.failure is not None:
        raise app.failure


def _supervise(spec: RunSpec, task: Serve, listener: socket.socket) -> None:
    """Start a worker for each device, by the command line of this process, and keep them running."""
    from prometheus_client.multiprocess import mark_process_dead

    device = choose_device(spec)
    single_process(_on_one_device(spec), device)
    environments = environments_of(spec.trainer.devices, device.name == "cuda", num_gpus())
    with TemporaryDirectory() as folder, StopSignal() as stop:
        supervise(
            [sys.executable, "-m", "bionemo_core", *sys.argv[1:]],
            [{**one, METRICS_FOLDER: folder} for one in environments],
            listener.fileno(),
            stop,
            patience_s=task.timeout_s + 2 * _PATIENCE_S,
            on_death=lambda pid: mark_process_dead(pid, folder),
        )


def _on_one_device(spec: RunSpec) -> RunSpec:
    return replace(spec, trainer=replace(spec.trainer, devices=1))


def open_served(spec: RunSpec, registry: Registry, task: Serve) -> ServedModel:
    """Open the model of a run of the task, on one device.

    Raises:
        BioNeMoError: it cannot be opened, or a key does not fit it.
    """
    from bionemo_core.tasks.serving.served_model import ServedModel

    device = choose_device(spec)
    opened = open_for_use(spec, registry, device, single_process(spec, device))
    second = open_second_for(opened, task.second_model, registry, spec.home, adapter=task.adapter)
    on_gpu = device.name == "cuda"
    return ServedModel(
        opened,
        Limits(task),
        second=second,
        on_gpu=on_gpu,
        embed_tokens=embedding_tokens(task.tokens_per_batch, on_gpu),
        score_tokens=scoring_tokens(task.tokens_per_batch, on_gpu),
        inference=lambda: replace(inference_of(opened, spec, task.batch_size), clean=True),
    )


def check_host(host: str, token: str) -> None:
    """Check that an address which other machines can reach is protected by a token.

    Raises:
        ConfigError: it is not.
    """
    if not token and not _is_loopback(host):
        raise ConfigError(
            f"task.host={host}: other machines can reach this address. Set a token in the environment variable "
            f"{TOKEN}, or leave task.host at 127.0.0.1."
        )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


@contextmanager
def _listen(task: Serve) -> Iterator[socket.socket]:
    family = socket.AF_INET6 if ":" in task.host else socket.AF_INET
    try:
        listener = socket.create_server((task.host, task.port), family=family, backlog=_QUEUE)
    except OSError as error:
        raise ConfigError(
            f"task.host={task.host} task.port={task.port}: cannot listen there: {error.strerror or error}. Choose "
            "another task.port; 0 takes a free one."
        ) from error
    with listener:
        yield listener


def _address(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def server_config(app: App, timeout_s: float) -> Any:
    """Return uvicorn's configuration for an application whose requests may take `timeout_s` seconds."""
    import uvicorn

    from bionemo_core.tasks.serving.connections import TimedConnection

    return uvicorn.Config(
        app,  # type: ignore[arg-type]
        loop="asyncio",
        http=TimedConnection,
        ws="none",
        lifespan="off",
        log_config=None,
        log_level="error",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=math.ceil(timeout_s) + _PATIENCE_S,
    )


def run_server(app: App, listener: socket.socket, timeout_s: float, failed: Callable[[], bool] = lambda: False) -> None:
    """Answer requests until a signal comes, then finish those that were accepted, for as long as a request may take.

    Args:
        app: the application.
        listener: the listening socket.
        timeout_s: how long a request may take.
        failed: whether the application is of no use, so that the server ends.
    """
    import uvicorn

    class Server(uvicorn.Server):
        """A server that leaves signals to the project."""

        @contextmanager
        def capture_signals(self) -> Iterator[None]:
            yield

    worker, parent = LISTENER in os.environ, os.getppid()  # a worker ends with the process that started it
    config = server_config(app, timeout_s)

    async def answer(stop: StopSignal) -> None:
        server = Server(config)

        async def watch() -> None:
            while stop.requested is None and not failed() and (not worker or os.getppid() == parent):
                await asyncio.sleep(POLL_S)
            server.should_exit = True

        watching = asyncio.ensure_future(watch())
        try:
            await server.serve(sockets=[listener])
        finally:
            watching.cancel()

    with StopSignal() as stop:
        asyncio.run(answer(stop))
