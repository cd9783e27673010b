"""Jobs that go, whose time is over or whose owner wants it so. Knows no HTTP, and need not open what is sealed."""

from sqlalchemy import ColumnElement, delete, select

from serving.database.core import Database
from serving.database.errors import DatabaseDown
from serving.database.tables import jobs
from serving.jobs.queue import release_uploads

SWEPT_AT_ONCE = 1  # which may have many rows


def forget_jobs(database: Database, owner: str) -> int:
    """Delete all jobs of an owner; how many that were. Raises DatabaseDown."""
    num_deleted = _delete(database, jobs.c.owner == owner, skip_locked=False)
    if not database.scrub():
        raise DatabaseDown("jobs are deleted, but a reader keeps old pages in use")
    return num_deleted


def sweep_jobs(database: Database) -> int:
    """Delete those whose time to live is over; how many that were. Raises DatabaseDown."""
    with database.reading() as connection:
        now = database.now(connection)
    num_deleted = _delete(database, jobs.c.expires_at <= now, skip_locked=True)  # others sweep, too
    if num_deleted:
        database.scrub()  # or the next one does
    return num_deleted


def _delete(database: Database, which: ColumnElement[bool], *, skip_locked: bool) -> int:
    """In steps of `SWEPT_AT_ONCE`."""
    some = select(jobs.c.id).where(which).limit(SWEPT_AT_ONCE).with_for_update(skip_locked=skip_locked)
    num_deleted, deleted = 0, SWEPT_AT_ONCE
    while deleted == SWEPT_AT_ONCE:
        with database.writing() as connection:
            job_ids = connection.execute(some).scalars().all()
            for job_id in job_ids:
                release_uploads(connection, job_id, at=database.now(connection))
            deleted = connection.execute(delete(jobs).where(jobs.c.id.in_(job_ids))).rowcount
        num_deleted += deleted
    return num_deleted
