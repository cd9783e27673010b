"""The routes of vidseq over HTTP, made from plain parts. Knows neither Ray nor torch nor how a video is read.

classify, models   -> service_router   POST /v1/classify   GET /v1/models   behind uploads, and keys
sessions, decode   ->                  WS /v1/streams      /v1/sessions/...           streams.py, session_routes.py
ready, metrics     -> control_router   GET /livez /readyz /metrics                    never behind one
                      create_app has all, create_service_app and create_control_app their part
"""

import functools
from collections.abc import Callable
from typing import Any, Self

from fastapi import APIRouter, FastAPI
from pydantic import model_validator
from starlette.exceptions import HTTPException
from starlette.responses import Response

from serving import openapi, problems
from serving.admission import Admission, Workers
from serving.envelope import Envelope, Observer
from serving.guard import Guard
from serving.keyring import KeyRing
from serving.parts import Classify, Decode, PushObserver, Sessions, unobserved
from serving.session_routes import session_router
from serving.streams import Streams, StreamSettings
from serving.videos import Videos
from vidseq import __version__
from vidseq.config import Config, PositiveInt, PositiveSeconds
from vidseq.schemas import Models


class WebSettings(Config):
    """What requests may cost: so many videos at a time, and as many pushes. `max_held_bytes` is what the bodies of each
    kind may take together.

    `body_timeout_seconds` runs from the headers to the last byte, `request_timeout_seconds` from there to the answer;
    of an answer in lines, from each line to the next.
    """

    max_body_bytes: PositiveInt = 512 * 2**20
    max_held_bytes: PositiveInt = 2 * 2**30
    max_concurrent: PositiveInt = 64
    body_timeout_seconds: PositiveSeconds = 120.0
    request_timeout_seconds: PositiveSeconds = 120.0
    retry_after_seconds: PositiveSeconds = 1.0
    docs: bool = True
    streams: StreamSettings = StreamSettings()

    @model_validator(mode="after")
    def _one_body_fits(self) -> Self:
        if self.max_body_bytes > self.max_held_bytes:
            raise ValueError(f"max_body_bytes {self.max_body_bytes} is more than max_held_bytes {self.max_held_bytes}")
        return self


def create_app(
    *,
    classify: Classify,
    models: Callable[[], Models],
    sessions: Sessions | None,
    decode: Decode,
    ready: Callable[[], str | None],
    metrics: Callable[[], bytes] | None,
    keys: KeyRing | None,
    settings: WebSettings,
    observe: Observer | None = None,
    observe_push: PushObserver = unobserved,
) -> FastAPI:
    """Everything in one application.

    `models` answers from memory. `sessions` is None where the model cannot stream. `ready` gives None, or the reason
    why not; it and `metrics` (Prometheus' text format; None where it is exported elsewhere) may block for a moment.
    With `keys`, what is below /v1 is for those who show one; with None it is open to all. `observe` is told of every
    request when it is over, `observe_push` of every push of a stream.
    """
    service = service_router(
        classify=classify,
        models=models,
        sessions=sessions,
        decode=decode,
        settings=settings,
        observe_push=observe_push,
    )
    control = control_router(ready=ready, metrics=metrics)
    return _assembled(service, control, keys=keys, prefix="/v1", settings=settings, observe=observe)


def create_service_app(
    *,
    classify: Classify,
    models: Callable[[], Models],
    sessions: Sessions | None,
    decode: Decode,
    keys: KeyRing | None,
    settings: WebSettings,
    observe: Observer | None = None,
    observe_push: PushObserver = unobserved,
    prefix: str = "/v1",
) -> FastAPI:
    """What takes bodies and streams. `prefix` is "" where the server in front has taken it off."""
    service = service_router(
        classify=classify,
        models=models,
        sessions=sessions,
        decode=decode,
        settings=settings,
        observe_push=observe_push,
        prefix=prefix,
    )
    return _assembled(service, keys=keys, prefix=prefix, settings=settings, observe=observe)


def create_control_app(
    *,
    ready: Callable[[], str | None],
    metrics: Callable[[], bytes] | None,
    settings: WebSettings,
    observe: Observer | None = None,
) -> FastAPI:
    """What must answer while the service is full, to whoever asks: it tells of no caller and no video."""
    control = control_router(ready=ready, metrics=metrics)
    return _assembled(control, keys=None, prefix="", settings=settings, observe=observe)


def service_router(
    *,
    classify: Classify,
    models: Callable[[], Models],
    sessions: Sessions | None,
    decode: Decode,
    settings: WebSettings,
    observe_push: PushObserver,
    prefix: str = "/v1",
) -> APIRouter:
    def places() -> Admission:
        return Admission(
            max_requests=settings.max_concurrent,
            max_bytes=settings.max_held_bytes,
            retry_after_seconds=settings.retry_after_seconds,
        )

    admission = places()
    workers = Workers(settings.max_concurrent)
    router = APIRouter(prefix=prefix, lifespan=workers.lifespan)
    videos = Videos(
        classify,
        models=models,
        sessions=sessions,
        decode=decode,
        admission=admission,
        workers=workers,
        max_body_bytes=settings.max_body_bytes,
        body_timeout_seconds=settings.body_timeout_seconds,
        answer_timeout_seconds=settings.request_timeout_seconds,
        observe_push=observe_push,
    )
    videos.add_to(router)
    router.include_router(
        session_router(
            sessions,
            models=models,
            admission=places(),  # of their own: a push is not to wait behind uploads
            body_timeout_seconds=settings.body_timeout_seconds,
            answer_timeout_seconds=settings.request_timeout_seconds,
            observe_push=observe_push,
        )
    )
    streams = Streams(
        sessions,
        decode=decode,
        models=models,
        admission=admission,
        workers=workers,
        settings=settings.streams,
        observe_push=observe_push,
    )
    router.add_api_websocket_route("/streams", streams.serve)
    return router


def control_router(*, ready: Callable[[], str | None], metrics: Callable[[], bytes] | None) -> APIRouter:
    router = APIRouter(tags=["control"])

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


class _App(FastAPI):
    def openapi(self) -> dict[str, Any]:
        return whole_api()


@functools.cache
def whole_api() -> dict[str, Any]:
    """The OpenAPI document of all routes: the same page, whichever part of the service is asked for it."""
    app = FastAPI(
        title="vidseq", version=__version__, summary="Labels for video in time.", description=openapi.DESCRIPTION
    )
    service = service_router(
        classify=_described_only,
        models=_described_only,
        sessions=None,
        decode=_described_only,
        settings=WebSettings(),
        observe_push=unobserved,
    )
    app.include_router(service)
    app.include_router(control_router(ready=_described_only, metrics=_described_only))
    return openapi.with_keys(openapi.with_problem_schema(app.openapi()), prefix="/v1")


def _described_only(*args: object, **options: object) -> Any:
    raise AssertionError("this application is there to be described")


def _assembled(
    *routers: APIRouter, keys: KeyRing | None, prefix: str, settings: WebSettings, observe: Observer | None
) -> FastAPI:
    app = _App(
        title="vidseq",
        version=__version__,
        docs_url="/docs" if settings.docs else None,
        openapi_url="/openapi.json" if settings.docs else None,
        redoc_url=None,
        redirect_slashes=False,  # a redirect would name the host that the client claims to have asked
        root_path_in_servers=False,
    )
    problems.install(app)
    if keys is not None:
        app.add_middleware(Guard, keys=keys, prefix=prefix)
    app.add_middleware(Envelope, observe=observe)  # added last: outermost
    for router in routers:
        app.include_router(router)
    return app
