"""A database that several processes share: transactions, its clock, its failures. Knows no tables.

    with database.writing() as connection:      commits at the end; an error undoes it all
    with database.reading() as connection:      never one inside another: SQLite has one connection in a process

SQLite: a write locks the file from its beginning (BEGIN IMMEDIATE), so that what was read in it stands until it is
written; others wait. WAL, so that readers and a backup wait for nobody. synchronous=NORMAL: what was committed outlives
every process; power that fails may take the last moments with it, after which a request is executed once more, which
nobody sees. What must not be lost even then is written `durably`: FULL, an fsync a commit, which takes three times as
long. PostgreSQL: READ COMMITTED; lock the row that you will change (`with_for_update`, which SQLite ignores).
"""

import hashlib
import logging
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

from sqlalchemy import (
    URL,
    ColumnElement,
    Connection,
    Engine,
    Table,
    create_engine,
    event,
    exc,
    func,
    literal_column,
    select,
)
from sqlalchemy.dialects import postgresql, sqlite

from serving.database import schema
from serving.database.errors import DatabaseDown
from serving.database.urls import file_of, in_words, parsed
from serving.files import alone, make_private
from vidseq.errors import OptionError

logger = logging.getLogger(__name__)

BUSY_SECONDS = 10.0  # waiting for other writers; a write takes milliseconds
SCRUB_SECONDS = 0.5  # waiting for readers to leave the WAL
CONNECT_SECONDS = 5
MAX_CONNECTIONS = 8  # of one process to a PostgreSQL
_CLOCKS: dict[str, ColumnElement[float]] = {
    "sqlite": literal_column("(julianday('now') - 2440587.5) * 86400.0"),
    "postgresql": literal_column("CAST(extract(epoch FROM clock_timestamp()) AS double precision)"),
}
_WRITES, _DURABLY = "vidseq_writes", "vidseq_durably"  # execution options


class Database:
    """What a URL means. Thread-safe; nothing is opened before it is needed.

    Raises:
        OptionError: no URL of a database that can be used here.
    """

    def __init__(self, url: str) -> None:
        self.url = parsed(url)
        self.name = in_words(self.url)
        self._engine = _engine(self.url)
        self._prepared = False
        self._preparing = threading.Lock()

    def prepare(self) -> None:
        """Make the file and the tables where they are missing or old, whoever comes first.

        Raises:
            OptionError: a file that cannot be a database of ours, or tables of a newer vidseq.
            DatabaseDown: it does not answer.
        """
        with self._preparing:
            if self._prepared:
                return
            path = file_of(self.url)
            try:
                with nullcontext() if path is None else alone(path.parent):
                    if path is not None:
                        make_private(path)
                    self._migrate()
            except OSError as error:
                raise OptionError(f"{path} cannot be the database: {error.strerror}") from None
            self._prepared = True

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """Raises DatabaseDown, as `writing` does."""
        with self._transaction(writes=False) as connection:
            yield connection

    @contextmanager
    def writing(self, *, durably: bool = False) -> Iterator[Connection]:
        with self._transaction(writes=True, durably=durably) as connection:
            yield connection

    def now(self, connection: Connection) -> float:
        """The Unix time by the clock of the database, which alone decides: machines differ."""
        return float(connection.execute(select(_CLOCKS[self._engine.dialect.name])).scalar_one())

    def one_at_a_time(self, connection: Connection, name: str) -> None:
        """Whoever says the same name in a transaction that writes waits until this one ends; in SQLite, all do."""
        if self._engine.dialect.name == "postgresql":
            number = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], signed=True)
            connection.execute(select(func.pg_advisory_xact_lock(number)))

    def insert(self, table: Table) -> "sqlite.Insert | postgresql.Insert":
        """An INSERT that knows ON CONFLICT, which both databases write in the same way."""
        return sqlite.insert(table) if self._engine.dialect.name == "sqlite" else postgresql.insert(table)

    def scrub(self) -> bool:
        """Leave nothing of what was deleted in a SQLite's files; False: a reader keeps old pages in use, ask again.

        What is deleted is overwritten where it stood, but the WAL has pages as they once were, until it is emptied. A
        PostgreSQL does such things by itself, in its own time (autovacuum, and its WAL and copies beside).
        """
        assert self._prepared, "nothing can have been deleted"
        if file_of(self.url) is None:
            return True
        with _failures_told(self.name), self._engine.connect() as connection:
            raw: Any = connection.connection.driver_connection  # SQLAlchemy would begin a transaction
            raw.execute(f"PRAGMA busy_timeout = {SCRUB_SECONDS * 1000:.0f}")  # nobody writes meanwhile
            try:
                (busy, *_) = raw.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            finally:
                raw.execute(f"PRAGMA busy_timeout = {BUSY_SECONDS * 1000:.0f}")
        return not busy

    def close(self) -> None:
        self._engine.dispose()

    @contextmanager
    def _transaction(self, *, writes: bool, durably: bool = False) -> Iterator[Connection]:
        if not self._prepared:
            try:
                self.prepare()
            except OptionError as error:  # not the caller's: the operator's
                raise _down(self.name, error) from error
        with _failures_told(self.name), self._engine.connect() as plain:
            connection = plain.execution_options(**{_WRITES: writes, _DURABLY: durably})
            with connection.begin():
                yield connection

    def _migrate(self) -> None:
        path = file_of(self.url)
        try:
            with self._engine.connect() as connection:
                if path is not None:
                    connection.connection.driver_connection.execute("PRAGMA journal_mode = WAL")  # type: ignore[union-attr]
                with connection.execution_options(**{_WRITES: True}).begin():
                    schema.upgrade(connection, name=self.name)
        except exc.DBAPIError as error:
            if path is not None:
                raise OptionError(f"{path} cannot be the database: {error.orig}") from None
            raise _down(self.name, error.orig) from error


def _engine(url: URL) -> Engine:
    if url.drivername == "sqlite":
        # One connection: calls of one process wait for each other here, in order, and not in SQLite, which polls.
        options: dict[str, Any] = {"pool_size": 1, "max_overflow": 0, "connect_args": {"timeout": BUSY_SECONDS}}
        configure = _configure_sqlite
    else:
        told = {"connect_timeout": CONNECT_SECONDS, "application_name": "vidseq", "tcp_user_timeout": 10_000}
        options = {
            "pool_size": MAX_CONNECTIONS // 2,
            "max_overflow": MAX_CONNECTIONS - MAX_CONNECTIONS // 2,
            "pool_pre_ping": True,  # a server that was restarted costs nobody an error
            "connect_args": {name: value for name, value in told.items() if name not in url.query},
        }
        configure = _configure_postgresql
    # What is in a statement's parameters is in no message and no log.
    engine = create_engine(url, hide_parameters=True, pool_timeout=BUSY_SECONDS, **options)
    event.listen(engine, "connect", configure)
    if url.drivername == "sqlite":
        event.listen(engine, "begin", _begin_sqlite)
    return engine


def _configure_sqlite(connection: Any, _record: object) -> None:
    connection.isolation_level = None  # the driver begins nothing by itself
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute("PRAGMA secure_delete = ON")


def _begin_sqlite(connection: Connection) -> None:
    options = connection.get_execution_options()
    writes = options.get(_WRITES, True)
    connection.exec_driver_sql(f"PRAGMA synchronous = {'FULL' if options.get(_DURABLY) else 'NORMAL'}")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _configure_postgresql(connection: Any, _record: object) -> None:
    with connection.cursor() as cursor:
        cursor.execute(f"SET statement_timeout = '{BUSY_SECONDS:g}s'")
        cursor.execute(f"SET idle_in_transaction_session_timeout = '{3 * BUSY_SECONDS:g}s'")
    connection.commit()


@contextmanager
def _failures_told(name: str) -> Iterator[None]:
    """A database that fails as ours to tell; a broken rule of a table, or a wrong statement, is a mistake."""
    try:
        yield
    except (exc.IntegrityError, exc.ProgrammingError, exc.DataError):
        raise
    except exc.DBAPIError as error:
        raise _down(name, error.orig) from error
    except sqlite3.OperationalError as error:  # of `scrub`
        raise _down(name, error) from error
    except exc.TimeoutError as error:  # of the pool
        raise _down(name, error) from error


def _down(name: str, error: object) -> DatabaseDown:
    down = DatabaseDown(error)
    logger.error("%s failed: %s", name, down.reason)
    return down
