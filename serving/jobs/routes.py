"""Jobs over HTTP: made, looked at, cancelled, deleted. Knows not how they are kept or done.

POST   /v1/jobs                    JobAsked -> 202 Job        once on the disk; with an Idempotency-Key, once at all
GET    /v1/jobs                             -> JobPage        the newest first
GET    /v1/jobs/{id}                        -> Job
GET    /v1/jobs/{id}/results                -> JobResults     also while it goes on
GET    /v1/jobs/{id}/deliveries             -> Deliveries     what was sent to its webhook
POST   /v1/jobs/{id}/cancel                 -> Job
DELETE /v1/jobs/{id}                        -> 204
"""

import hashlib
from collections.abc import Callable
from functools import partial
from typing import Annotated

from fastapi import APIRouter, Path, Query, Request
from starlette.responses import Response

from serving import openapi
from serving.admission import Admission
from serving.body import Pace, receive_bytes
from serving.callers import is_limited, key_of, models_asked, owner_of
from serving.jobs.asked import JobAsked
from serving.jobs.jobs import Jobs
from serving.once.question import REPLAYED, key_in
from serving.threads import Threads
from vidseq.errors import OptionError
from vidseq.jobs import Deliveries, Job, JobPage, JobResults
from vidseq.schemas import Models

MAX_ASKED_BYTES = 16 * 2**20  # 10,000 items by id take three of them
DEFAULT_PAGE, MAX_PAGE = 100, 1000
DEFAULT_RESULTS, MAX_RESULTS = 20, 100  # each may have thousands of labels

JobId = Annotated[str, Path(max_length=64)]
After = Annotated[
    str | None, Query(pattern=r"^[0-9]{1,12}\.[0-9]{1,9}/job_[0-9a-f]{32}$", description="`next` of the page before")
]
AfterResult = Annotated[int | None, Query(ge=0, lt=2**31, description="`next` of the page before")]
Limit = Annotated[int, Query(ge=1, le=MAX_PAGE, description="how many jobs on one page")]
LimitResults = Annotated[int, Query(ge=1, le=MAX_RESULTS, description="how many results on one page")]


def job_router(
    jobs: Jobs | None, *, models: Callable[[], Models], admission: Admission, pace: Pace, threads: Threads
) -> APIRouter:
    """`jobs` is None where none are kept; every request is then told so. Calls that block are made in `threads`."""
    router = APIRouter(prefix="/jobs", tags=["jobs"])

    def kept() -> Jobs:
        if jobs is None:
            raise OptionError("this service keeps no jobs: send videos to POST /v1/classify")
        return jobs

    @router.post(
        "",
        status_code=202,
        responses=openapi.problem_responses(400, 403, 404, 408, 409, 413, 415, 422, 429, 500, 503, 507),
        openapi_extra={
            "requestBody": openapi.json_body(JobAsked),
            "parameters": [openapi.CONTENT_DIGEST, openapi.IDEMPOTENCY_KEY],
        },
    )
    async def create(request: Request, response: Response) -> Job:
        """Hand over videos, to be labelled when it is their turn. With this answer the job is on the disk.

        Videos are uploads that are complete (`POST /v1/uploads`), or small ones in the body itself, as base64. A
        webhook is told when the job has ended; who has none asks `GET /v1/jobs/{id}`.
        """
        key = key_in(request.headers)
        with admission.place(key_of(request)) as hold:
            body = await receive_bytes(request, ["application/json"], max_bytes=MAX_ASKED_BYTES, pace=pace, hold=hold)
            asked, sha256 = await threads.call(partial(_read, body))
            owner = owner_of(request)
            key_sha256 = None if key is None else hashlib.sha256(key.encode()).digest()
            # Before anything is looked up that may have changed since the request was first sent.
            made = await threads.call(partial(kept().made_before, owner, key_sha256, sha256))
            if made is None:
                named = [info.name for info in models_asked(request, asked.options.models, models())]
                request.state.facts.model = ",".join(named)
                if asked.options.models or is_limited(request):  # later on nobody knows what the key may ask
                    asked = asked.model_copy(update={"options": asked.options.of_models(named)})
                create = partial(kept().create, owner, asked, key_sha256=key_sha256, asked_sha256=sha256)
                made = await threads.call(create)
        request.state.facts.replayed = made.before
        if made.before:
            response.headers[REPLAYED] = "true"
        response.headers["Location"] = f"/v1/jobs/{made.job.id}"
        return made.job

    @router.get("", responses=openapi.problem_responses(422, 500, 503))
    async def page(request: Request, after: After = None, limit: Limit = DEFAULT_PAGE) -> JobPage:
        """Jobs of this key, the newest first."""
        return await threads.call(partial(kept().page, owner_of(request), after=after, limit=limit))

    @router.get("/{job}", responses=openapi.problem_responses(404, 422, 500, 503))
    async def look(request: Request, job: JobId) -> Job:
        """How far a job is."""
        return await threads.call(partial(kept().get, owner_of(request), job))

    @router.get("/{job}/results", response_model=JobResults, responses=openapi.problem_responses(404, 422, 500, 503))
    async def results(
        request: Request, job: JobId, after: AfterResult = None, limit: LimitResults = DEFAULT_RESULTS
    ) -> Response:
        """What came of each video, in the order of the job; also while it goes on."""
        ask = partial(kept().results, owner_of(request), job, after=after, limit=limit)
        # Up to the JSON in a thread: that of long videos takes a while.
        return Response(await threads.call(lambda: ask().model_dump_json()), media_type="application/json")

    @router.get("/{job}/deliveries", responses=openapi.problem_responses(404, 422, 500, 503))
    async def deliveries(request: Request, job: JobId) -> Deliveries:
        """What was sent to the job's webhook, how often, and what its server said."""
        return Deliveries(deliveries=await threads.call(partial(kept().deliveries, owner_of(request), job)))

    @router.post("/{job}/cancel", responses=openapi.problem_responses(404, 422, 500, 503))
    async def cancel(request: Request, job: JobId) -> Job:
        """End a job now: what has been labelled stays, the rest never will be. One that has ended stays as it is."""
        return await threads.call(partial(kept().cancel, owner_of(request), job))

    @router.delete("/{job}", status_code=204, responses=openapi.problem_responses(404, 422, 500, 503))
    async def delete(request: Request, job: JobId) -> None:
        """Leave nothing of a job, nor of its videos, unless another job needs them."""
        await threads.call(partial(kept().delete, owner_of(request), job))

    return router


def _read(body: bytes) -> tuple[JobAsked, bytes]:
    """What is asked for, and its hash; of many clips both take a while."""
    asked = JobAsked.read(body)
    return asked, asked.sha256()
