"""What a caller may ask of what is kept of him: what he has used, and to forget the rest. Knows not how it is kept.

GET    /v1/usage    -> UsagePage     day by day
DELETE /v1/data     -> Forgotten     live sessions, answers kept for idempotency keys, jobs and uploads

For the key that asks; one of scope admin sees the usage of all, and may name another. Usage is not forgotten: it holds
nothing of a video, and a bill rests on it.
"""

import asyncio
from dataclasses import asdict
from datetime import UTC, date, datetime, timedelta
from typing import Annotated

from fastapi import APIRouter, Query, Request

from serving import openapi
from serving.callers import owner_of, scopes_of
from serving.jobs.jobs import Jobs
from serving.keyring import ScopeMissing
from serving.once.once import Once
from serving.parts import Sessions
from serving.uploads.uploads import Uploads
from serving.usage.table import Day, UsageTable
from vidseq.errors import OptionError
from vidseq.schemas import Forgotten, UsageDay, UsagePage

DEFAULT_DAYS = 31
MAX_PAGE_DAYS = 1000
KEY_ID = r"^[0-9a-f]{12}$"
AFTER = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}/([0-9a-f]{12})?$"

Since = Annotated[date | None, Query(description="the first day, 2026-11-26 say (UTC); a month before `until`")]
Until = Annotated[date | None, Query(description="the last day; today if left out")]
KeyId = Annotated[str | None, Query(pattern=KEY_ID, description="of this key alone; of another than yours: admin")]
After = Annotated[str | None, Query(pattern=AFTER, description="`next` of the page before")]
Limit = Annotated[int, Query(ge=1, le=MAX_PAGE_DAYS, description="how many days of keys on one page")]


def owner_router(
    *,
    usage: UsageTable | None,
    sessions: Sessions | None,
    once: Once | None,
    uploads: Uploads | None,
    jobs: Jobs | None,
) -> APIRouter:
    """`usage` is None where nothing is counted; the others where nothing of that kind is kept."""
    router = APIRouter(tags=["owner"])

    @router.get("/usage", responses=openapi.problem_responses(403, 422, 500, 503))
    async def read_usage(
        request: Request,
        since: Since = None,
        until: Until = None,
        key: KeyId = None,
        after: After = None,
        limit: Limit = MAX_PAGE_DAYS,
    ) -> UsagePage:
        """What was used, by key and day. The last seconds are not in it yet."""
        if usage is None:
            raise OptionError("this service keeps no accounts")
        owner = _whose(request, key, all_by_default=True)
        last = until or datetime.now(UTC).date()
        first = since or last - timedelta(days=DEFAULT_DAYS - 1)
        if last < first:
            raise OptionError(f"until, {last}, is before since, {first}")
        days = await asyncio.to_thread(
            usage.days, since=first, until=last, owner=owner, after=_place(after), limit=limit + 1
        )
        more = len(days) > limit
        shown = days[:limit]
        return UsagePage(days=tuple(map(_told, shown)), next=f"{shown[-1].day}/{shown[-1].owner}" if more else None)

    @router.delete("/data", responses=openapi.problem_responses(403, 422, 500, 503))
    async def forget(request: Request, owner: KeyId = None) -> Forgotten:
        """Forget somebody's videos: all uploads and jobs, all live sessions, all answers kept to be given again.

        Streams that are open hear `session/not-found` at their next push, and whoever sends an upload
        `upload/not-found`; what is being labelled just now is answered, and not kept.
        """
        whose = _whose(request, owner, all_by_default=False)
        assert whose is not None
        if not whose:
            raise OptionError("whoever shows no key shares all with everybody: delete your sessions one by one")
        num_sessions = 0 if sessions is None else await sessions.forget_all(owner=whose)
        num_jobs = 0 if jobs is None else await asyncio.to_thread(jobs.forget, whose)
        num_uploads = 0 if uploads is None else await asyncio.to_thread(uploads.forget, whose)
        num_answers = 0 if once is None else await asyncio.to_thread(once.kept.forget, whose)
        return Forgotten(sessions=num_sessions, answers=num_answers, uploads=num_uploads, jobs=num_jobs)

    return router


def _whose(request: Request, asked: str | None, *, all_by_default: bool) -> str | None:
    """An owner, or None for all. Raises ScopeMissing, OptionError."""
    scopes = scopes_of(request)
    if scopes is None:  # open to all: nobody is somebody
        if asked is not None:
            raise OptionError("a service that is open has no keys to ask for")
        return None if all_by_default else owner_of(request)
    own = owner_of(request)
    if "admin" in scopes:
        return asked or (None if all_by_default else own)
    if asked not in (None, own):
        raise ScopeMissing("admin", scopes)
    return own


def _place(after: str | None) -> tuple[str, str] | None:
    if after is None:
        return None
    day, _, owner = after.partition("/")
    return day, owner


def _told(day: Day) -> UsageDay:
    return UsageDay(day=day.day, key=day.owner, **asdict(day.used))
