"""Counts and times of the server, in the format of Prometheus."""

from __future__ import annotations

import os

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
_REQUESTS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class ServerMetrics:
    """What happened since the server started."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        label = ["path"]
        self._answers = Counter("bionemo_answers", "Answers by path and status", [*label, "status"], registry=registry)
        self._seconds = Histogram(
            "bionemo_answer_seconds", "Seconds until an answer", label, buckets=_SECONDS, registry=registry
        )
        self.in_progress = Gauge(
            "bionemo_requests_in_progress",
            "Requests that compute or wait",
            registry=registry,
            multiprocess_mode="livesum",
        )
        self._sequences = Counter("bionemo_items", "Sequences and texts that were computed", registry=registry)
        self._tokens = Counter("bionemo_tokens", "Tokens of embedded and predicted sequences", registry=registry)
        self._compute = Counter("bionemo_compute_seconds", "Seconds that the model computed", registry=registry)
        self._joined = Histogram(
            "bionemo_requests_per_pass", "Requests computed together", buckets=_REQUESTS, registry=registry
        )

    def count_answer(self, path: str, status: int, seconds: float) -> None:
        """Count an answer; a status of 0 means that the client left before there was one."""
        self._answers.labels(path, str(status) if status else "left").inc()
        self._seconds.labels(path).observe(seconds)

    def count_pass(self, requests: int, items: int, tokens: int, seconds: float) -> None:
        """Count what was computed together."""
        self._joined.observe(requests)
        self._sequences.inc(items)
        self._tokens.inc(tokens)
        self._compute.inc(seconds)

    def text(self) -> bytes:
        """Return all values as Prometheus reads them."""
        registry = self._registry
        if "PROMETHEUS_MULTIPROC_DIR" in os.environ:  # prometheus-client's own switch: the sums over all workers
            MultiProcessCollector(registry := CollectorRegistry())
        return generate_latest(registry)
