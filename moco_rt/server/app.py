"""The application: which endpoint does what, and how errors are told."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from fastapi import FastAPI
from fastapi.requests import Request
from fastapi.responses import Response
from fastapi.routing import APIRoute
from pydantic import BaseModel
from starlette.exceptions import HTTPException

import moco_rt
from moco_rt.server.answering import Served
from moco_rt.server.batching import Batcher
from moco_rt.server.endpoints import Endpoints
from moco_rt.server.limits import Answering, Limits
from moco_rt.server.metrics import Metrics
from moco_rt.server.refusals import REFUSALS, as_refusal, json_response, parsed
from moco_rt.server.settings import Settings
from moco_rt.server.shapes import Info, PipelineRequest, PredictRequest, Ranked, Refusal, RerankRequest, Scored
from moco_rt.server.shared_state import SharedState

Body = TypeVar("Body", bound=BaseModel)


class _Described(APIRoute):
    """A route that stands in the description of the interface, and answers nobody.

    Bodies go to the doors of `Limits`, which tell paths from each other exactly, as routes do not: one for `/predict`
    takes the same with a line feed behind it, too.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return what refuses a request, whose body it does not read."""

        async def refuse(_: Request) -> Response:
            raise HTTPException(404)

        return refuse


def make_app(served: Served, settings: Settings, state: SharedState | None = None) -> Limits:
    """Return the ASGI application that answers for a model.

    Args:
        served: the model.
        settings: limits and names.
        state: what this worker shares with others; None: nothing.
    """
    batcher = Batcher(
        served.answer,
        max_tokens=settings.max_batch_tokens,
        max_wait=settings.max_wait_ms / 1e3,
    )
    metrics = Metrics(served, batcher)

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        if state is not None:
            state.try_to_exchange()
        keeping = None if state is None else asyncio.create_task(state.keep())
        yield
        if keeping is not None:
            keeping.cancel()
        await asyncio.to_thread(batcher.close)  # what was accepted is answered
        served.close()

    # Pages that show the interface load scripts from elsewhere: there are none.
    # A path with a slash too many is not found: the address to go to would have the host that the caller has named.
    app = FastAPI(
        title="moco_rt",
        version=moco_rt.__version__,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        lifespan=lifespan,
    )
    endpoints = Endpoints(served, settings, batcher, metrics)
    post: dict[str, Any] = {"methods": ["POST"], "responses": REFUSALS, "route_class_override": _Described}
    describe = app.router.add_api_route
    describe("/predict", endpoints.predict, response_model=list[Scored] | list[list[Scored]], **post)
    describe("/", endpoints.pipeline, response_model=list[list[Scored]], **post)
    describe("/rerank", endpoints.rerank, response_model=list[Ranked], **post)
    app.add_api_route("/info", endpoints.info, methods=["GET"], response_model=Info)
    unhealthy: dict[int | str, dict[str, Any]] = {503: {"model": Refusal}}
    app.add_api_route("/health", endpoints.health, methods=["GET"], response_class=Response, responses=unhealthy)
    app.add_api_route("/metrics", endpoints.metrics, methods=["GET"], response_class=Response)

    def refuse(error: Exception) -> Response:
        refusal = as_refusal(error)
        metrics.refused(refusal.kind)
        return json_response({"error": str(refusal), "error_type": refusal.kind}, status=refusal.status)

    def door(shape: type[Body], answer: Callable[[Body], Awaitable[Response]]) -> Answering:
        async def respond(body: bytes) -> Response:
            try:
                return await answer(shape.model_validate(parsed(body)))
            except Exception as error:
                return refuse(error)

        return respond

    for kind in (HTTPException, Exception):
        app.add_exception_handler(kind, lambda _, error: refuse(error))
    doors = {
        "/predict": door(PredictRequest, endpoints.predict),
        "/": door(PipelineRequest, endpoints.pipeline),
        "/rerank": door(RerankRequest, endpoints.rerank),
    }
    return Limits(
        app,
        doors,
        max_open=settings.max_concurrent_requests,
        max_bytes=settings.max_bytes,
        api_key=settings.api_key,
        refused=metrics.refused,
    )
