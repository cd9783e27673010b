"""The routes of vidseq over HTTP, made from plain parts. Knows neither Ray nor torch nor how a video is read.

classify, models   -> service_router   POST /v1/classify   GET /v1/models   behind uploads, and keys
sessions, decode   ->                  WS /v1/streams      /v1/sessions/...           streams.py, session_routes.py
uploads, jobs      ->                  /v1/uploads/...    /v1/jobs/...                uploads/routes.py, jobs/routes.py
ready, metrics     -> control_router   GET /livez /readyz /metrics                    never behind one
                      create_app has all, create_service_app and create_control_app their part
"""

import functools
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Annotated, Any, Self

from fastapi import APIRouter, FastAPI
from pydantic import Field, model_validator
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.websockets import WebSocket

from serving import openapi, problems
from serving.admission import Admission, Workers
from serving.answer_headers import DOCS_PATH, AnswerHeaders
from serving.body import MAX_FORM_BYTES, Pace
from serving.chores import Chores
from serving.drain import Drain, Leave
from serving.envelope import Envelope
from serving.finished import Observer
from serving.flow import Taking
from serving.guard import Guard
from serving.jobs.jobs import Jobs
from serving.jobs.routes import job_router
from serving.keyring import KeyRing
from serving.once.once import Once
from serving.origins import Origin, Origins
from serving.owner_routes import owner_router
from serving.parts import Classify, ClassifyEach, Decode, PushObserver, Sessions, unobserved
from serving.quotas import Quotas
from serving.rates import Rates, RateSettings, rates_of
from serving.refusals import refuse
from serving.session_routes import session_router
from serving.streams import Streams, StreamSettings
from serving.threads import Threads
from serving.uploads.routes import UploadRoutes
from serving.uploads.uploads import Uploads
from serving.usage.ledger import Ledger
from serving.usage.metering import Metering
from serving.usage.used import Charge, uncharged
from serving.videos import Videos
from serving.waiting import Waiting
from serving.whole import Whole
from vidseq import __version__
from vidseq.config import Config, PositiveInt, PositiveSeconds
from vidseq.schemas import Models

METHODS = ("DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT")
JOB_THREADS = 4
NOT_HERE = "the service is not there: it starts, or stops"


class WebSettings(Config):
    """What requests may cost: so many videos at a time, and as many pushes. `max_arriving` is how many videos may be on
    their way or at work, `max_held_bytes` what the bodies of each kind may take together. No more videos wait for one
    answer than are labelled in `max_wait_seconds`, as it goes at the time; `min_waiting` may always wait.

    `body_timeout_seconds` runs from the headers to the last byte, `request_timeout_seconds` from there to the answer;
    of an answer in lines, from each line to the next. After `body_grace_seconds` a body is given up as soon as it has
    come more slowly, in the mean, than `min_body_bytes_per_second`.

    One key may have `key_share` of all places and bytes at once, and do in a time what `rates` says.

    `docs` shows the page of the API to everybody. `allowed_origins` are pages of other hosts, such as
    https://example.org, that may ask and read, over HTTP and WebSocket.
    """

    max_body_bytes: PositiveInt = 512 * 2**20
    max_held_bytes: PositiveInt = 2 * 2**30
    max_concurrent: PositiveInt = 64
    max_arriving: PositiveInt = 256
    max_wait_seconds: PositiveSeconds = 3.0
    min_waiting: PositiveInt = 8
    body_timeout_seconds: PositiveSeconds = 120.0
    body_grace_seconds: PositiveSeconds = 20.0
    min_body_bytes_per_second: PositiveInt = 8 * 1024
    request_timeout_seconds: PositiveSeconds = 120.0
    retry_after_seconds: PositiveSeconds = 1.0
    key_share: Annotated[float, Field(gt=0, le=1)] = 0.75
    rates: RateSettings = RateSettings()
    docs: bool = False
    allowed_origins: frozenset[Origin] = frozenset()
    streams: StreamSettings = StreamSettings()

    @property
    def pace(self) -> Pace:
        return Pace(self.body_timeout_seconds, self.body_grace_seconds, self.min_body_bytes_per_second)

    @model_validator(mode="after")
    def _one_body_fits(self) -> Self:
        if self.max_body_bytes > self.max_held_bytes:
            raise ValueError(f"max_body_bytes {self.max_body_bytes} is more than max_held_bytes {self.max_held_bytes}")
        for name in ("bytes_per_minute", "bytes_per_hour"):
            num_bytes = getattr(self.rates, name)
            if num_bytes is not None and num_bytes < self.max_body_bytes:
                raise ValueError(f"max_body_bytes {self.max_body_bytes} is more than {name} {num_bytes}")
        return self


def create_app(
    *,
    classify: Classify,
    classify_each: ClassifyEach | None = None,
    models: Callable[[], Models],
    sessions: Sessions | None,
    decode: Decode,
    once: Once | None = None,
    uploads: Uploads | None = None,
    jobs: Jobs | None = None,
    ledger: Ledger | None = None,
    chores: Chores | None = None,
    ready: Callable[[], str | None],
    metrics: Callable[[], bytes] | None,
    keys: KeyRing | None,
    settings: WebSettings,
    rates: Rates | None = None,
    observe: Observer | None = None,
    observe_push: PushObserver = unobserved,
) -> FastAPI:
    """Everything in one application.

    `models` answers from memory; where they are several, `classify_each` asks some of them together. `sessions` is None
    where the first cannot stream. `once` keeps the answers to requests that carry an Idempotency-Key, `uploads` files
    that come in pieces, `jobs` what is to be done with them later: all are refused without. `ledger` counts what each
    key uses; `chores` are done beside the requests. `ready` gives None, or the reason why not; it and `metrics`
    (Prometheus' text format; None where it is exported elsewhere) may block for a moment. With `keys`, what is below
    /v1 is for those who show one; with None it is open to all. `rates` counts what each key does; None counts here, as
    the settings say. `observe` is told of every request when it is over, `observe_push` of every push of a stream.
    """
    service = service_router(
        classify=classify,
        classify_each=classify_each,
        models=models,
        sessions=sessions,
        decode=decode,
        once=once,
        uploads=uploads,
        jobs=jobs,
        ledger=ledger,
        chores=chores,
        settings=settings,
        observe_push=observe_push,
    )
    control = control_router(ready=ready, metrics=metrics)
    return _assembled(
        service, control, keys=keys, rates=rates, prefix="/v1", settings=settings, observe=observe, charge=ledger
    )


def create_service_app(
    *,
    classify: Classify,
    classify_each: ClassifyEach | None = None,
    models: Callable[[], Models],
    sessions: Sessions | None,
    decode: Decode,
    once: Once | None = None,
    uploads: Uploads | None = None,
    jobs: Jobs | None = None,
    ledger: Ledger | None = None,
    chores: Chores | None = None,
    keys: KeyRing | None,
    settings: WebSettings,
    rates: Rates | None = None,
    observe: Observer | None = None,
    observe_push: PushObserver = unobserved,
    drain: Drain | None = None,
    prefix: str = "/v1",
) -> FastAPI:
    """What takes bodies and streams, until `drain`. `prefix` is "" where the server in front has taken it off."""
    service = service_router(
        classify=classify,
        classify_each=classify_each,
        models=models,
        sessions=sessions,
        decode=decode,
        once=once,
        uploads=uploads,
        jobs=jobs,
        ledger=ledger,
        chores=chores,
        settings=settings,
        observe_push=observe_push,
        prefix=prefix,
    )
    return _assembled(
        service,
        keys=keys,
        rates=rates,
        prefix=prefix,
        settings=settings,
        observe=observe,
        charge=ledger,
        drain=drain,
    )


def create_control_app(
    *,
    ready: Callable[[], str | None],
    metrics: Callable[[], bytes] | None,
    settings: WebSettings,
    observe: Observer | None = None,
) -> FastAPI:
    """What must answer while the service is full, to whoever asks: it tells of no caller and no video.

    What is the service's, below /v1, reaches it while the service is not there.
    """
    control = control_router(ready=ready, metrics=metrics)
    control.add_api_route("/v1/{rest:path}", _not_here, methods=list(METHODS), include_in_schema=False)
    control.add_api_websocket_route("/v1/{rest:path}", _no_stream_here)
    return _assembled(control, keys=None, rates=None, prefix="", settings=settings, observe=observe)


def service_router(
    *,
    classify: Classify,
    classify_each: ClassifyEach | None = None,
    models: Callable[[], Models],
    sessions: Sessions | None,
    decode: Decode,
    once: Once | None,
    uploads: Uploads | None,
    jobs: Jobs | None,
    ledger: Ledger | None,
    chores: Chores | None,
    settings: WebSettings,
    observe_push: PushObserver,
    prefix: str = "/v1",
) -> APIRouter:
    def places(max_requests: int, *, waiting: Waiting | None = None) -> Admission:
        return Admission(
            max_requests=max_requests,
            max_bytes=settings.max_held_bytes,
            max_body_bytes=settings.max_body_bytes,
            share=settings.key_share,
            retry_after_seconds=settings.retry_after_seconds,
            waiting=waiting,
        )

    admission = places(settings.max_concurrent)
    arriving = places(settings.max_arriving)
    workers = Workers(settings.max_concurrent)
    threads = Threads(JOB_THREADS, "jobs")
    files = UploadRoutes(
        uploads,
        arriving=arriving,
        pace=settings.pace,
        answer_timeout_seconds=settings.request_timeout_seconds,
    )

    @asynccontextmanager
    async def lifespan(app: object) -> AsyncIterator[None]:
        async with AsyncExitStack() as beside:
            for part in (workers, files, threads, once, chores):
                if part is not None:
                    await beside.enter_async_context(part.lifespan(app))
            yield

    router = APIRouter(prefix=prefix, lifespan=lifespan)
    videos = Videos(
        Whole(classify, classify_each),
        models=models,
        sessions=sessions,
        decode=decode,
        arriving=arriving,
        once=once,
        admission=admission,
        # Apart from those who stay for as long as they like, and say nothing of how fast work is done.
        waiting=places(
            settings.max_concurrent,
            waiting=Waiting(max_seconds=settings.max_wait_seconds, min_places=settings.min_waiting),
        ),
        workers=workers,
        max_body_bytes=settings.max_body_bytes,
        pace=settings.pace,
        answer_timeout_seconds=settings.request_timeout_seconds,
        observe_push=observe_push,
        charge=ledger or uncharged,
    )
    videos.add_to(router)
    router.include_router(
        session_router(
            sessions,
            models=models,
            admission=places(settings.max_concurrent),  # of their own: a push is not to wait behind uploads
            pace=settings.pace,
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
        allowed_origins=settings.allowed_origins,
        key_share=settings.key_share,
        observe_push=observe_push,
    )
    router.add_api_websocket_route("/streams", streams.serve)
    files.add_to(router)
    router.include_router(job_router(jobs, models=models, admission=arriving, pace=settings.pace, threads=threads))
    usage = None if ledger is None else ledger.table
    router.include_router(owner_router(usage=usage, sessions=sessions, once=once, uploads=uploads, jobs=jobs))
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
    service = service_router(
        classify=_described_only,
        models=_described_only,
        sessions=None,
        decode=_described_only,
        once=None,
        uploads=None,
        jobs=None,
        ledger=None,
        chores=None,
        settings=WebSettings(),
        observe_push=unobserved,
    )
    app.include_router(service)
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
