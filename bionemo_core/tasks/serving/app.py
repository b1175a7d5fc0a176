"""The HTTP interface: endpoints, their description as OpenAPI, and errors as JSON."""

from __future__ import annotations

import asyncio
import base64
import logging
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, Response
from numpy.typing import NDArray
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException

from bionemo_core._version import __version__
from bionemo_core.errors import BioNeMoError, ConfigError, DataError, NonFiniteError, ResourceError
from bionemo_core.inference.scoring_answers import reads_pairs
from bionemo_core.tasks.serving.engine import Engine, Work
from bionemo_core.tasks.serving.error_answers import error_answer
from bionemo_core.tasks.serving.memory import BYTES_OF_NUMBER, share_of_request
from bionemo_core.tasks.serving.page import read_page
from bionemo_core.tasks.serving.request_bodies import (
    DecodeBody,
    DrawBody,
    EmbedBody,
    EncodeBody,
    Encoding,
    InterpolateBody,
    PredictBody,
    SampleBody,
    ScoreBody,
)
from bionemo_core.tasks.serving.served_model import ServedModel
from bionemo_core.tasks.serving.server_metrics import CONTENT_TYPE, ServerMetrics

log = logging.getLogger("bionemo")

_Body = TypeVar("_Body")

_ERROR = {
    "type": "object",
    "properties": {
        "error": {
            "type": "object",
            "properties": {name: {"type": "string"} for name in ("class", "code", "message")},
            "required": ["class", "code", "message"],
        }
    },
    "required": ["error"],
}
_FAILURES: dict[int | str, dict[str, Any]] = {
    status: {"description": words, "content": {"application/json": {"schema": _ERROR}}}
    for status, words in (
        (400, "the model or the server does not offer this"),
        (401, "the token is missing or wrong"),
        (413, "more than a limit of the server"),
        (422, "the body, a sequence or a text cannot be used"),
        (429, "too many requests at once"),
        (503, "the server is stopping, or its memory is used up"),
        (504, "no answer within the time limit"),
    )
}


def make_app(served: ServedModel, engine: Engine, metrics: ServerMetrics) -> FastAPI:
    """Return the application that answers requests with a model."""
    app = FastAPI(
        title="bionemo-run serve",
        version=__version__,
        description="A model of bionemo-run. Arrays are float32; numbers are those of the command's tasks.",
        docs_url=None,  # it loads scripts from elsewhere
        redoc_url=None,
        separate_input_output_schemas=False,
    )
    _add_errors(app)
    _add_states(app, served, engine)
    _add_metrics(app, metrics)
    _add_page(app)
    _add_encoders(app, served, engine)
    _add_decoders(app, served, engine)
    return app


async def _answer(engine: Engine, prepare: Callable[[_Body], Work], body: _Body) -> Any:
    """Have the model do the work of a body, and return its results; the work is dropped if nobody waits any more."""
    work = prepare(body)
    if work.numbers and (share := share_of_request.get()) is not None:
        await share.take_for_answer(work.numbers * BYTES_OF_NUMBER[getattr(body, "encoding", "json")])
    job = engine.submit(work)
    try:
        return await asyncio.wrap_future(job.future)
    finally:
        job.abandoned = True  # of no effect once it is done


def _add_encoders(app: FastAPI, served: ServedModel, engine: Engine) -> None:
    @app.post("/v1/embed", responses=_FAILURES, summary="Embed sequences")
    async def embed(body: EmbedBody) -> Response:
        """Return an array for each sequence by output: `{"outputs": {"embeddings": [[...], ...]}}`."""
        found = await _answer(engine, served.embed, body)

        def render() -> Response:
            names = found[0].keys()
            return JSONResponse(
                {"outputs": {name: [_array(one[name], body.encoding) for one in found] for name in names}}
            )

        return await run_in_threadpool(render)

    @app.post("/v1/score", responses=_FAILURES, summary="Score variants of a wild type, or sequences")
    async def score(body: ScoreBody) -> Response:
        """Return a score for each variant or sequence, higher is likelier: `{"scores": [...], "scoring": "..."}`."""
        found = (await _answer(engine, served.score, body))[0]
        return JSONResponse({**found, "scores": _array(found["scores"], "json")})

    @app.post("/v1/predict", responses=_FAILURES, summary="Predict with a fine-tuned model")
    async def predict(body: PredictBody) -> Response:
        """Return an array for each sequence or pair, [1 or residues, outputs], and the cells of `task=predict`."""
        found = await _answer(engine, served.predict, body)
        content = {
            "predictions": [_array(array, body.encoding) for array, _ in found],
            "rows": [row for _, row in found],
        }
        return JSONResponse({**served.prediction_facts(), **content})


def _add_decoders(app: FastAPI, served: ServedModel, engine: Engine) -> None:
    @app.post("/v1/sample", responses=_FAILURES, summary="Sample texts near others, or from the prior")
    async def sample(body: SampleBody) -> Response:
        """Return `{"samples": [...]}`: [text][sample], or [sample] from the prior; kept beams are one level deeper."""
        return JSONResponse({"samples": (await _answer(engine, served.texts.sample, body))[0]})

    @app.post("/v1/interpolate", responses=_FAILURES, summary="Sample texts between two others")
    async def interpolate(body: InterpolateBody) -> Response:
        """Return `{"samples": [point][sample]}`, without the two ends."""
        return JSONResponse({"samples": (await _answer(engine, served.texts.interpolate, body))[0]})

    @app.post("/v1/encode", responses=_FAILURES, summary="Hidden states of texts")
    async def encode(body: EncodeBody) -> Response:
        """Return `{"hiddens": [text][position][hidden]}`, which `decode` takes."""
        found = (await _answer(engine, served.texts.encode, body))[0]
        return JSONResponse({"hiddens": [_array(array, body.encoding) for array in found]})

    @app.post("/v1/decode", responses=_FAILURES, summary="Texts of hidden states")
    async def decode(body: DecodeBody) -> Response:
        """Return `{"texts": [...]}`, decoded greedily."""
        return JSONResponse({"texts": (await _answer(engine, served.texts.decode, body))[0]})

    @app.post("/v1/draw", responses=_FAILURES, summary="A picture of texts, such as molecules")
    async def draw(body: DrawBody) -> Response:
        """Return a PNG picture of all texts, each above its caption; a text that is invalid leaves a gap."""
        return Response((await _answer(engine, served.texts.draw, body))[0], media_type="image/png")


def _add_page(app: FastAPI) -> None:
    text, policy = read_page()

    @app.get("/", include_in_schema=False)
    async def page() -> Response:
        return HTMLResponse(text, headers={"Content-Security-Policy": policy, "X-Content-Type-Options": "nosniff"})


def _add_states(app: FastAPI, served: ServedModel, engine: Engine) -> None:
    uses = served.uses()
    spec = served.opened.spec

    @app.get("/health", summary="Whether the process answers")
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/ready", responses={503: _FAILURES[503]}, summary="Whether requests are accepted")
    async def ready() -> Response:
        if engine.ready:
            return JSONResponse({"status": "ready"})
        return error_answer(ResourceError("The server is stopping."), 503)

    @app.get("/v1/model", responses={401: _FAILURES[401]}, summary="The model, what it offers, and the limits")
    async def model() -> dict[str, Any]:
        task = served.limits.task
        names = ("max_sequences", "max_length", "max_rows", "max_samples", "max_body_kib", "timeout_s")
        return {
            "model": spec.model.name,
            "distribution": spec.model.distribution,
            "version": spec.model.version,
            "reads_pairs": reads_pairs(served.opened.module),
            "offers": [name for name, offered in uses.items() if offered],
            "limits": {name: getattr(task, name) for name in names},
            "bionemo_run": __version__,
        }


def _add_metrics(app: FastAPI, metrics: ServerMetrics) -> None:
    @app.get("/metrics", responses={401: _FAILURES[401]}, summary="Counts and times, as Prometheus reads them")
    async def all_metrics() -> Response:
        return Response(metrics.text(), media_type=CONTENT_TYPE)


def _add_errors(app: FastAPI) -> None:
    @app.exception_handler(BioNeMoError)
    async def expected(request: Request, error: BioNeMoError) -> Response:
        return error_answer(error)

    @app.exception_handler(RequestValidationError)
    async def malformed(request: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"][1:])
        return error_answer(DataError(f"{place[:100] or 'body'}: {first['msg']}."), 422)

    @app.exception_handler(HTTPException)
    async def unknown(request: Request, error: HTTPException) -> Response:
        if error.status_code == 400:
            return error_answer(DataError("The body is not JSON."), 422)
        path = request.url.path[:100]
        return error_answer(
            ConfigError(f"{request.method} {path}: {error.detail}. See /openapi.json."), error.status_code
        )

    @app.exception_handler(Exception)
    async def unexpected(request: Request, error: Exception) -> Response:
        return error_answer(error)


def _array(array: NDArray[Any], encoding: Encoding) -> Any:
    """Return an array as nested lists, or as base64 of its bytes in little-endian order.

    Raises:
        NonFiniteError: a value is not finite.
    """
    if not np.isfinite(array).all():
        raise NonFiniteError("The model computed a value that is not finite. Check its weights.")
    if encoding == "json":
        return array.tolist()
    bytes_ = np.ascontiguousarray(array, dtype="<f4").tobytes()
    return {"dtype": "<f4", "shape": list(array.shape), "base64": base64.b64encode(bytes_).decode()}
