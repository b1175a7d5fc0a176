"""What the HTTP interface refuses, and how: errors of the project as JSON, and no request that harms another."""

import asyncio
import base64
import hashlib
import json
import re
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bionemo_core.errors import ConfigError
from bionemo_core.tasks.serving.engine import Abandoned, Engine, Work
from bionemo_core.tasks.serving.serve import check_host

pytest.importorskip("fastapi")

OK = {"sequences": ["MKTAYI"]}


def error_of(answer) -> dict:
    content = answer.json()
    assert content.keys() == {"error"} and content["error"].keys() == {"class", "code", "message"}
    return {"status": answer.status_code, **content["error"]}


def test_states_and_description(start, protein):
    here = start(protein)
    assert here.client.get("/health").json() == {"status": "ok"}
    assert here.client.get("/ready").json() == {"status": "ready"}
    model = here.client.get("/v1/model").json()
    assert (model["model"], model["offers"]) == ("esm1nv", ["embed", "score"])
    assert model["limits"]["max_sequences"] == 256
    paths = here.client.get("/openapi.json").json()["paths"]
    uses = {"embed", "score", "predict", "sample", "interpolate", "encode", "decode", "model"}
    assert paths.keys() == {"/health", "/ready", "/metrics", "/v1/draw", *(f"/v1/{use}" for use in uses)}
    here.engine.close()
    assert error_of(here.client.get("/ready"))["status"] == 503
    assert error_of(here.client.post("/v1/embed", json=OK))["class"] == "ResourceError"


def test_a_molecule_model_offers_what_it_can(start, molecules):
    offers = start(molecules).client.get("/v1/model").json()["offers"]
    assert offers == ["embed", "sample", "interpolate", "encode", "decode", "draw"]


@pytest.mark.parametrize(
    ("path", "body", "status", "kind", "words"),
    [
        ("embed", {"sequences": ["MK7"]}, 422, "DataError", "sequence 1"),
        ("embed", {"sequences": ["MK", ""]}, 422, "DataError", "sequence 2"),
        ("embed", {"sequences": ["M" * 63]}, 422, "DataError", "on_long=truncate"),
        ("embed", {"sequences": []}, 422, "DataError", "sequences"),
        ("embed", {**OK, "poolingg": "max"}, 422, "DataError", "Did you mean 'pooling'"),
        ("embed", {**OK, "pooling": "median"}, 422, "DataError", "pooling"),
        ("embed", {**OK, "layers": [7]}, 400, "ConfigError", "layers"),
        ("embed", {**OK, "outputs": ["contacts"]}, 400, "ConfigError", "contact"),
        ("embed", {"sequences": ["M"] * 4}, 413, "DataError", "task.max_sequences"),
        ("embed", {"sequences": ["M" * 101]}, 413, "DataError", "task.max_length"),
        ("embed", {"sequences": ["M" * 60] * 2, "outputs": ["hiddens"]}, 413, "DataError", "task.max_rows"),
        ("embed", {"sequences": ["M" * 2000]}, 413, "DataError", "task.max_body_kib"),
        ("score", {"sequences": ["MK"], "wild_type": "MK", "variants": ["K2A"]}, 400, "ConfigError", "either"),
        ("score", {"wild_type": "MK"}, 400, "ConfigError", "either"),
        ("score", {"wild_type": "MK", "variants": ["A2K"]}, 422, "DataError", "the wild type has K"),
        ("score", {"wild_type": "MK", "variants": ["K2A"], "scoring": "x"}, 400, "ConfigError", "scoring: got 'x'"),
        ("score", {"wild_type": "MK", "variants": ["p.Met1_Lys2del"]}, 422, "DataError", "no residue is left"),
        ("score", {"sequences": ["  "]}, 422, "DataError", "empty"),
        ("predict", OK, 400, "ConfigError", "no prediction head"),
        ("sample", {}, 400, "ConfigError", "encoder-decoder"),
        ("sample", {"num_samples": 17}, 413, "DataError", "task.max_samples"),
        ("draw", {"texts": ["MK"]}, 400, "ConfigError", "draws no texts"),
        ("nothing", {}, 404, "ConfigError", "/v1/nothing"),
    ],
)  # fmt: skip
def test_refusals(start, protein, path, body, status, kind, words):
    here = start(protein, max_sequences=3, max_length=100, max_rows=100, max_samples=16, max_body_kib=1)
    error = error_of(here.client.post(f"/v1/{path}", json=body))
    assert (error["status"], error["class"]) == (status, kind)
    assert words in error["message"]
    here.post("embed", OK)


@pytest.mark.parametrize(
    ("path", "body", "words"),
    [
        ("sample", {"texts": ["C1CC"]}, "is not SMILES"),
        ("sample", {"texts": ["C"], "sampling_method": "best"}, "sampling_method: got 'best'"),
        ("sample", {"texts": ["C"], "top_k": 3}, "no option 'top_k'"),
        ("decode", {"hiddens": [[[1.0, 2.0]]]}, "width of 2, but the model has 32"),
        ("decode", {"hiddens": [[[1.0], [1.0, 2.0]]]}, "one width"),
        ("draw", {"texts": ["C"], "captions": []}, "captions: got 0 for 1 text"),
        ("decode", {"hiddens": [[[1e39] * 32]]}, "a value is beyond 1,000,000"),
        ("sample", {"texts": ["C"], "scaled_radius": 1e21}, "scaled_radius"),
        ("decode", {"hiddens": [[]]}, "a position or more"),
    ],
)
def test_refusals_of_molecules(start, molecules, path, body, words):
    here = start(molecules)
    error = error_of(here.client.post(f"/v1/{path}", json=body))
    assert error["status"] in (400, 422) and words in error["message"]


def test_molecules_are_drawn(start, molecules):
    here = start(molecules)
    answer = here.client.post("/v1/draw", json={"texts": ["CCO", "C1CC"], "captions": ["ethanol", "none"]})
    if answer.status_code == 400 and "library" in answer.text:
        pytest.skip("RDKit's drawing cannot be loaded here")
    assert answer.headers["content-type"] == "image/png" and answer.content.startswith(b"\x89PNG")
    error = error_of(here.client.post("/v1/draw", json={"texts": ["C" * 501]}))
    assert (error["status"], error["class"]) == (413, "DataError")


def test_the_page_runs_its_own_script_only(start, protein):
    answer = start(protein, token="swordfish").client.get("/")
    policy = dict(part.split(" ", 1) for part in answer.headers["content-security-policy"].split("; "))
    assert policy["default-src"] == policy["frame-ancestors"] == "'none'" and policy["connect-src"] == "'self'"
    for kind in ("script", "style"):
        (text,) = re.findall(rf"<{kind}>(.*?)</{kind}>", answer.text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert policy[f"{kind}-src"] == f"'sha256-{digest}'"
    assert not re.search(r"https?://|innerHTML|\son\w+=", answer.text)


def test_the_token(start, protein):
    here = start(protein, token="swordfish")
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Bearer swordfish2"}):
        assert error_of(here.client.post("/v1/embed", json=OK, headers=headers))["status"] == 401
    given = {"Authorization": "Bearer swordfish"}
    assert here.client.post("/v1/embed", json=OK, headers=given).status_code == 200
    assert here.client.get("/v1/model").status_code == 401
    assert here.client.get("/health").status_code == here.client.get("/ready").status_code == 200


def test_an_address_that_others_reach_needs_a_token():
    for host in ("127.0.0.1", "::1", "localhost", "127.5.0.1"):
        check_host(host, "")
    for host in ("0.0.0.0", "::", "10.0.0.1", "example.org"):
        with pytest.raises(ConfigError, match="BIONEMO_SERVE_TOKEN"):
            check_host(host, "")
        check_host(host, "secret")


def test_a_page_of_a_stranger_cannot_make_a_browser_ask(start, protein):
    client = start(protein).client
    for kind in ("text/plain", "application/x-www-form-urlencoded", ""):
        answer = client.post("/v1/embed", content=json.dumps(OK), headers={"Content-Type": kind})
        assert error_of(answer)["status"] == 415
    assert "access-control-allow-origin" not in client.get("/health", headers={"Origin": "http://else.org"}).headers


def test_no_file_is_read(start, protein, tmp_path, monkeypatch):
    """A path is a text like any other: it is refused by its letters, whether or not there is such a file."""
    (tmp_path / "proteins").write_text(">a\nMKTAYI\n")
    monkeypatch.chdir(tmp_path)
    here = start(protein)
    wild = {"wild_type": "proteins", "variants": ["WT"]}
    before = here.post("score", wild)  # P, R, O ... are residues
    Path("proteins").unlink()
    assert here.post("score", wild) == before
    for path in ("/etc/passwd", "file:///etc/passwd", "../../secret"):
        answer = here.client.post("/v1/embed", json={"sequences": [path]})
        assert error_of(answer)["status"] == 422 and "root:" not in answer.text


HOSTILE = st.one_of(
    st.binary(max_size=200),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    ).map(lambda content: json.dumps(content).encode()),
    st.builds(
        lambda field, content: json.dumps({"sequences": ["MK"], field: content}).encode(),
        st.sampled_from(
            ["sequences", "pairs", "outputs", "layers", "pooling", "window_overlap", "encoding", "__class__"]
        ),
        st.none() | st.integers() | st.floats() | st.text(max_size=9) | st.lists(st.text(max_size=9) | st.integers()),
    ),
    st.sampled_from(
        [b"[" * 100_000, b'{"sequences":' * 5_000, b'{"sequences":["\\ud800"]}', b"9" * 5_000, b"NaN", b"\xff\xfe{}",
         b'{"sequences":["MK"],"layers":[' + b"9" * 400 + b"]}", b'{"sequences":["MK"],"sequences":5}'],
    ),
)  # fmt: skip


@settings(max_examples=60)
@given(body=HOSTILE)
def test_hostile_bodies_are_refused(start, protein, body):
    here = start(protein)
    for path in ("embed", "decode", "predict"):
        answer = here.client.post(f"/v1/{path}", content=body, headers={"Content-Type": "application/json"})
        assert answer.status_code == 200 or 400 <= error_of(answer)["status"] < 500, (path, body, answer.text)
    here.engine.close()


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("embed", {"sequences": [1] * 100_000}),
        ("embed", {"sequences": ["M"], **{f"field{number}": 1 for number in range(50_000)}}),
        ("embed", {**OK, "outputs": ["x"] * 100_000}),
        ("predict", {"pairs": [["M"]] * 100_000}),
        ("predict", {"pairs": [[1] * 100_000]}),
        ("embed", {**OK, "layers": ["x"] * 100_000}),
        ("decode", {"hiddens": [["x"] * 100_000]}),
        ("decode", {"hiddens": [[["x"] * 100_000]]}),
        ("decode", {"hiddens": ["x"] * 100_000}),
    ],
    ids=range(9),
)
def test_a_body_of_many_errors_has_one(start, protein, path, body, monkeypatch):
    """Else a body of a megabyte would become hundreds of megabytes of errors."""
    from fastapi.exceptions import RequestValidationError

    counts, errors = [], RequestValidationError.errors
    monkeypatch.setattr(RequestValidationError, "errors", lambda self: counts.append(len(errors(self))) or errors(self))
    assert error_of(start(protein).client.post(f"/v1/{path}", json=body))["status"] == 422
    assert counts == [1]


def test_time_runs_out_and_the_work_is_dropped(start, protein):
    here = start(protein, timeout_s=2.0)
    let_go, seen = threading.Event(), []

    def slow(items, check):
        let_go.wait(20)
        try:
            check()
        except Abandoned:
            seen.append("dropped")
            raise
        return items

    here.served.score = lambda body: Work(slow, (None,))
    error = error_of(here.client.post("/v1/score", json={"sequences": ["MK"]}))
    assert (error["status"], error["class"]) == (504, "ResourceError") and "task.timeout_s" in error["message"]
    let_go.set()
    here.post("embed", OK)
    assert seen == ["dropped"]


def test_every_long_work_stops_between_passes(start, protein, molecules):
    def gone():
        raise Abandoned

    from served_models import with_head

    from bionemo_core.tasks.serving.request_bodies import EmbedBody, PredictBody, SampleBody, ScoreBody

    for work in (
        start(protein).served.embed(EmbedBody(sequences=["MKTAYI"])),
        start(with_head(protein, "sequence_regression")).served.predict(PredictBody(sequences=["MKTAYI"])),
        start(protein).served.score(ScoreBody(sequences=["MKTAYI"])),
        start(molecules).served.texts.sample(SampleBody(texts=["CCO"])),
    ):
        with pytest.raises(Abandoned):
            work.run(work.items, gone)


def test_too_many_at_once_are_told_to_wait(start, protein):
    here = start(protein, max_waiting=1)
    here.guard.in_progress = 1
    answer = here.client.post("/v1/embed", json=OK)
    assert error_of(answer)["status"] == 429 and answer.headers["retry-after"] == "1"
    assert here.client.get("/health").status_code == 200
    here.guard.in_progress = 0
    here.post("embed", OK)


def test_a_client_that_leaves_takes_its_work_with_it(start, protein):
    here, running, let_go = start(protein), threading.Event(), threading.Event()

    def slow(items, check):
        running.set()
        let_go.wait(20)
        return items

    here.served.embed = lambda body: Work(slow, (None,))
    jobs, submit = [], here.engine.submit
    here.engine.submit = lambda work: jobs.append(submit(work)) or jobs[-1]
    messages = [{"type": "http.request", "body": json.dumps(OK).encode()}]

    async def receive():
        if messages:
            return messages.pop()
        await asyncio.to_thread(running.wait, 20)
        return {"type": "http.disconnect"}

    async def send(message):
        raise AssertionError("nobody is there")

    headers = [(b"content-type", b"application/json")]
    scope = {"type": "http", "method": "POST", "path": "/v1/embed", "raw_path": b"", "query_string": b"",
             "headers": headers, "http_version": "1.1", "scheme": "http"}  # fmt: skip
    asyncio.run(here.guard(scope, receive, send))
    assert jobs[0].abandoned and here.guard.in_progress == 0
    let_go.set()


def test_a_bug_is_logged_and_not_shown(start, protein, caplog):
    here = start(protein)
    here.served.embed = lambda body: Work(lambda items, check: 1 / 0, (None,))
    error = error_of(here.client.post("/v1/embed", json=OK))
    assert (error["status"], error["code"]) == (500, "bug") and "division" not in error["message"]
    assert caplog.text.count("ZeroDivisionError") == 1
    assert here.engine.ready


def test_closing_finishes_what_was_accepted():
    engine, let_go = Engine(), threading.Event()

    def slow(items, check):
        let_go.wait(20)
        return [item * 2 for item in items]

    jobs = [engine.submit(Work(slow, (number,))) for number in range(3)]
    closing = threading.Thread(target=engine.close)
    closing.start()
    let_go.set()
    closing.join(20)
    assert [job.future.result(0) for job in jobs] == [[0], [2], [4]]
