"""Sessions in a SQLite file that all processes of one machine share. Knows nothing of what is in them.

    sessions   what lives, and what has expired but was not swept yet
    answers    of the last pushes, a row each; they go with their session
    expired    names of sessions that were swept

Every session is looked at through `expires_at`; each new one sweeps away some of those that have expired, so that the
file does not grow, and `sweep` all of them. What is deleted is overwritten (secure_delete), also in the WAL, where
pages would lie as they once were until it is written over: it is emptied. In WAL mode a process that is killed leaves a
sound file; power that fails may take the last pushes with it (synchronous=NORMAL), after which the session stands a
little earlier, and says so. Not for a file system that several machines share.
"""

import sqlite3
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import astuple, replace
from pathlib import Path

from serving.files import alone, make_private
from serving.store import Kept, Lifetimes, Record, StoreDown, absent, check_step, too_many
from vidseq.errors import OptionError, SequenceConflict, SessionEnded, SessionError

SCHEMA = 1
BUSY_SECONDS = 10.0  # waiting for writers of other processes; a write takes a millisecond
EMPTY_SECONDS = 0.5  # waiting for readers of other processes to leave the WAL
SWEPT_AT_ONCE = 64
_MAX_INTEGER = 2**63 - 1  # of SQLite; a caller may name any number

_TABLES = """
CREATE TABLE sessions (
    session_id TEXT PRIMARY KEY,
    owner TEXT NOT NULL,
    sequence INTEGER NOT NULL,
    state BLOB NOT NULL,
    meta TEXT NOT NULL,
    ended INTEGER NOT NULL,
    created_seconds REAL NOT NULL,
    touched_seconds REAL NOT NULL,
    dies_at REAL NOT NULL,
    expires_at REAL NOT NULL
) STRICT;
CREATE INDEX sessions_by_expiry ON sessions (expires_at);
CREATE INDEX sessions_by_owner ON sessions (owner, expires_at);
CREATE TABLE answers (
    session_id TEXT NOT NULL REFERENCES sessions ON DELETE CASCADE,
    sequence INTEGER NOT NULL,
    digest BLOB NOT NULL,
    answer BLOB NOT NULL,
    PRIMARY KEY (session_id, sequence)
) STRICT;
CREATE TABLE expired (session_id TEXT PRIMARY KEY, expires_at REAL NOT NULL) STRICT;
CREATE INDEX expired_by_expiry ON expired (expires_at);
"""


class SqliteStore:
    """A `Store`. One connection, one call at a time in this process; others wait for each other in SQLite."""

    def __init__(self, path: Path, *, lifetimes: Lifetimes) -> None:
        self._lifetimes = lifetimes
        self._lock = threading.Lock()
        self._connection = _connect(path)

    def create(self, record: Record) -> None:
        limits = self._lifetimes
        with self._transaction() as connection:
            now = time.time()
            self._sweep(now)
            (total,) = connection.execute("SELECT count(*) FROM sessions WHERE expires_at > ?", (now,)).fetchone()
            if total >= limits.max_total:
                raise too_many(limits.max_total, whose="of all callers")
            alive_of_owner = "SELECT count(*) FROM sessions WHERE owner = ? AND expires_at > ?"
            (owned,) = connection.execute(alive_of_owner, (record.owner, now)).fetchone()
            if record.owner and owned >= limits.max_per_owner:
                raise too_many(limits.max_per_owner, whose="of this caller")
            dies_at = now + limits.absolute_seconds
            connection.execute(
                "INSERT INTO sessions VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (*astuple(record), dies_at, min(now + limits.idle_seconds, dies_at)),
            )

    def read(self, session_id: str) -> Record:
        columns = "session_id, owner, sequence, state, meta, ended, created_seconds, touched_seconds"
        with self._lock, _failures_told():
            row = self._connection.execute(
                f"SELECT {columns} FROM sessions WHERE session_id = ? AND expires_at > ?", (session_id, time.time())
            ).fetchone()
            if row is None:
                raise self._absent(session_id)
        return replace(Record(*row), ended=bool(row[5]))  # SQLite has no truth values

    def replace(self, record: Record, *, expected: int, kept: Mapping[int, Kept]) -> None:
        check_step(record, expected=expected, kept=kept)
        session_id, limits = record.session_id, self._lifetimes
        with self._transaction() as connection:
            now = time.time()
            row = connection.execute(
                "SELECT sequence, ended, dies_at FROM sessions WHERE session_id = ? AND expires_at > ?",
                (session_id, now),
            ).fetchone()
            if row is None:
                raise self._absent(session_id)
            sequence, ended, dies_at = row
            if sequence != expected:
                raise SequenceConflict(sequence)
            if ended:
                raise SessionEnded(f"the session ended before push {expected}")
            lives_seconds = limits.ended_seconds if record.ended else limits.idle_seconds
            connection.execute(
                "UPDATE sessions SET sequence = ?, state = ?, ended = ?, touched_seconds = ?, expires_at = ?"
                " WHERE session_id = ?",
                (
                    record.sequence,
                    record.state,
                    record.ended,
                    record.touched_seconds,
                    min(now + lives_seconds, dies_at),
                    session_id,
                ),
            )
            connection.executemany(
                "INSERT INTO answers VALUES (?, ?, ?, ?)",
                [(session_id, number, one.digest, one.answer) for number, one in kept.items()],
            )
            connection.execute(
                "DELETE FROM answers WHERE session_id = ? AND sequence < ?",
                (session_id, record.sequence - limits.kept_answers),
            )

    def answer(self, session_id: str, sequence: int) -> Kept | None:
        return self._answers(session_id, sequence, sequence).get(sequence)

    def answers_from(self, session_id: str, sequence: int) -> dict[int, Kept]:
        return self._answers(session_id, sequence, _MAX_INTEGER)

    def delete(self, session_id: str) -> None:
        with self._transaction() as connection:
            connection.execute("DELETE FROM sessions WHERE session_id = ?", (session_id,))
            connection.execute("DELETE FROM expired WHERE session_id = ?", (session_id,))

    def forget_all(self, owner: str) -> int:
        with self._transaction() as connection:
            found = connection.execute("SELECT expires_at > ? FROM sessions WHERE owner = ?", (time.time(), owner))
            num_alive: int = sum(alive for (alive,) in found)
            connection.execute("DELETE FROM sessions WHERE owner = ?", (owner,))
        if not self._empty_wal():
            raise StoreDown("the sessions are deleted, but a reader keeps old pages of the store in use: ask again")
        return num_alive

    def sweep(self) -> int:
        num_swept, swept = 0, 1
        while swept:
            with self._transaction():
                swept = self._sweep(time.time())
            num_swept += swept
        self._empty_wal()  # if somebody reads there, the next one does it
        return num_swept

    def close(self) -> None:
        with self._lock:
            self._connection.close()

    def _answers(self, session_id: str, first: int, last: int) -> dict[int, Kept]:
        with self._lock, _failures_told():
            rows = self._connection.execute(
                "SELECT answers.sequence, digest, answer FROM answers JOIN sessions USING (session_id)"
                " WHERE session_id = ? AND answers.sequence BETWEEN ? AND ? AND expires_at > ?"
                " ORDER BY answers.sequence",
                (session_id, min(first, _MAX_INTEGER), min(last, _MAX_INTEGER), time.time()),
            ).fetchall()
        return {number: Kept(digest, answer) for number, digest, answer in rows}

    def _absent(self, session_id: str) -> SessionError:
        """Why there is no living session of that name; inside a call that has the lock."""
        dead = "SELECT 1 FROM sessions WHERE session_id = ? UNION ALL SELECT 1 FROM expired WHERE session_id = ?"
        return absent(expired=self._connection.execute(dead, (session_id, session_id)).fetchone() is not None)

    def _sweep(self, now: float) -> int:
        """Some of what has expired, and how many sessions that was."""
        limit, connection = SWEPT_AT_ONCE, self._connection
        rows = connection.execute(
            "SELECT session_id, expires_at FROM sessions WHERE expires_at <= ? LIMIT ?", (now, limit)
        ).fetchall()
        connection.executemany("INSERT INTO expired VALUES (?, ?)", rows)
        connection.executemany("DELETE FROM sessions WHERE session_id = ?", [(session_id,) for session_id, _ in rows])
        connection.execute(
            "DELETE FROM expired WHERE session_id IN (SELECT session_id FROM expired WHERE expires_at <= ? LIMIT ?)",
            (now - self._lifetimes.remembered_seconds, limit),
        )
        return len(rows)

    def _empty_wal(self) -> bool:
        """Every page goes where it belongs, and what it once was is gone. False: somebody still reads it as it was."""
        with self._lock, _failures_told():
            self._connection.execute(f"PRAGMA busy_timeout = {EMPTY_SECONDS * 1000:.0f}")  # nobody writes meanwhile
            try:
                (busy, *_) = self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            finally:
                self._connection.execute(f"PRAGMA busy_timeout = {BUSY_SECONDS * 1000:.0f}")
        return not busy

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """The only writer, among threads and processes, until it commits; an error undoes it all."""
        with self._lock, _failures_told():
            self._connection.execute("BEGIN IMMEDIATE")
            with self._connection:
                yield self._connection


def _connect(path: Path) -> sqlite3.Connection:
    """A connection to the file, which is made where there is none.

    Raises:
        OptionError: the file cannot be opened, is no database, or that of another version.
    """
    try:
        with alone(path.parent):
            return _open(path)
    except OSError as error:
        raise _unusable(path, error.strerror) from None
    except sqlite3.Error as error:
        raise _unusable(path, error) from None


def _open(path: Path) -> sqlite3.Connection:
    make_private(path)
    connection = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
    try:
        version = _prepare(connection)
        if version != SCHEMA:
            raise _unusable(path, f"its version is {version}, not {SCHEMA}")
    except BaseException:
        connection.close()
        raise
    return connection


def _prepare(connection: sqlite3.Connection) -> int:
    """The version of the tables, which are made where there are none."""
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute("PRAGMA secure_delete = ON")
    connection.execute("BEGIN IMMEDIATE")
    with connection:
        version: int = connection.execute("PRAGMA user_version").fetchone()[0]
        if version == 0:
            for statement in _TABLES.split(";"):
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {SCHEMA}")
    return version or SCHEMA


def _unusable(path: Path, reason: object) -> OptionError:
    return OptionError(f"{path} cannot be the store of sessions: {reason}")


@contextmanager
def _failures_told() -> Iterator[None]:
    """SQLite's errors (a full disk, a file locked for too long) as ours; a broken rule of a table is a mistake."""
    try:
        yield
    except sqlite3.IntegrityError:
        raise
    except sqlite3.Error as error:
        raise StoreDown(f"the store of sessions failed: {error}") from error
