"""The memory of requests is bounded together, whatever their number; the server answers while it opens the model."""

import asyncio
import json
import threading
from time import monotonic, sleep

import numpy as np
import pytest

from bionemo_core.errors import ArtefactError
from bionemo_core.tasks.serving.memory import BODIES_BYTES, BYTES_OF_NUMBER, Budget
from bionemo_core.tasks.serving.served_model import ServedModel

pytest.importorskip("fastapi")


def test_who_asks_first_is_served_first_and_a_large_one_is_alone() -> None:
    async def run() -> list[str]:
        budget, order = Budget(10), []

        async def use(name: str, size: int) -> None:
            taken = await budget.take(size)
            order.append(name)
            await asyncio.sleep(0)
            budget.give(taken)

        await asyncio.gather(use("a", 6), use("b", 6), use("huge", 99), use("c", 1))
        assert budget.left == 10
        return order

    assert asyncio.run(run()) == ["a", "b", "huge", "c"]


def test_what_nobody_waits_for_takes_nothing() -> None:
    async def run() -> None:
        budget = Budget(10)
        held = await budget.take(10)
        first, second = (asyncio.ensure_future(budget.take(size)) for size in (8, 4))
        await asyncio.sleep(0)
        first.cancel()
        await asyncio.sleep(0)
        budget.give(held)
        assert await second == 4 and budget.left == 6
        third = asyncio.ensure_future(budget.take(10))
        await asyncio.sleep(0)
        budget.give(4)
        third.cancel()  # at the moment when it is its turn
        await asyncio.gather(third, return_exceptions=True)
        assert budget.left == 10

    asyncio.run(run())


def scope_of(path: str) -> dict:
    headers = [(b"content-type", b"application/json")]
    return {"type": "http", "method": "POST", "path": path, "raw_path": b"", "query_string": b"",
            "headers": headers, "http_version": "1.1", "scheme": "http"}  # fmt: skip


def ask(app, body: bytes, *, path: str = "/v1/embed", answered=lambda: None):
    """The request of a client that waits for its answer; `answered` is called when the answer arrives."""
    messages = [{"type": "http.request", "body": body}]
    done, got = asyncio.Event(), []

    async def receive():
        if messages:
            return messages.pop()
        await done.wait()
        return {"type": "http.disconnect"}

    async def send(message):
        got.append(message)
        if message["type"] == "http.response.body":
            answered()
            await asyncio.sleep(0)

    async def run():
        await app(scope_of(path), receive, send)
        done.set()
        return got[0]["status"], b"".join(one.get("body", b"") for one in got)

    return run()


def test_bodies_are_read_a_few_megabytes_at_a_time(start, protein) -> None:
    here, reading, most = start(protein), [0], [0]
    body = json.dumps({"sequences": ["M"], "padding": "x" * 1_000_000}).encode()

    async def slow(scope, receive, send):
        content = (await receive())["body"]
        reading[0] += len(content)
        most[0] = max(most[0], reading[0])
        await asyncio.sleep(0.002)
        reading[0] -= len(content)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    here.guard._app = slow

    async def all_at_once():
        return await asyncio.gather(*(ask(here.guard, body) for _ in range(60)))

    assert {status for status, _ in asyncio.run(all_at_once())} == {200}
    assert BODIES_BYTES / 2 < most[0] <= BODIES_BYTES


@pytest.mark.parametrize("encoding", ["json", "base64"])
def test_answers_are_made_as_memory_allows(start, protein, encoding: str) -> None:
    here, made, most = start(protein), [0], [0]
    numbers = 8 * 32  # of six residues and two terminals, whose states have 32 numbers
    here.guard._answers = Budget(3 * numbers * BYTES_OF_NUMBER[encoding])
    body = json.dumps({"sequences": ["MKTAYI"], "outputs": ["hiddens"], "encoding": encoding}).encode()
    embed = ServedModel.embed

    def counted(content):
        work = embed(here.served, content)
        assert work.numbers >= 6 * 32
        return work

    here.served.embed = counted
    submit = here.engine.submit

    def accept(work):
        made[0] += 1
        most[0] = max(most[0], made[0])
        return submit(work)

    here.engine.submit = accept

    def answered():
        made[0] -= 1

    async def all_at_once():
        return await asyncio.gather(*(ask(here.guard, body, answered=answered) for _ in range(20)))

    assert {status for status, _ in asyncio.run(all_at_once())} == {200}
    assert most[0] == 3 and here.guard._answers.left == here.guard._answers.total


@pytest.mark.parametrize(
    "asked",
    [{"outputs": ["embeddings"]}, {"outputs": ["hiddens", "logits"]}, {"outputs": ["hiddens"], "layers": [0, -1]}],
)
def test_no_answer_has_more_numbers_than_were_expected(start, protein, asked: dict) -> None:
    here, expected = start(protein), []
    submit = here.engine.submit
    here.engine.submit = lambda work: (expected.append(work.numbers), submit(work))[1]
    outputs = here.post("embed", {"sequences": ["MKTAYI", "MK"], **asked})["outputs"]
    numbers = sum(np.size(array) for arrays in outputs.values() for array in arrays)
    assert numbers <= expected[0] <= 8 * numbers + 1000


def test_while_the_model_is_opened_the_server_says_so() -> None:
    from bionemo_core.tasks.serving.opening_app import OpeningApp

    go_on, said = threading.Event(), []

    async def model(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"answer"})

    def make():
        assert go_on.wait(20)
        return model

    app = OpeningApp(make, "some_model", said.append)
    status, content = asyncio.run(ask(app, b"", path="/ready"))
    assert status == 503 and b"is opening some_model, for 0 s so far" in content
    assert asyncio.run(ask(app, b"", path="/health"))[0] == 200
    go_on.set()
    deadline = monotonic() + 20
    while not said and monotonic() < deadline:
        sleep(0.01)
    assert asyncio.run(ask(app, b"", path="/ready")) == (200, b"answer") and said[0] < 20


def test_a_model_that_cannot_be_opened_is_the_failure_of_the_server() -> None:
    from bionemo_core.tasks.serving.opening_app import OpeningApp

    def make():
        raise ArtefactError("damaged")

    app = OpeningApp(make, "some_model", lambda seconds: None)
    deadline = monotonic() + 20
    while app.failure is None and monotonic() < deadline:
        sleep(0.01)
    assert isinstance(app.failure, ArtefactError)
