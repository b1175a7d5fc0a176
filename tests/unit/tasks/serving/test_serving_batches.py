"""Requests that wait at the same time are computed together, without changing each other's answers."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from bionemo_core import api
from bionemo_core.errors import DataError
from bionemo_core.tasks.serving.engine import Engine, Work

pytest.importorskip("fastapi")


class Passes:
    """An engine whose first work waits, so that what follows is in the queue when it looks; and its passes."""

    def __init__(self, tokens: int) -> None:
        self.seen: list[list[int]] = []
        self.engine = Engine(tokens)
        self._go = threading.Event()
        self._first = self.engine.submit(Work(lambda items, check: [self._go.wait(20)], (None,)))

    def run(self, items, check):
        self.seen.append(list(items))
        if -1 in items:
            raise DataError("minus one")
        return [item * 10 for item in items]

    def submit(self, *items: int, group: object = "a", tokens: int = 1):
        return self.engine.submit(Work(self.run, items, tokens, group=group))

    def go(self) -> list[list[int]]:
        self._go.set()
        self.engine.close()
        return self.seen


def test_one_kind_is_computed_together_up_to_the_tokens_of_a_pass():
    passes = Passes(10)
    jobs = [passes.submit(1, 2, tokens=4), passes.submit(3, group="b"), passes.submit(4, tokens=4)]
    jobs += [passes.submit(5, tokens=4), passes.submit(6, tokens=2), passes.submit(7, tokens=99)]
    jobs += [passes.submit(8, group=None), passes.submit(9, group=None)]
    assert passes.go() == [[1, 2, 4, 6], [3], [5], [7], [8], [9]]
    results = [job.future.result(0) for job in jobs]
    assert results == [[10, 20], [30], [40], [50], [60], [70], [80], [90]]


def test_a_bad_request_fails_alone():
    passes = Passes(10)
    jobs = [passes.submit(1), passes.submit(-1), passes.submit(2)]
    assert passes.go() == [[1, -1, 2], [1], [-1], [2]]
    assert (jobs[0].future.result(0), jobs[2].future.result(0)) == ([10], [20])
    with pytest.raises(DataError, match="minus one"):
        jobs[1].future.result(0)


def test_what_nobody_waits_for_is_not_computed():
    passes = Passes(10)
    passes.submit(1).abandoned = True
    kept, cancelled = passes.submit(2), passes.submit(3)
    assert cancelled.future.cancel()
    assert passes.go() == [[2]]
    assert kept.future.result(0) == [20]


def test_many_clients_at_once_get_their_own_answers(start, protein):
    """Whatever else is in the batch, an answer stays within the tolerance of `docs/embeddings.md`."""
    here, letters = start(protein), "ACDEFGHIKLMNPQRSTVWY"
    bodies = [[(letters * 4)[row : row + 1 + (7 * row) % 60] for row in range(first, first + 3)] for first in range(16)]

    def ask(number: int):
        if number % 4 == 3:  # one letter is unknown
            assert here.client.post("/v1/embed", json={"sequences": ["MK7"]}).status_code == 422
        return here.post("embed", {"sequences": bodies[number]})["outputs"]["embeddings"]

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(ask, range(16)))
    for body, got in zip(bodies, found, strict=True):
        assert np.allclose(got, api.embed(protein, body), atol=2e-6)


def test_metrics_count_what_happened(start, protein):
    here = start(protein, token="swordfish", max_waiting=2)
    given = {"Authorization": "Bearer swordfish"}

    def metrics() -> dict[str, float]:
        text = here.client.get("/metrics", headers=given).text
        return dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))

    assert here.client.get("/metrics").status_code == 401
    for body in ({"sequences": ["MKTAYI", "MK"]}, {"sequences": ["MK7"]}):
        here.client.post("/v1/embed", json=body, headers=given)
    here.client.get("/no/such/path", headers=given)
    here.guard.in_progress = 2
    assert here.client.post("/v1/embed", json={}, headers=given).status_code == 429
    found = metrics()
    assert found['bionemo_answers_total{path="/v1/embed",status="200"}'] == "1.0"
    assert found['bionemo_answers_total{path="/v1/embed",status="422"}'] == "1.0"
    assert found['bionemo_answers_total{path="other",status="404"}'] == "1.0"
    assert found['bionemo_answers_total{path="other",status="429"}'] == "1.0"
    assert (found["bionemo_items_total"], found["bionemo_tokens_total"]) == ("2.0", "12.0")
    assert found['bionemo_requests_per_pass_bucket{le="1.0"}'] == "1.0"
    assert found["bionemo_requests_in_progress"] == "2.0"
    assert float(found["process_resident_memory_bytes"]) > 0
