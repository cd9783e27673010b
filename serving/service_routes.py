"""The routes below /v1, made from plain parts. Knows neither Ray nor torch nor how a video is read.

classify, models   -> POST /v1/classify   GET /v1/models     videos.py
sessions, decode   -> WS /v1/streams      /v1/sessions/...   streams.py, session_routes.py
uploads, jobs      -> /v1/uploads/...     /v1/jobs/...       uploads/routes.py, jobs/routes.py
ledger, all        -> what there is of one key               owner_routes.py
"""

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from fastapi import APIRouter

from serving.admission import Admission, Workers
from serving.chores import Chores
from serving.jobs.jobs import Jobs
from serving.jobs.routes import job_router
from serving.once.once import Once
from serving.owner_routes import owner_router
from serving.parts import Classify, ClassifyEach, Decode, PushObserver, Sessions, unobserved
from serving.session_routes import session_router
from serving.streams import Streams
from serving.threads import Threads
from serving.uploads.routes import UploadRoutes
from serving.uploads.uploads import Uploads
from serving.usage.ledger import Ledger
from serving.usage.used import uncharged
from serving.videos import Videos
from serving.waiting import Waiting
from serving.web_settings import WebSettings
from serving.whole import Whole
from vidseq.schemas import Models

JOB_THREADS = 4


@dataclass(frozen=True)
class Parts:
    """What a service is made of; who asks for what is None is told that it is not there.

    Args:
        models: answers from memory. Where they are several, `classify_each` asks some of them together.
        sessions: None where the first model cannot stream.
        once: keeps the answers to requests that carry an Idempotency-Key.
        uploads: files that come in pieces; `jobs` what is to be done with them later.
        ledger: counts what each key uses.
        chores: what is done beside the requests.
        observe_push: is told of every push of a stream.
    """

    classify: Classify
    models: Callable[[], Models]
    decode: Decode
    classify_each: ClassifyEach | None = None
    sessions: Sessions | None = None
    once: Once | None = None
    uploads: Uploads | None = None
    jobs: Jobs | None = None
    ledger: Ledger | None = None
    chores: Chores | None = None
    observe_push: PushObserver = unobserved


def service_router(parts: Parts, *, settings: WebSettings, prefix: str = "/v1") -> APIRouter:
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
        parts.uploads,
        arriving=arriving,
        pace=settings.pace,
        answer_timeout_seconds=settings.request_timeout_seconds,
    )

    @asynccontextmanager
    async def lifespan(app: object) -> AsyncIterator[None]:
        async with AsyncExitStack() as beside:
            for part in (workers, files, threads, parts.once, parts.chores):
                if part is not None:
                    await beside.enter_async_context(part.lifespan(app))
            yield

    router = APIRouter(prefix=prefix, lifespan=lifespan)
    videos = Videos(
        Whole(parts.classify, parts.classify_each),
        models=parts.models,
        sessions=parts.sessions,
        decode=parts.decode,
        arriving=arriving,
        once=parts.once,
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
        observe_push=parts.observe_push,
        charge=parts.ledger or uncharged,
    )
    videos.add_to(router)
    router.include_router(
        session_router(
            parts.sessions,
            models=parts.models,
            admission=places(settings.max_concurrent),  # of their own: a push is not to wait behind uploads
            pace=settings.pace,
            answer_timeout_seconds=settings.request_timeout_seconds,
            observe_push=parts.observe_push,
        )
    )
    streams = Streams(
        parts.sessions,
        decode=parts.decode,
        models=parts.models,
        admission=admission,
        workers=workers,
        settings=settings.streams,
        allowed_origins=settings.allowed_origins,
        key_share=settings.key_share,
        observe_push=parts.observe_push,
    )
    router.add_api_websocket_route("/streams", streams.serve)
    files.add_to(router)
    router.include_router(
        job_router(parts.jobs, models=parts.models, admission=arriving, pace=settings.pace, threads=threads)
    )
    router.include_router(
        owner_router(
            usage=None if parts.ledger is None else parts.ledger.table,
            sessions=parts.sessions,
            once=parts.once,
            uploads=parts.uploads,
            jobs=parts.jobs,
        )
    )
    return router
