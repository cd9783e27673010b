"""Jobs as their owners see them: made, read, cancelled, deleted. Knows no HTTP, and not how they are done.

Every call is for an owner, and finds nothing of another's. They block.
"""

import os
import re
import zlib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, Row, Select, delete, exists, func, insert, select, tuple_, update

from serving.database.core import Database
from serving.database.errors import DatabaseDown
from serving.database.tables import deliveries, job_items, jobs
from serving.jobs.addresses import refuse_unsafe
from serving.jobs.asked import JobAsked
from serving.jobs.deleting import forget_jobs, sweep_jobs
from serving.jobs.errors import JobNotFound, TooManyItems, TooManyJobs
from serving.jobs.queue import end_job, release_uploads, sealed_name
from serving.jobs.settings import JobSettings
from serving.problems import AskedOtherwise
from serving.sealing import Vault
from serving.uploads.errors import StorageDown, UploadNotFound
from serving.uploads.uploads import Uploads
from vidseq.errors import OptionError
from vidseq.jobs import Delivery, DeliveryState, ItemState, Job, JobPage, JobResult, JobResults
from vidseq.schemas import Predictions, Problem

_ID = re.compile(r"job_[0-9a-f]{32}", re.ASCII)
MAX_PAGE_BYTES = 2**20  # of results, as they are kept: compressed to a fifth, or far less
# Of a job the first item is leased first.
begun = exists(
    select(1).where(job_items.c.job_id == jobs.c.id, job_items.c.position == 0, job_items.c.attempts > 0)
).label("begun")


@dataclass(frozen=True)
class Made:
    """`before`: the same request had made it before."""

    job: Job
    before: bool


class Jobs:
    """Thread-safe. Every method raises DatabaseDown; those that name a job raise JobNotFound."""

    def __init__(self, database: Database, vault: Vault, uploads: Uploads, settings: JobSettings) -> None:
        self.settings = settings
        self.uploads = uploads
        self._database = database
        self._vault = vault

    def create(
        self, owner: str, asked: JobAsked, *, key_sha256: bytes | None = None, asked_sha256: bytes | None = None
    ) -> Made:
        """Once this returns the job is on the disk, and outlives whatever happens. `key_sha256` makes it once.

        `asked_sha256` is that of what was sent, where `asked` says more.

        Raises:
            TooManyItems, TooManyJobs, OptionError, WebhookNotAllowed: it asks for more than the settings allow.
            AskedOtherwise: the key stands for another job.
            UploadNotFound, UploadIncomplete: one of its videos is not there.
        """
        self._refuse_too_much(asked)
        sha256 = asked_sha256 or asked.sha256()
        if (made := self.made_before(owner, key_sha256, sha256)) is not None:
            return made
        videos: list[str] = []
        try:
            for item in asked.items:
                videos.append(item.upload or self.uploads.add(owner, [item.clip or b""]).id)
            row = self._created(owner, asked, videos, {"key_sha256": key_sha256, "asked_sha256": sha256})
        except DatabaseDown:
            # It may have committed, and only the word of it be lost: the job would then stand without its clips. Where
            # it has not, their time ends by itself.
            raise
        except BaseException:
            self._delete_clips(owner, asked, videos)
            raise
        if row is not None:
            return Made(told(row), before=False)
        self._delete_clips(owner, asked, videos)
        made = self.made_before(owner, key_sha256, sha256)  # by a twin of this request, just now
        if made is None:
            raise JobNotFound("the job that the same request has made was deleted just now")
        return made

    def made_before(self, owner: str, key_sha256: bytes | None, asked_sha256: bytes) -> Made | None:
        """What a request with this key has made. Raises AskedOtherwise: another one."""
        if key_sha256 is None:
            return None
        which = select(jobs, begun).where(jobs.c.owner == owner, jobs.c.key_sha256 == key_sha256)
        with self._database.reading() as connection:
            row = connection.execute(which).one_or_none()
        if row is None:
            return None
        if row.asked_sha256 != asked_sha256:
            raise AskedOtherwise("this key was sent with another job: a new job has a new key")
        return Made(told(row), before=True)

    def get(self, owner: str, job_id: str) -> Job:
        with self._database.reading() as connection:
            return told(self._found(connection, owner, job_id))

    def page(self, owner: str, *, after: str | None, limit: int) -> JobPage:
        """The newest first, after the one that `next` of a page names."""
        with self._database.reading() as connection:
            now = self._database.now(connection)
            order = (jobs.c.created_at, jobs.c.id)
            which = select(jobs, begun).where(jobs.c.owner == owner, jobs.c.expires_at > now)
            if after is not None:
                created_at, _, job_id = after.partition("/")
                which = which.where(tuple_(*order) < (float(created_at), job_id))
            rows = connection.execute(which.order_by(*(column.desc() for column in order)).limit(limit + 1)).all()
        shown = rows[:limit]
        more = f"{shown[-1].created_at!r}/{shown[-1].id}" if len(rows) > limit else None
        return JobPage(jobs=tuple(map(told, shown)), next=more)

    def results(self, owner: str, job_id: str, *, after: int | None, limit: int) -> JobResults:
        """What came of its items, those that have not ended included, in the order of the job."""
        with self._database.reading() as connection:
            self._found(connection, owner, job_id)
            now = self._database.now(connection)
            mine = (job_items.c.job_id == job_id) & (job_items.c.position > (-1 if after is None else after))
            size = func.coalesce(func.length(job_items.c.answer), 0)
            sized = select(job_items.c.position, size).where(mine).order_by(job_items.c.position).limit(limit + 1)
            found = connection.execute(sized).all()
            shown = found[: _num_fitting([size for _, size in found[:limit]])]
            last = shown[-1].position if shown else -1
            rows = select(job_items).where(mine, job_items.c.position <= last).order_by(job_items.c.position)
            results = tuple(self._result(row, now) for row in connection.execute(rows))
        return JobResults(results=results, next=str(last) if len(found) > len(shown) else None)

    def deliveries(self, owner: str, job_id: str) -> tuple[Delivery, ...]:
        with self._database.reading() as connection:
            job = told(self._found(connection, owner, job_id))
            which = select(deliveries).where(deliveries.c.job_id == job_id).order_by(deliveries.c.created_at)
            rows = connection.execute(which).all()
        return tuple(_delivery(row, f"job.{job.state}") for row in rows)

    def cancel(self, owner: str, job_id: str) -> Job:
        """What has not ended never will; a job that has ended stays as it is."""
        with self._database.writing() as connection:
            row = self._found(connection, owner, job_id, lock=True)
            if row.end_state is None:
                going_on = (job_items.c.job_id == job_id) & job_items.c.due_at.is_not(None)
                ended = {"claim": None, "due_at": None, "end_state": "cancelled"}
                num_cancelled = connection.execute(update(job_items).where(going_on).values(ended)).rowcount
                counted = update(jobs).where(jobs.c.id == job_id).values(num_cancelled=num_cancelled)
                connection.execute(counted)
                end_job(
                    connection,
                    job_id,
                    end="cancelled",
                    now=self._database.now(connection),
                    uploads_kept_seconds=self.settings.uploads_kept_seconds,
                )
            return told(self._found(connection, owner, job_id))

    def delete(self, owner: str, job_id: str) -> None:
        """The job, its results, and what was to be sent of it; its videos go unless another job needs them."""
        with self._database.writing() as connection:
            self._found(connection, owner, job_id, lock=True)
            release_uploads(connection, job_id, at=self._database.now(connection))
            connection.execute(delete(jobs).where(jobs.c.id == job_id))

    def forget(self, owner: str) -> int:
        """Delete all jobs of an owner; how many that were."""
        return forget_jobs(self._database, owner)

    def sweep(self) -> int:
        """Delete those whose time to live is over."""
        return sweep_jobs(self._database)

    def _refuse_too_much(self, asked: JobAsked) -> None:
        num_items = len(asked.items)
        if num_items > self.settings.max_items:
            raise TooManyItems(f"the job has {num_items:,} items; at most {self.settings.max_items:,} are allowed")
        if asked.webhook is not None:
            refuse_unsafe(asked.webhook.url, allow_private=self.settings.webhooks.allow_private)
        seconds, most = asked.time_to_live_seconds, self.settings.max_time_to_live_seconds
        if seconds is not None and seconds > most:
            raise OptionError(f"time_to_live_seconds is {seconds:,.10g}; at most {most:,.10g} are allowed")

    def _refuse_too_many(self, connection: Connection, owner: str, num_items: int) -> None:
        num_kept = select(func.coalesce(func.sum(jobs.c.num_items), 0)).where(jobs.c.owner == owner)
        if int(connection.execute(num_kept).scalar_one()) + num_items > self.settings.max_kept_items:
            raise TooManyJobs(
                f"the jobs of this key have {self.settings.max_kept_items:,} items together, which is the most: delete "
                "those that are done with"
            )
        unfinished = select(func.count()).where(jobs.c.owner == owner, jobs.c.end_state.is_(None))
        if connection.execute(unfinished).scalar_one() >= self.settings.max_unfinished:
            raise TooManyJobs(f"{self.settings.max_unfinished:,} jobs have not ended yet, the most of one key")

    def _created(self, owner: str, asked: JobAsked, videos: Sequence[str], once: dict[str, Any]) -> Row[Any] | None:
        """None: there is one of this key already."""
        with self._database.writing(durably=True) as connection:
            now = self._database.now(connection)
            self._refuse_too_many(connection, owner, len(asked.items))
            job = self._row(owner, asked, now) | once
            added = self._database.insert(jobs).values(job).on_conflict_do_nothing().returning(jobs.c.id)
            if connection.execute(added).one_or_none() is None:
                return None
            self.uploads.keep_until(connection, owner, set(videos), job["expires_at"])
            connection.execute(insert(job_items), _item_rows(job["id"], asked, videos, now))
            return connection.execute(_read(owner, job["id"], now)).one()

    def _delete_clips(self, owner: str, asked: JobAsked, videos: Sequence[str]) -> None:
        """Those that have come with a job that is none."""
        for item, upload_id in zip(asked.items, videos, strict=False):
            if item.upload is None:
                with suppress(UploadNotFound, DatabaseDown, StorageDown):  # then its time ends by itself
                    self.uploads.delete(owner, upload_id)

    def _row(self, owner: str, asked: JobAsked, now: float) -> dict[str, Any]:
        job_id = f"job_{os.urandom(16).hex()}"
        webhook = asked.webhook
        lives_seconds = asked.time_to_live_seconds or self.settings.time_to_live_seconds
        return {
            "id": job_id,
            "owner": owner,
            "options": asked.options.model_dump_json(),
            "num_items": len(asked.items),
            "num_succeeded": 0,
            "num_failed": 0,
            "num_cancelled": 0,
            "webhook_url": None if webhook is None else webhook.url,
            "webhook_secret": None if webhook is None else self._sealed(job_id, webhook.secret.get_secret_value()),
            "created_at": now,
            "expires_at": now + lives_seconds,
        }

    def _sealed(self, job_id: str, secret: str) -> bytes:
        return self._vault.seal(secret.encode(), name=secret_name(job_id))

    def _found(self, connection: Connection, owner: str, job_id: str, *, lock: bool = False) -> Row[Any]:
        if not _ID.fullmatch(job_id):
            raise JobNotFound("there is no such job: ids look like job_0123...")
        which = _read(owner, job_id, self._database.now(connection))
        row = connection.execute(which.with_for_update(of=jobs) if lock else which).one_or_none()
        if row is None:
            raise JobNotFound("there is no such job: it has expired, was deleted, or never was")
        return row

    def _result(self, row: Row[Any], now: float) -> JobResult:
        state: ItemState = row.end_state or ("queued" if row.claim is None or row.due_at <= now else "running")
        outcome: dict[str, Any] = {}
        if row.answer is not None:
            body = zlib.decompress(self._vault.open(row.answer, name=sealed_name(row.job_id, row.position)))
            if row.end_state == "succeeded":
                outcome["predictions"] = Predictions.model_validate_json(body).predictions
            else:
                outcome["problem"] = Problem.model_validate_json(body)
        return JobResult(position=row.position, custom_id=row.custom_id, state=state, attempts=row.attempts, **outcome)


def _num_fitting(sizes: Sequence[int]) -> int:
    """How many of these fit on one page, at least one."""
    num_bytes = 0
    for number, size in enumerate(sizes):
        num_bytes += size
        if num_bytes > MAX_PAGE_BYTES and number:
            return number
    return len(sizes)


def secret_name(job_id: str) -> str:
    """Under which a webhook's secret is sealed."""
    return f"webhook of job {job_id}"


def _read(owner: str, job_id: str, now: float) -> Select[Any]:
    return select(jobs, begun).where(jobs.c.id == job_id, jobs.c.owner == owner, jobs.c.expires_at > now)


def _item_rows(job_id: str, asked: JobAsked, videos: Sequence[str], now: float) -> list[dict[str, Any]]:
    return [
        {
            "job_id": job_id,
            "position": position,
            "custom_id": item.custom_id,
            "upload_id": video,
            "attempts": 0,
            "due_at": now,
        }
        for position, (item, video) in enumerate(zip(asked.items, videos, strict=True))
    ]


def told(row: Row[Any]) -> Job:
    """A row of `jobs`, with `begun`."""
    return Job(
        id=row.id,
        state=row.end_state or ("running" if row.begun else "queued"),
        num_items=row.num_items,
        num_succeeded=row.num_succeeded,
        num_failed=row.num_failed,
        num_cancelled=row.num_cancelled,
        created_at=_date(row.created_at),
        finished_at=None if row.finished_at is None else _date(row.finished_at),
        expires_at=_date(row.expires_at),
        webhook_url=row.webhook_url,
    )


def _delivery(row: Row[Any], type: str) -> Delivery:
    state: DeliveryState = "pending"
    if row.delivered_at is not None:
        state = "delivered"
    elif row.due_at is None:
        state = "failed"
    return Delivery(
        id=row.id,
        type=type,
        state=state,
        attempts=row.attempts,
        status=row.status,
        reason=row.reason,
        created_at=_date(row.created_at),
        next_attempt_at=None if row.due_at is None else _date(row.due_at),
    )


def _date(unix_seconds: float) -> datetime:
    return datetime.fromtimestamp(unix_seconds, UTC)
