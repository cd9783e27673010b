"""Who executes a request with a key, and what was answered: rows of the database. Knows no HTTP; its calls block.

    claim ──> a Claim: execute it        renew it while you do, then keep or release
          ──> an Answer: give it again
          ──> StillRunning, AskedOtherwise

A claim is a lease, by the clock of the database. One that has run out, because its holder has died or stalled, is
taken over by whoever asks next, and gets another token. Only the holder of the token in the row can keep an answer, so
that of several executions one answer is ever seen. Answers are compressed and sealed (serving.sealing), each in its
place.
"""

import os
import zlib
from dataclasses import dataclass

from sqlalchemy import ColumnElement, Row, delete, func, select, tuple_, update

from serving.database.core import Database
from serving.database.errors import DatabaseDown
from serving.database.tables import idempotent_answers
from serving.once.question import Question
from serving.problems import AskedOtherwise, StillRunning
from serving.sealing import Vault
from vidseq.config import Config, PositiveInt, PositiveSeconds

SWEPT_AT_ONCE = 200
_rows = idempotent_answers.c


class OnceSettings(Config):
    """How long answers are kept, and which: compressed, as they are kept, they have at most `max_answer_bytes`.

    A claim is renewed three times in `lease_seconds`; whoever asks again after a replica has died waits for so long.
    """

    kept_seconds: PositiveSeconds = 24 * 3600.0
    max_answer_bytes: PositiveInt = 8 * 2**20
    lease_seconds: PositiveSeconds = 10.0
    sweep_seconds: PositiveSeconds = 60.0


@dataclass(frozen=True)
class Answer:
    """A final one, as it was given: JSON of a status."""

    status: int
    body: bytes


@dataclass(frozen=True)
class Claim:
    question: Question
    token: bytes


@dataclass(frozen=True)
class Held:
    num_requests: int
    num_bytes: int


class ClaimLost(Exception):
    """Somebody else has taken it over, or its owner's rows were deleted. Never seen by a caller."""


class Kept:
    """Thread-safe. Every method raises DatabaseDown."""

    def __init__(self, database: Database, vault: Vault, settings: OnceSettings) -> None:
        self.settings = settings
        self._database = database
        self._vault = vault

    def claim(self, question: Question) -> Claim | Answer:
        """Raises StillRunning, AskedOtherwise."""
        token = os.urandom(16)
        with self._database.writing() as connection:
            now = self._database.now(connection)
            first = self._claimed(question, token, now, attempts=1)
            insert = self._database.insert(idempotent_answers).values(_place(question) | first)
            inserted = insert.on_conflict_do_nothing().returning(_rows.attempts)
            if connection.execute(inserted).one_or_none() is not None:
                return Claim(question, token)
            row = connection.execute(select(idempotent_answers).where(_is(question)).with_for_update()).one_or_none()
            if row is None:  # deleted just now
                raise StillRunning("a request with this key has just ended", retry_after_seconds=1.0)
            now = self._database.now(connection)  # to lock the row may have taken a while
            expired = row.expires_at <= now
            if not expired:
                _refuse(row, question, now)
            if expired or row.status is None:
                again = self._claimed(question, token, now, attempts=1 if expired else row.attempts + 1)
                connection.execute(update(idempotent_answers).where(_is(question)).values(again))
                return Claim(question, token)
        return self._opened(row)

    def renew(self, claim: Claim) -> None:
        """It holds for `lease_seconds` from now; one that was lost stays lost."""
        with self._database.writing() as connection:
            ends_at = self._database.now(connection) + self.settings.lease_seconds
            connection.execute(update(idempotent_answers).where(_is_held(claim)).values(lease_ends_at=ends_at))

    def keep(self, claim: Claim, answer: Answer) -> bool:
        """The answer is the one answer from now on. False: it is too large to be kept, and the next may execute.

        Raises:
            ClaimLost: nothing was kept, and `answer` must not be given.
        """
        sealed = self._vault.seal(zlib.compress(answer.body, 1), name=_name(claim.question, answer.status))
        fits = len(sealed) <= self.settings.max_answer_bytes
        kept = {"status": answer.status, "answer": sealed} if fits else {}
        with self._database.writing() as connection:
            expires_at = self._database.now(connection) + self.settings.kept_seconds
            ended = {"claim": None, "lease_ends_at": 0.0, "expires_at": expires_at}
            if connection.execute(update(idempotent_answers).where(_is_held(claim)).values(ended | kept)).rowcount != 1:
                raise ClaimLost
        return fits

    def release(self, claim: Claim) -> None:
        """Nothing was answered that is final: the next may execute."""
        with self._database.writing() as connection:
            connection.execute(update(idempotent_answers).where(_is_held(claim)).values(claim=None, lease_ends_at=0.0))

    def standing(self, question: Question) -> Answer:
        """What was answered by whoever has taken a claim over. Raises StillRunning, AskedOtherwise."""
        with self._database.reading() as connection:
            row = connection.execute(select(idempotent_answers).where(_is(question))).one_or_none()
            now = self._database.now(connection)
        if row is None or row.status is None:
            raise StillRunning("the request is executed again, for this took too long", retry_after_seconds=1.0)
        _refuse(row, question, now)
        return self._opened(row)

    def forget(self, owner: str) -> int:
        """Delete all that is kept of an owner; how many requests that were. What executes now is not kept either."""
        num_deleted = self._delete(_rows.owner == owner, skip_locked=False)
        if not self._database.scrub():
            raise DatabaseDown("answers are deleted, but a reader keeps old pages in use")
        return num_deleted

    def sweep(self) -> int:
        """Delete what is older than `kept_seconds`, a little at a time, so that nobody has to wait."""
        with self._database.reading() as connection:
            now = self._database.now(connection)
        num_deleted = self._delete(_rows.expires_at <= now, skip_locked=True)  # others sweep, too
        self._database.scrub()  # or the next one does
        return num_deleted

    def held(self, owner: str) -> Held:
        """How much is kept of an owner."""
        num_bytes_kept = func.coalesce(func.sum(func.length(_rows.answer)), 0)
        with self._database.reading() as connection:
            counted = connection.execute(select(func.count(), num_bytes_kept).where(_rows.owner == owner))
            num_requests, num_bytes = counted.one()
        return Held(int(num_requests), int(num_bytes))

    def _claimed(self, question: Question, token: bytes, now: float, *, attempts: int) -> dict[str, object]:
        return {
            "asked_sha256": question.asked_sha256,
            "model_sha256": question.model_sha256,
            "attempts": attempts,
            "claim": token,
            "lease_ends_at": now + self.settings.lease_seconds,
            "status": None,
            "answer": None,
            "expires_at": now + self.settings.kept_seconds,
        }

    def _delete(self, which: ColumnElement[bool], *, skip_locked: bool) -> int:
        """In steps of `SWEPT_AT_ONCE`."""
        name = tuple_(_rows.owner, _rows.key_sha256)
        some = select(*name.clauses).where(which).limit(SWEPT_AT_ONCE).with_for_update(skip_locked=skip_locked)
        num_deleted, deleted = 0, SWEPT_AT_ONCE
        while deleted == SWEPT_AT_ONCE:
            with self._database.writing() as connection:
                deleted = connection.execute(delete(idempotent_answers).where(name.in_(some))).rowcount
            num_deleted += deleted
        return num_deleted

    def _opened(self, row: Row) -> Answer:  # type: ignore[type-arg]
        question = Question(row.owner, row.key_sha256, row.asked_sha256, row.model_sha256)
        return Answer(row.status, zlib.decompress(self._vault.open(row.answer, name=_name(question, row.status))))


def _place(question: Question) -> dict[str, object]:
    return {"owner": question.owner, "key_sha256": question.key_sha256}


def _is(question: Question) -> ColumnElement[bool]:
    return (_rows.owner == question.owner) & (_rows.key_sha256 == question.key_sha256)


def _is_held(claim: Claim) -> ColumnElement[bool]:
    return _is(claim.question) & (_rows.claim == claim.token)


def _name(question: Question, status: int) -> str:
    return f"answer {status} to {question.key_sha256.hex()} of {question.owner}"


def _refuse(row: Row, question: Question, now: float) -> None:  # type: ignore[type-arg]
    """Raises AskedOtherwise, StillRunning."""
    if row.asked_sha256 != question.asked_sha256:
        raise AskedOtherwise("this key was sent with another video or with other options: a new request has a new key")
    if row.status is not None and row.model_sha256 != question.model_sha256:
        raise AskedOtherwise(
            f"the request with this key was answered by the model {row.model_sha256[:12]}, which was replaced since: a "
            "new request, to the new one, has a new key"
        )
    if row.claim is not None and (left_seconds := row.lease_ends_at - now) > 0:
        raise StillRunning("a request with this key is still running", retry_after_seconds=min(left_seconds, 1.0))
