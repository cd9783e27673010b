"""The service over HTTP as an application: its routes, and what stands before them. Knows neither Ray nor torch.

parts            -> service_router   everything below /v1                behind uploads, and keys   service_routes.py
ready, metrics   -> control_router   GET /livez /readyz /metrics         never behind one
                    create_app has both, create_service_app and create_control_app their part
"""

import functools
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

from fastapi import APIRouter, FastAPI
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.websockets import WebSocket

from serving import openapi, problems
from serving.answer_headers import DOCS_PATH, AnswerHeaders
from serving.body import MAX_FORM_BYTES
from serving.drain import Drain, Leave
from serving.envelope import Envelope
from serving.finished import Observer
from serving.flow import Taking
from serving.guard import Guard
from serving.keyring import KeyRing
from serving.origins import Origins
from serving.quotas import Quotas
from serving.rates import Rates, rates_of
from serving.refusals import refuse
from serving.service_routes import Parts, service_router
from serving.usage.metering import Metering
from serving.usage.used import Charge
from serving.web_settings import WebSettings
from vidseq import __version__

Lifespan = Callable[[object], AbstractAsyncContextManager[None]]

METHODS = ("DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT")
NOT_HERE = "the service is not there: it starts, or stops"


def create_app(
    parts: Parts,
    *,
    ready: Callable[[], str | None],
    metrics: Callable[[], bytes] | None,
    keys: KeyRing | None,
    settings: WebSettings,
    rates: Rates | None = None,
    observe: Observer | None = None,
) -> FastAPI:
    """Everything in one application.

    `ready` gives None, or the reason why not; it and `metrics` (Prometheus' text format; None where it is exported
    elsewhere) may block for a moment. With `keys`, what is below /v1 is for those who show one; with None it is open to
    all. `rates` counts what each key does; None counts here, as the settings say. `observe` is told of every request
    when it is over.
    """
    service = service_router(parts, settings=settings)
    control = control_router(ready=ready, metrics=metrics)
    return _assembled(
        service, control, keys=keys, rates=rates, prefix="/v1", settings=settings, observe=observe, charge=parts.ledger
    )


def create_service_app(
    parts: Parts,
    *,
    keys: KeyRing | None,
    settings: WebSettings,
    rates: Rates | None = None,
    observe: Observer | None = None,
    drain: Drain | None = None,
    prefix: str = "/v1",
) -> FastAPI:
    """What takes bodies and streams, until `drain`. `prefix` is "" where the server in front has taken it off."""
    return _assembled(
        service_router(parts, settings=settings, prefix=prefix),
        keys=keys,
        rates=rates,
        prefix=prefix,
        settings=settings,
        observe=observe,
        charge=parts.ledger,
        drain=drain,
    )


def create_control_app(
    *,
    ready: Callable[[], str | None],
    metrics: Callable[[], bytes] | None,
    settings: WebSettings,
    observe: Observer | None = None,
    lifespan: Lifespan | None = None,
) -> FastAPI:
    """What must answer while the service is full, to whoever asks: it tells of no caller and no video.

    What is the service's, below /v1, reaches it while the service is not there. `lifespan` is entered before the first
    request, and left after the last.
    """
    control = control_router(ready=ready, metrics=metrics, lifespan=lifespan)
    control.add_api_route("/v1/{rest:path}", _not_here, methods=list(METHODS), include_in_schema=False)
    control.add_api_websocket_route("/v1/{rest:path}", _no_stream_here)
    return _assembled(control, keys=None, rates=None, prefix="", settings=settings, observe=observe)


def control_router(
    *, ready: Callable[[], str | None], metrics: Callable[[], bytes] | None, lifespan: Lifespan | None = None
) -> APIRouter:
    router = APIRouter(tags=["control"], lifespan=lifespan)

    @router.get("/livez", responses=openapi.problem_responses(500))
    async def live() -> dict[str, str]:
        """The process runs."""
        return {"status": "live"}

    @router.get("/readyz", responses=openapi.problem_responses(500, 503))
    def is_ready() -> dict[str, str]:
        """The model is loaded and has labelled a clip."""
        reason = ready()
        if reason is not None:
            raise problems.NotReady(reason)
        return {"status": "ready"}

    @router.get(
        "/metrics",
        response_class=Response,
        responses={200: openapi.PROMETHEUS_TEXT, **openapi.problem_responses(404, 500)},
    )
    def prometheus() -> Response:
        """Counters and histograms in Prometheus' text format; 404 where they are exported elsewhere."""
        if metrics is None:
            raise HTTPException(404)
        return Response(metrics(), media_type=openapi.PROMETHEUS_TYPE)

    return router


async def _not_here() -> None:
    raise problems.NotReady(NOT_HERE)


async def _no_stream_here(websocket: WebSocket) -> None:
    await refuse(problems.NotReady(NOT_HERE), websocket.scope, websocket.receive, websocket.send)


class _App(FastAPI):
    def openapi(self) -> dict[str, Any]:
        return whole_api()


@functools.cache
def whole_api() -> dict[str, Any]:
    """The OpenAPI document of all routes: the same page, whichever part of the service is asked for it."""
    app = FastAPI(
        title="vidseq", version=__version__, summary="Labels for video in time.", description=openapi.DESCRIPTION
    )
    described = Parts(classify=_described_only, models=_described_only, decode=_described_only)
    app.include_router(service_router(described, settings=WebSettings()))
    app.include_router(control_router(ready=_described_only, metrics=_described_only))
    document = openapi.with_forms(openapi.with_problem_schema(app.openapi()))
    return openapi.with_keys(document, prefix="/v1")


def _described_only(*args: object, **options: object) -> Any:
    raise AssertionError("this application is there to be described")


def _assembled(
    *routers: APIRouter,
    keys: KeyRing | None,
    rates: Rates | None,
    prefix: str,
    settings: WebSettings,
    observe: Observer | None,
    charge: Charge | None = None,
    drain: Drain | None = None,
) -> FastAPI:
    app = _App(
        title="vidseq",
        version=__version__,
        docs_url=DOCS_PATH if settings.docs else None,
        openapi_url="/openapi.json" if settings.docs else None,
        redoc_url=None,
        redirect_slashes=False,  # a redirect would name the host that the client claims to have asked
        root_path_in_servers=False,
    )
    problems.install(app)
    if keys is not None:
        rates = rates or rates_of(settings.rates, url=None)
        app.add_middleware(Quotas, rates=rates, max_body_bytes=settings.max_body_bytes + MAX_FORM_BYTES)
    if charge is not None:
        app.add_middleware(Metering, charge=charge)
    if keys is not None:
        app.add_middleware(Guard, keys=keys, prefix=prefix)
    if drain is not None:
        app.add_middleware(Leave, drain=drain)
    app.add_middleware(Envelope, observe=observe)
    if settings.allowed_origins:
        app.add_middleware(Origins, allowed=settings.allowed_origins)
    app.add_middleware(AnswerHeaders)
    app.add_middleware(Taking)  # added last: outermost
    for router in routers:
        app.include_router(router)
    return app
