"""Whose turn it is, who labels it, and how a job ends: rows of the database. Knows no HTTP; its calls block.

    due ──lease──> a Leased: label it      renew it while you do, then finish, or put it back
     ^                 │
     └── put_back, or the lease has run out: its holder has died or stalled

A lease is by the clock of the database, and has a token: only the holder of the token in the row can end it, so that of
several executions one result is ever seen. Of several jobs, one item each is due before the second of any.

Who changes a job locks its row first, then those of its items; a lease locks items alone, and waits for nobody.
"""

import json
import os
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import ColumnElement, Connection, exists, func, insert, select, update

from serving.database.core import Database
from serving.database.tables import deliveries, job_items, jobs, uploads
from serving.jobs.settings import JobSettings
from serving.once.kept import Answer
from serving.sealing import Vault

End = Literal["succeeded", "failed", "cancelled"]
_items = job_items.c


@dataclass(frozen=True)
class Leased:
    """An item whose turn it is. `options` are those of the job; `attempts` counts this one, too."""

    job_id: str
    position: int
    owner: str
    upload_id: str
    options: dict[str, Any]
    attempts: int
    token: bytes


@dataclass(frozen=True)
class Crash:
    """What came of an item that was begun, and has no answer; `reason` is a sentence for who has made the job."""

    reason: str


@dataclass(frozen=True)
class Later:
    """It was not begun, for reasons that have nothing to do with it: it is due again after so long."""

    after_seconds: float


@dataclass(frozen=True)
class Result:
    """What came of an item, as it is kept: compressed, and sealed in its place."""

    end: Literal["succeeded", "failed"]
    sealed: bytes

    @classmethod
    def of(cls, answer: Answer, vault: Vault, *, job_id: str, position: int) -> "Result":
        """`answer` is Predictions, or a Problem."""
        sealed = vault.seal(zlib.compress(answer.body, 1), name=sealed_name(job_id, position))
        return cls("succeeded" if answer.status == 200 else "failed", sealed)


Outcome = Result | Crash | Later


class Queue:
    """Thread-safe. Every method raises DatabaseDown."""

    def __init__(self, database: Database, settings: JobSettings) -> None:
        self.settings = settings
        self._database = database
        # So often begun before, an item has one attempt more. Where all have but one, it is no suspect's.
        self._last_after = max(1, settings.max_attempts - 1)

    def lease(
        self, most: int, *, suspected: bool = False, last: bool = True, held: Sequence[Leased] = ()
    ) -> list[Leased]:
        """Up to so many items that are due, now the caller's for `lease_seconds`; nobody waits for them.

        Those that were never begun, or with `suspected` those that were, and did not end: of these first those that
        were begun most often, and without `last` none that has no attempt after this one. None of those that the
        caller has `held` for longer than their leases, and nobody has taken over: he is at work on them.
        """
        if not self._any_due():  # which is nearly always so, and reading holds up nobody
            return []
        due = select(job_items, jobs.c.owner, jobs.c.options).join(jobs, jobs.c.id == _items.job_id)
        with self._database.writing() as connection:
            now = self._database.now(connection)
            others = _items.claim.is_(None) | _items.claim.not_in([item.token for item in held])
            which = due.where(_items.due_at <= now, jobs.c.expires_at > now, others)
            if suspected:
                which = which.where(_items.attempts > 0).order_by(_items.attempts.desc())
            else:
                which = which.where(_items.attempts == 0)
            if not last:
                which = which.where(_items.attempts < self._last_after)
            which = which.order_by(_items.position, _items.due_at)
            rows = connection.execute(which.limit(most).with_for_update(of=job_items, skip_locked=True)).all()
            leased = [
                Leased(
                    job_id=row.job_id,
                    position=row.position,
                    owner=row.owner,
                    upload_id=row.upload_id,
                    options=json.loads(row.options),
                    attempts=row.attempts + 1,
                    token=os.urandom(16),
                )
                for row in rows
            ]
            for item in leased:
                taken = {
                    "attempts": item.attempts,
                    "claim": item.token,
                    "due_at": now + self.settings.lease_seconds,
                }
                connection.execute(update(job_items).where(_is(item)).values(taken))
        return leased

    def renew(self, held: Sequence[Leased]) -> list[Leased]:
        """They are the caller's for `lease_seconds` from now; those that are not his any more."""
        tokens = [item.token for item in held]
        with self._database.writing() as connection:
            ends_at = self._database.now(connection) + self.settings.lease_seconds
            # Whoever has locked one of them ends it just now: nobody waits for him here, holding others.
            mine = select(_items.claim).where(_items.claim.in_(tokens)).with_for_update(skip_locked=True)
            found = set(connection.execute(mine).scalars())
            connection.execute(update(job_items).where(_items.claim.in_(found)).values(due_at=ends_at))
            standing = set(connection.execute(select(_items.claim).where(_items.claim.in_(tokens))).scalars())
        return [item for item in held if item.token not in standing]

    def finish(self, item: Leased, result: Result) -> bool:
        """This is the result of the item from now on, once and for all. False: it was not the caller's any more.

        The last item ends the job, and tells its webhook.
        """
        end = result.end
        with self._database.writing() as connection:
            if connection.execute(select(jobs.c.id).where(_job(item)).with_for_update()).one_or_none() is None:
                return False
            ended = {"claim": None, "due_at": None, "end_state": end, "answer": result.sealed}
            held = _is(item) & (_items.claim == item.token)
            if connection.execute(update(job_items).where(held).values(ended)).rowcount != 1:
                return False
            counted = jobs.c[f"num_{end}"]
            row = connection.execute(
                update(jobs)
                .where(_job(item))
                .values({counted: counted + 1})
                .returning(jobs.c.num_items, jobs.c.num_succeeded, jobs.c.num_failed, jobs.c.end_state)
            ).one()
            if row.end_state is None and row.num_succeeded + row.num_failed == row.num_items:
                end_job(
                    connection,
                    item.job_id,
                    end="failed" if row.num_failed else "succeeded",
                    now=self._database.now(connection),
                    uploads_kept_seconds=self.settings.uploads_kept_seconds,
                )
        return True

    def put_back(self, item: Leased, *, after_seconds: float = 0.0, counts: bool = True) -> None:
        """It was not labelled: it is due again. Where that was nobody's fault, the attempt does not count."""
        with self._database.writing() as connection:
            due_at = self._database.now(connection) + after_seconds
            attempts = item.attempts if counts else item.attempts - 1
            connection.execute(
                update(job_items)
                .where(_is(item) & (_items.claim == item.token))
                .values(claim=None, due_at=due_at, attempts=attempts)
            )

    def suspicion(self) -> Literal["none", "some", "last"]:
        """Whether one of the items that are due was begun before and did not end, or has even its last attempt left."""
        if not self._any_due():
            return "none"
        which = select(func.max(_items.attempts)).join(jobs, jobs.c.id == _items.job_id).where(_items.attempts > 0)
        with self._database.reading() as connection:
            now = self._database.now(connection)
            most = connection.execute(which.where(_items.due_at <= now, jobs.c.expires_at > now)).scalar_one()
        if most is None:
            return "none"
        return "some" if most < self._last_after else "last"

    def is_last(self, item: Leased) -> bool:
        """Whether it was begun before, and will not be again."""
        return item.attempts > self._last_after

    def _any_due(self) -> bool:
        with self._database.reading() as connection:
            due = select(_items.job_id).where(_items.due_at <= self._database.now(connection)).limit(1)
            return connection.execute(due).one_or_none() is not None


def end_job(connection: Connection, job_id: str, *, end: End, now: float, uploads_kept_seconds: float) -> None:
    """All of its items have ended; the caller holds its row."""
    release_uploads(connection, job_id, at=now + uploads_kept_seconds)
    ended = update(jobs).where(jobs.c.id == job_id).values(end_state=end, finished_at=now)
    row = connection.execute(ended.returning(jobs.c.webhook_url)).one()
    if row.webhook_url is not None:
        message = {"id": f"msg_{os.urandom(16).hex()}", "job_id": job_id, "attempts": 0, "due_at": now}
        connection.execute(insert(deliveries).values(message | {"created_at": now}))


def release_uploads(connection: Connection, job_id: str, *, at: float) -> None:
    """A job needs its videos no longer: they go at this Unix time, unless another job that goes on has them, too.

    Locked first, in the order in which all lock them: a statement that waited would not see the items of a job that was
    made meanwhile.
    """
    mine = uploads.c.upload_id.in_(select(_items.upload_id).where(_items.job_id == job_id))
    connection.execute(select(uploads.c.upload_id).where(mine).order_by(uploads.c.upload_id).with_for_update())
    needed = exists().where(
        _items.upload_id == uploads.c.upload_id, _items.job_id != job_id, _items.due_at.is_not(None)
    )
    connection.execute(update(uploads).where(mine, ~needed, uploads.c.expires_at > at).values(expires_at=at))


def sealed_name(job_id: str, position: int) -> str:
    """Under which an item's answer is sealed: none can be put in the place of another."""
    return f"result {position} of job {job_id}"


def _is(item: Leased) -> ColumnElement[bool]:
    return (_items.job_id == item.job_id) & (_items.position == item.position)


def _job(item: Leased) -> ColumnElement[bool]:
    return jobs.c.id == item.job_id
