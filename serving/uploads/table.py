"""Whose uploads there are, how large they are to be, and until when: rows of the database. Knows no files.

Times are by the database's own clock. Its calls block; every method raises DatabaseDown.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from sqlalchemy import ColumnElement, Connection, case, delete, func, insert, select, update

from serving.database.core import Database
from serving.database.errors import DatabaseDown
from serving.database.tables import uploads
from serving.uploads.errors import UploadIncomplete, UploadNotFound, UploadQuota
from serving.uploads.ids import checked_id
from vidseq.config import Config, PositiveInt, PositiveSeconds

ASKED_AT_ONCE = 500  # ids in one statement: a SQLite takes so many parameters, and no more than some thousands
_rows = uploads.c


class UploadSettings(Config):
    """How large one upload may be, and all of one key together, complete or not, by what was declared of them.

    An upload is kept for `kept_seconds` after its last byte, or after it was completed; longer where a job needs it.
    `min_free_bytes` of the disk are never taken.
    """

    max_upload_bytes: PositiveInt = 4 * 2**30
    max_owner_bytes: PositiveInt = 16 * 2**30
    max_owner_uploads: PositiveInt = 10_000
    kept_seconds: PositiveSeconds = 24 * 3600.0
    min_free_bytes: PositiveInt = 256 * 2**20
    sweep_seconds: PositiveSeconds = 60.0


@dataclass(frozen=True)
class Row:
    """An upload as the database has it. `sha256` is what was declared; of a complete one, what was found."""

    upload_id: str
    num_bytes: int
    sha256: bytes | None
    complete: bool
    expires_at: float = 0.0


class UploadTable:
    """Thread-safe."""

    def __init__(self, database: Database, settings: UploadSettings) -> None:
        self._database = database
        self._settings = settings

    def add(self, owner: str, row: Row) -> Row:
        """The same, with the time at which it expires. Raises UploadQuota."""
        with self._database.writing() as connection:
            self._database.one_at_a_time(connection, f"uploads of {owner}")  # else two would fit, each by itself
            now = self._database.now(connection)
            self._refuse_over(connection, owner, row.num_bytes, now)
            row = replace(row, expires_at=now + self._settings.kept_seconds)
            connection.execute(insert(uploads).values(owner=owner, **asdict(row)))
        return row

    def find(self, owner: str, upload_id: str) -> Row:
        """Raises UploadNotFound."""
        with self._database.reading() as connection:
            now = self._database.now(connection)
            found = connection.execute(_asked(_is(owner, upload_id) & (_rows.expires_at > now))).one_or_none()
        return _found(found, upload_id)

    def touch(self, owner: str, upload_id: str) -> Row:
        """Bytes have come: it is kept for longer, unless it is complete. Raises UploadNotFound."""
        return self._changed(owner, upload_id, ~_rows.complete, {})

    def complete(self, owner: str, upload_id: str, *, sha256: bytes) -> Row:
        """Raises UploadNotFound."""
        return self._changed(owner, upload_id, ~_rows.complete, {"complete": True, "sha256": sha256})

    def delete(self, owner: str, upload_id: str) -> None:
        """Raises UploadNotFound."""
        with self._database.writing() as connection:
            if connection.execute(delete(uploads).where(_is(owner, upload_id))).rowcount == 0:
                raise UploadNotFound(upload_id)

    def keep_until(self, connection: Connection, owner: str, ids: Collection[str], unix_seconds: float) -> None:
        """Inside a transaction that writes: these are complete uploads of `owner`, and no sooner swept than then.

        Raises:
            UploadNotFound, UploadIncomplete: of the first that is not.
        """
        now = self._database.now(connection)
        later = case((_rows.expires_at < unix_seconds, unix_seconds), else_=_rows.expires_at)
        for some in _batches(sorted({checked_id(upload_id) for upload_id in ids})):
            which = (_rows.owner == owner) & _rows.upload_id.in_(some) & (_rows.expires_at > now)
            asked = select(_rows.upload_id, _rows.complete).where(which).order_by(_rows.upload_id).with_for_update()
            states = {row.upload_id: row.complete for row in connection.execute(asked)}
            for upload_id in some:
                if upload_id not in states:
                    raise UploadNotFound(upload_id)
                if not states[upload_id]:
                    raise UploadIncomplete(f"the upload {upload_id} is not complete")
            connection.execute(update(uploads).where(which).values(expires_at=later))

    def forget(self, owner: str) -> list[str]:
        """Delete all rows of an owner, and leave nothing of them in the file of a SQLite; the ids they had."""
        with self._database.writing() as connection:
            gone = connection.execute(delete(uploads).where(_rows.owner == owner).returning(_rows.upload_id))
            ids = list(gone.scalars())
        if not self._database.scrub():
            raise DatabaseDown("uploads are deleted, but a reader keeps old pages in use")
        return ids

    def has_any(self, owner: str) -> bool:
        """Whether anything is known of an owner."""
        with self._database.reading() as connection:
            return connection.execute(select(_rows.upload_id).where(_rows.owner == owner).limit(1)).first() is not None

    def expired(self) -> list[str]:
        """Some of those whose time is over."""
        with self._database.reading() as connection:
            now = self._database.now(connection)
            asked = select(_rows.upload_id).where(_rows.expires_at <= now).order_by(_rows.expires_at)
            return list(connection.execute(asked.limit(ASKED_AT_ONCE)).scalars())

    def drop_expired(self, upload_id: str) -> bool:
        """Whether its row went now: its time was still over."""
        with self._database.writing() as connection:
            now = self._database.now(connection)
            which = (_rows.upload_id == upload_id) & (_rows.expires_at <= now)
            return connection.execute(delete(uploads).where(which)).rowcount == 1

    def without_row(self, ids: Sequence[str]) -> Iterator[str]:
        """Those of `ids` of which the database knows nothing."""
        for some in _batches(ids):
            with self._database.reading() as connection:
                known = set(connection.execute(select(_rows.upload_id).where(_rows.upload_id.in_(some))).scalars())
            yield from (upload_id for upload_id in some if upload_id not in known)

    def _changed(self, owner: str, upload_id: str, which: ColumnElement[bool], values: dict[str, object]) -> Row:
        """As it is now, `values` written and its time begun anew where it is one of `which`."""
        with self._database.writing() as connection:
            expires_at = self._database.now(connection) + self._settings.kept_seconds
            changed = update(uploads).where(_is(owner, upload_id) & which)
            connection.execute(changed.values(expires_at=expires_at, **values))
            found = connection.execute(_asked(_is(owner, upload_id))).one_or_none()
        return _found(found, upload_id)

    def _refuse_over(self, connection: Connection, owner: str, num_bytes: int, now: float) -> None:
        kept = (_rows.owner == owner) & (_rows.expires_at > now)
        sums = select(func.count(), func.coalesce(func.sum(_rows.num_bytes), 0)).where(kept)
        num_kept, num_bytes_kept = connection.execute(sums).one()
        settings = self._settings
        if num_kept >= settings.max_owner_uploads:
            raise UploadQuota(f"this key has {num_kept:,} uploads, which is the most: delete those that are done with")
        if int(num_bytes_kept) + num_bytes > settings.max_owner_bytes:
            raise UploadQuota(
                f"the uploads of this key have {int(num_bytes_kept):,} bytes, and with these {num_bytes:,} more than "
                f"the {settings.max_owner_bytes:,} of one key: delete those that are done with"
            )


def _batches(ids: Sequence[str]) -> Iterator[Sequence[str]]:
    for first in range(0, len(ids), ASKED_AT_ONCE):
        yield ids[first : first + ASKED_AT_ONCE]


def _is(owner: str, upload_id: str) -> ColumnElement[bool]:
    return (_rows.upload_id == checked_id(upload_id)) & (_rows.owner == owner)


def _asked(which: ColumnElement[bool]) -> Any:
    return select(_rows.upload_id, _rows.num_bytes, _rows.sha256, _rows.complete, _rows.expires_at).where(which)


def _found(row: Any, upload_id: str) -> Row:
    if row is None:
        raise UploadNotFound(upload_id)
    return Row(*row)
