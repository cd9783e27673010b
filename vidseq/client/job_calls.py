"""What a client asks of jobs, and what it takes for a video of one. Does no I/O."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypedDict, cast

from vidseq.client.answers import AnswerT
from vidseq.client.calls import Call, checked_idempotency_key
from vidseq.client.uploads import Source
from vidseq.errors import OptionError, SourceNotFound, StatusError
from vidseq.jobs import Deliveries, Job, JobPage, JobResults
from vidseq.schemas import Answer, Upload
from vidseq.webhooks import key_of

PAGE, RESULTS_PAGE = 100, 20
_NEVER = (404, 413, 422)  # of a model or an upload that is not there; too large; wrong

Item = tuple[Upload, str | None]
"""A video of a job that is with the service, and what its caller calls it."""


@dataclass(frozen=True)
class Webhook:
    """Who is told when a job has ended, over HTTPS: a message that is signed with `secret` (`whsec_...`).

    Raises:
        OptionError: the secret is none.
    """

    url: str
    secret: str = field(repr=False)

    def __post_init__(self) -> None:
        key_of(self.secret)


@dataclass(frozen=True)
class Video:
    """A video of a job: a source that is uploaded first, or what was uploaded before; and what its caller calls it."""

    source: Source | Upload
    custom_id: str | None = None


def videos_of(given: Sequence[Source | Upload | Video]) -> list[Video]:
    """Looked at before the first of them is sent, which may take long.

    Raises:
        OptionError: there is none, or two have one name.
        SourceNotFound: one is no file.
    """
    if isinstance(given, str | bytes) or not given:
        raise OptionError("a job is of several videos, or of one: name them in a list")
    videos = [video if isinstance(video, Video) else Video(video) for video in given]
    seen = set[str]()
    for video in videos:
        if video.custom_id is not None and video.custom_id in seen:
            raise OptionError(f"custom_id {video.custom_id!r} stands for more than one video")
        seen |= {video.custom_id or ""}
        if isinstance(video.source, str | Path) and not Path(video.source).is_file():
            raise SourceNotFound(f"there is no file {str(video.source)!r}")
    return videos


class Asked(TypedDict, total=False):
    """What may be asked of a job, for all of its videos, as of `classify`; with several `models`, a prediction of each.

    `webhook` is told when the whole job has ended. After `time_to_live_seconds` from now (a week, if the service says
    nothing else) the job is deleted with its results. With an `idempotency_key` of yours another process gets the job
    that was made with it.
    """

    start_seconds: float
    end_seconds: float
    top_k: int
    frames: bool
    segments: bool
    models: Sequence[str]
    webhook: Webhook
    time_to_live_seconds: float
    idempotency_key: str


OPTIONS = {
    "start_seconds": "start",
    "end_seconds": "end",
    "top_k": "top_k",
    "frames": "frames",
    "segments": "segments",
    "models": "model",
}


def create_call(answer: type[AnswerT], items: Sequence[Item], asked: Asked) -> Call[AnswerT]:
    given = cast(dict[str, Any], asked)
    body: dict[str, Any] = {
        "items": [
            {"upload": upload.id} | ({} if custom_id is None else {"custom_id": custom_id})
            for upload, custom_id in items
        ],
        "options": {OPTIONS[name]: value for name, value in given.items() if name in OPTIONS and value != ()},
    }
    if (webhook := asked.get("webhook")) is not None:
        body["webhook"] = {"url": webhook.url, "secret": webhook.secret}
    if (seconds := asked.get("time_to_live_seconds")) is not None:
        body["time_to_live_seconds"] = seconds
    key = checked_idempotency_key(asked.get("idempotency_key"))
    return Call("POST", "v1/jobs", answer, json=json.dumps(body).encode(), idempotency_key=key)


def left_over(error: StatusError, made: Sequence[Upload]) -> Sequence[Upload]:
    """Of the uploads that were `made` for a job those that nobody will ever need: POST /v1/jobs failed with `error`.

    Of other failures (the request is still running, the key is not good any more, the service is full) there is none:
    an attempt before, whose answer was lost, may have made the job. The service looks for its answer before it looks
    at what was asked.
    """
    return made if error.status in _NEVER else ()


def get_call(answer: type[AnswerT], job: Job | str) -> Call[AnswerT]:
    return Call("GET", path_of(job), answer)


def cancel_call(answer: type[AnswerT], job: Job | str) -> Call[AnswerT]:
    return Call("POST", f"{path_of(job)}/cancel", answer)


def delete_call(job: Job | str) -> Call[Answer]:
    return Call("DELETE", path_of(job), Answer, if_gone=Answer())


def page_call(after: str | None) -> Call[JobPage]:
    return Call("GET", "v1/jobs", JobPage, params=_page(after, PAGE))


def results_call(job: Job | str, after: str | None) -> Call[JobResults]:
    return Call("GET", f"{path_of(job)}/results", JobResults, params=_page(after, RESULTS_PAGE))


def deliveries_call(job: Job | str) -> Call[Deliveries]:
    return Call("GET", f"{path_of(job)}/deliveries", Deliveries)


def path_of(job: Job | str) -> str:
    """Raises OptionError: no id of a job."""
    job_id = job if isinstance(job, str) else job.id
    if not job_id.removeprefix("job_").isalnum():
        raise OptionError(f"{job_id[:50]!r} is not the id of a job: they look like job_0123...")
    return f"v1/jobs/{job_id}"


def _page(after: str | None, limit: int) -> dict[str, str | list[str]]:
    page: dict[str, str | list[str]] = {"limit": str(limit)}
    return page if after is None else page | {"after": after}
