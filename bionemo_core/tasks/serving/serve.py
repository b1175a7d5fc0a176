"""The task `serve`: open a model and answer requests over HTTP until a signal stops it."""

from __future__ import annotations

import asyncio
import ipaddress
import math
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from bionemo_core.config.schema import RunSpec
from bionemo_core.errors import ConfigError
from bionemo_core.machine import has_package
from bionemo_core.runs.device import Device, choose_device
from bionemo_core.runs.plan_text import quieten_libraries
from bionemo_core.tasks.embed import CPU_BATCH, GPU_BATCH
from bionemo_core.tasks.opening import open_for_use, single_process
from bionemo_core.tasks.predict import default_tokens
from bionemo_core.tasks.serving.engine import Engine
from bionemo_core.tasks.serving.limits import Limits
from bionemo_core.tasks.settings import Serve
from bionemo_core.tasks.texts import inference_of
from bionemo_core.training.signals import StopSignal

if TYPE_CHECKING:
    from bionemo_core.plugins.registry import Registry
    from bionemo_core.tasks.serving.guard import App
    from bionemo_core.tasks.serving.served_model import ServedModel

TOKEN = "BIONEMO_SERVE_TOKEN"  # noqa: S105 - the name of the variable
_PACKAGES = {"fastapi": "fastapi", "prometheus_client": "prometheus-client", "uvicorn": "uvicorn"}
_POLL_S, _PATIENCE_S = 0.1, 5
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
    from bionemo_core.tasks.serving.app import make_app  # after the check that its packages are there
    from bionemo_core.tasks.serving.guard import Guard
    from bionemo_core.tasks.serving.server_metrics import ServerMetrics

    device = choose_device(spec)
    with _listen(task) as listener:
        served = _open(spec, registry, task, device)
        metrics = ServerMetrics()
        engine = Engine(served.embed_tokens, metrics.count_pass)
        app = Guard(make_app(served, engine, metrics), served.limits, metrics, token)
        print(
            f"serving {spec.restore_from_path or spec.model.name} on {_address(listener)}; Ctrl-C stops it.", flush=True
        )
        try:
            run_server(app, listener, task.timeout_s)
        finally:
            engine.close()
    print("stopped: all accepted requests were answered.", flush=True)


def _open(spec: RunSpec, registry: Registry, task: Serve, device: Device) -> ServedModel:
    from bionemo_core.tasks.serving.served_model import ServedModel

    opened = open_for_use(spec, registry, device, single_process(spec, device))
    on_gpu = device.name == "cuda"
    return ServedModel(
        opened,
        Limits(task),
        on_gpu=on_gpu,
        embed_tokens=task.tokens_per_batch or (GPU_BATCH if on_gpu else CPU_BATCH),
        score_tokens=task.tokens_per_batch or default_tokens(on_gpu),
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


def run_server(app: App, listener: socket.socket, timeout_s: float) -> None:
    """Answer requests until a signal comes, then finish those that were accepted, for as long as a request may take."""
    import uvicorn

    class Server(uvicorn.Server):
        """A server that leaves signals to the project."""

        @contextmanager
        def capture_signals(self) -> Iterator[None]:
            yield

    config: Any = uvicorn.Config(
        app,
        loop="asyncio",
        http="h11",
        ws="none",
        lifespan="off",
        log_config=None,
        log_level="error",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=math.ceil(timeout_s) + _PATIENCE_S,
    )

    async def answer(stop: StopSignal) -> None:
        server = Server(config)

        async def watch() -> None:
            while stop.requested is None:
                await asyncio.sleep(_POLL_S)
            server.should_exit = True

        watching = asyncio.ensure_future(watch())
        try:
            await server.serve(sockets=[listener])
        finally:
            watching.cancel()

    with StopSignal() as stop:
        asyncio.run(answer(stop))
