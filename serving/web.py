"""The routes of vidseq over HTTP, made from plain callables. Knows neither Ray nor torch nor how a video is read.

classify, models  ->  service_router   POST /v1/classify   GET /v1/models          behind uploads
ready, metrics    ->  control_router   GET /livez /readyz /metrics                 never behind one
                      create_app has both, create_service_app and create_control_app one each
"""

import functools
import threading
from collections.abc import Callable
from contextlib import ExitStack
from typing import Annotated, Any, BinaryIO, Protocol, Self

from fastapi import APIRouter, FastAPI, Query, Request
from pydantic import Field, model_validator
from starlette.exceptions import HTTPException
from starlette.responses import Response

from serving import openapi, problems
from serving.admission import Admission, Workers
from serving.body import receive_video
from serving.envelope import Envelope, Observer
from vidseq import __version__
from vidseq.config import Config, PositiveInt, Seconds
from vidseq.errors import ModelNotFound
from vidseq.schemas import Models, Prediction

PositiveSeconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Classify(Protocol):
    """What labels a video. It blocks and is called in threads, up to `max_concurrent` at once.

    `video` is a sealed memfd at its start; it is closed when the call ends. `model` is None or one of the names
    that `models` told. `stop` is set when nobody waits for the answer any more: look at it now and then, for a place
    is held until the call ends.

    Errors: the VideoErrors and OptionError of vidseq.errors are the caller's, all else is a 500.
    """

    def __call__(
        self,
        video: BinaryIO,
        *,
        start_seconds: float,
        end_seconds: float | None,
        top_k: int,
        model: str | None,
        stop: threading.Event,
    ) -> Prediction: ...


class WebSettings(Config):
    """What requests may cost. `max_held_bytes` bounds the memory that all bodies take together.

    `body_timeout_seconds` runs from the headers to the last byte, `request_timeout_seconds` from there to the answer.
    """

    max_body_bytes: PositiveInt = 512 * 2**20
    max_held_bytes: PositiveInt = 2 * 2**30
    max_concurrent: PositiveInt = 64
    body_timeout_seconds: PositiveSeconds = 120.0
    request_timeout_seconds: PositiveSeconds = 120.0
    retry_after_seconds: PositiveSeconds = 1.0
    docs: bool = True

    @model_validator(mode="after")
    def _one_body_fits(self) -> Self:
        if self.max_body_bytes > self.max_held_bytes:
            raise ValueError(f"max_body_bytes {self.max_body_bytes} is more than max_held_bytes {self.max_held_bytes}")
        return self


class ClassifyOptions(Config):
    """The query of POST /v1/classify."""

    start: Seconds = Field(default=0.0, description="where to begin, in seconds of the video's own time")
    end: Seconds | None = Field(default=None, description="where to stop; the end of the video if left out")
    top_k: int = Field(default=5, ge=1, le=100, description="how many actions to name")
    frames: bool = Field(default=True, description="answer with the label of each sampled frame")
    segments: bool = Field(default=True, description="answer with the segments of one label")
    model: str | None = Field(default=None, max_length=200, description="a name from /v1/models; the first if left out")

    @model_validator(mode="after")
    def _interval(self) -> Self:
        if self.end is not None and self.end <= self.start:
            raise ValueError(f"end {self.end} is not after start {self.start}")
        return self

    def asked_for(self, prediction: Prediction) -> Prediction:
        unasked = {name: () for name in ("frames", "segments") if not getattr(self, name)}
        return prediction.model_copy(update=unasked)


def create_app(
    *,
    classify: Classify,
    models: Callable[[], Models],
    ready: Callable[[], str | None],
    metrics: Callable[[], bytes] | None,
    settings: WebSettings,
    observe: Observer | None = None,
) -> FastAPI:
    """Everything in one application.

    `models` answers from memory. `ready` gives None, or the reason why not; it and `metrics` (Prometheus' text format;
    None where it is exported elsewhere) may block for a moment. `observe` is told of every request when it is over.
    """
    service = service_router(classify=classify, models=models, settings=settings)
    return _assembled(service, control_router(ready=ready, metrics=metrics), settings=settings, observe=observe)


def create_service_app(
    *,
    classify: Classify,
    models: Callable[[], Models],
    settings: WebSettings,
    observe: Observer | None = None,
    prefix: str = "/v1",
) -> FastAPI:
    """What takes bodies. `prefix` is "" where the server in front has taken it off."""
    service = service_router(classify=classify, models=models, settings=settings, prefix=prefix)
    return _assembled(service, settings=settings, observe=observe)


def create_control_app(
    *,
    ready: Callable[[], str | None],
    metrics: Callable[[], bytes] | None,
    settings: WebSettings,
    observe: Observer | None = None,
) -> FastAPI:
    """What must answer while the service is full."""
    return _assembled(control_router(ready=ready, metrics=metrics), settings=settings, observe=observe)


def service_router(
    *, classify: Classify, models: Callable[[], Models], settings: WebSettings, prefix: str = "/v1"
) -> APIRouter:
    admission = Admission(
        max_requests=settings.max_concurrent,
        max_bytes=settings.max_held_bytes,
        retry_after_seconds=settings.retry_after_seconds,
    )
    workers = Workers(settings.max_concurrent)
    router = APIRouter(prefix=prefix, tags=["service"], lifespan=workers.lifespan)

    @router.post(
        "/classify",
        response_model=Prediction,
        responses=openapi.problem_responses(400, 404, 408, 413, 415, 422, 429, 500, 504),
        openapi_extra={"requestBody": openapi.VIDEO_BODY},
    )
    async def classify_video(request: Request, options: Annotated[ClassifyOptions, Query()]) -> Response:
        """Label one video: its action, the label of each sampled frame, and segments in time."""
        _refuse_unknown(options.model, models())
        with ExitStack() as holding:
            hold = holding.enter_context(admission.place())
            received = await receive_video(
                request, max_bytes=settings.max_body_bytes, timeout_seconds=settings.body_timeout_seconds, hold=hold
            )
            video = holding.enter_context(received)
            work = functools.partial(_classified, classify, video, options)
            answer = await workers.run(
                work,
                holding=holding.pop_all(),  # the thread's from here on: it may outlive this request
                gone=_disconnected(request),
                timeout_seconds=settings.request_timeout_seconds,
            )
        return Response(answer, media_type="application/json")

    @router.get("/models", responses=openapi.problem_responses(500))
    async def list_models() -> Models:
        """The models that are loaded; the first answers where none is named."""
        return models()

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
    app = FastAPI(title="vidseq", version=__version__, summary="Labels for video in time.")
    app.include_router(service_router(classify=_described_only, models=_described_only, settings=WebSettings()))
    app.include_router(control_router(ready=_described_only, metrics=_described_only))
    return openapi.with_problem_schema(app.openapi())


def _described_only(*args: object, **options: object) -> Any:
    raise AssertionError("this application is there to be described")


def _assembled(*routers: APIRouter, settings: WebSettings, observe: Observer | None) -> FastAPI:
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
    app.add_middleware(Envelope, observe=observe)
    for router in routers:
        app.include_router(router)
    return app


def _refuse_unknown(model: str | None, loaded: Models) -> None:
    names = [info.name for info in loaded.models]
    if model is not None and model not in names:
        raise ModelNotFound(f"no model is named {model!r}; there are: {', '.join(names)}")


def _classified(classify: Classify, video: BinaryIO, options: ClassifyOptions, stop: threading.Event) -> bytes:
    """Runs in a thread, up to the JSON: that of a long video takes a while, too."""
    prediction = classify(
        video,
        start_seconds=options.start,
        end_seconds=options.end,
        top_k=options.top_k,
        model=options.model,
        stop=stop,
    )
    return options.asked_for(prediction).model_dump_json().encode()


async def _disconnected(request: Request) -> None:
    """Returns when the client goes. Only to be awaited after the body, for it would swallow pieces of it."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
