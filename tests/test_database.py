"""The database: who comes first makes the tables, newer ones are refused; the same for SQLite and for PostgreSQL."""

import logging
import multiprocessing
import os
import sqlite3
import stat
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from databases import *  # noqa: F403  fixtures
from postgres_server import PASSWORD
from running import free_port
from sqlalchemy import delete, inspect, select, text, update
from typer.testing import CliRunner

from serving.database import schema
from serving.database.backup import backup
from serving.database.core import Database
from serving.database.errors import DatabaseDown
from serving.database.tables import idempotent_answers, metadata
from vidseq.cli import app
from vidseq.errors import OptionError

SPAWN = multiprocessing.get_context("spawn")
ROW = {
    "owner": "ann",
    "key_sha256": b"k" * 32,
    "asked_sha256": b"a" * 32,
    "model_sha256": "0" * 64,
    "attempts": 0,
    "lease_ends_at": 0.0,
    "expires_at": 0.0,
}


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    with closing(Database(database_url)) as database:
        yield database


def add(database: Database, **fields: Any) -> None:
    with database.writing() as connection:
        connection.execute(database.insert(idempotent_answers).values(ROW | fields))


def owners(database: Database) -> list[str]:
    with database.reading() as connection:
        return list(connection.execute(select(idempotent_answers.c.owner).order_by("owner")).scalars())


def cli(*words: str, **environment: str) -> tuple[int, str]:
    done = CliRunner(env={"COLUMNS": "200", "NO_COLOR": "1", **environment}).invoke(app, ["db", *words])
    return done.exit_code, done.output + str(done.exception or "")


def told(error: BaseException) -> str:
    """All that a log could have of it."""
    return "".join(traceback.format_exception(error))


# Versions ----------------------------------------------------------------------------------------


def test_the_steps_make_the_tables_that_the_code_knows(database: Database) -> None:
    with database.writing() as connection:
        context = MigrationContext.configure(connection, opts={"version_table": schema.VERSION_TABLE})
        assert compare_metadata(context, metadata) == []
        assert schema.current_version(connection) == schema.newest_version()


def test_to_prepare_again_changes_nothing(database_url: str, database: Database) -> None:
    database.prepare()
    add(database)
    with closing(Database(database_url)) as other:
        other.prepare()
        assert owners(other) == ["ann"]


def prepare_at(url: str, barrier: Any, failures: Any) -> None:
    with closing(Database(url)) as database:
        barrier.wait()
        try:
            database.prepare()
            add(database, owner=str(os.getpid()))
        except Exception as error:
            failures.put(repr(error))


def test_of_processes_that_start_at_once_one_makes_the_tables(database_url: str, database: Database) -> None:
    barrier, failures = SPAWN.Barrier(3), SPAWN.SimpleQueue()
    processes = [SPAWN.Process(target=prepare_at, args=(database_url, barrier, failures)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert failures.empty(), failures.get()
    assert owners(database) == sorted(str(process.pid) for process in processes)


def test_tables_of_a_newer_vidseq_are_refused_and_left_as_they_are(database_url: str, database: Database) -> None:
    database.prepare()
    with database.writing() as connection:
        connection.execute(text(f"UPDATE {schema.VERSION_TABLE} SET version_num = '9999'"))
    with closing(Database(database_url)) as other, pytest.raises(OptionError, match=r"'9999'.*a newer vidseq"):
        other.prepare()
    with database.reading() as connection:
        assert schema.current_version(connection) == "9999"


def test_a_step_that_fails_leaves_nothing_behind(database_url: str) -> None:
    with closing(Database(database_url)) as first:
        with first._engine.begin() as connection:  # a table in the way of the first step
            connection.execute(text(f"CREATE TABLE {schema.VERSION_TABLE} (version_num VARCHAR(32) NOT NULL)"))
            connection.execute(text("CREATE TABLE idempotent_answers (owner TEXT)"))
        with pytest.raises((OptionError, DatabaseDown)):
            first.prepare()
        with first._engine.connect() as connection:
            assert schema.current_version(connection) is None
            assert [column["name"] for column in inspect(connection).get_columns("idempotent_answers")] == ["owner"]


# Transactions ----------------------------------------------------------------------------------------


def test_what_fails_in_the_middle_was_never_written(database: Database) -> None:
    def fail_in_the_middle() -> None:
        with database.writing() as connection:
            connection.execute(database.insert(idempotent_answers).values(ROW))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_in_the_middle()
    assert owners(database) == []


def test_writers_of_one_row_wait_for_each_other(database: Database) -> None:
    add(database)

    def count() -> None:
        for _ in range(25):
            with database.writing() as connection:
                found = select(idempotent_answers.c.attempts).with_for_update()
                attempts = connection.execute(found).scalar_one()
                connection.execute(update(idempotent_answers).values(attempts=attempts + 1))

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with database.reading() as connection:
        assert connection.execute(select(idempotent_answers.c.attempts)).scalar_one() == 100


def test_the_clock_is_unix_time_and_goes_on(database: Database) -> None:
    with database.reading() as connection:
        first = database.now(connection)
        time.sleep(0.02)
        second = database.now(connection)
    assert abs(first - time.time()) < 5
    assert 0.01 < second - first < 5


# Failures ----------------------------------------------------------------------------------------


def test_a_database_that_does_not_answer_is_down_and_no_password_is_told(caplog: pytest.LogCaptureFixture) -> None:
    url = f"postgresql://vidseq:{PASSWORD}@127.0.0.1:{free_port()}/vidseq"
    with caplog.at_level(logging.DEBUG), closing(Database(url)) as database, pytest.raises(DatabaseDown) as caught:
        owners(database)
    assert "refused" in caplog.text
    assert PASSWORD not in f"{caplog.text} {told(caught.value)} {database.name} {database.url}"


def test_a_wrong_password_is_told_of_and_not_told(postgres_url: str, caplog: pytest.LogCaptureFixture) -> None:
    url = postgres_url.replace(PASSWORD, "battery-staple")
    with caplog.at_level(logging.DEBUG), closing(Database(url)) as database, pytest.raises(DatabaseDown) as caught:
        database.prepare()
    assert "password authentication failed" in caplog.text
    assert "battery-staple" not in f"{caplog.text} {told(caught.value)}"


def test_a_server_that_was_restarted_costs_nobody_an_error(postgres_url: str) -> None:
    with closing(Database(postgres_url)) as database, closing(Database(postgres_url)) as other:
        add(database)
        with other.writing() as connection:
            cut = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
            clients = "AND datname = current_database() AND backend_type = 'client backend'"
            assert connection.execute(text(f"{cut} {clients}")).scalar_one() == 1
        assert owners(database) == ["ann"]


def test_a_file_that_is_locked_for_too_long_is_down(sqlite_url: str) -> None:
    with closing(Database(sqlite_url)) as database:
        add(database)
        with database._engine.connect() as connection:
            connection.exec_driver_sql("PRAGMA busy_timeout = 50")
        path = sqlite_url.removeprefix("sqlite://")
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(DatabaseDown):
                add(database, owner="ben")
            assert owners(database) == ["ann"]  # whoever reads waits for nobody


@pytest.mark.parametrize(
    "url",
    [
        "",
        "vidseq.db",
        "redis://:secret@h/0",
        "mysql://u:secret@h/d",
        "postgresql+asyncpg://u:secret@h/d",
        "postgresql://u:secret@h",
        "postgresql://u:secret@h/d/e",
        "postgresql://u:secret@h:secret/d",
        "sqlite://",
        "sqlite:///:memory:?x=secret",
    ],
)
def test_what_is_no_url_of_a_database_is_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(OptionError, match="sqlite:///path") as caught:
        Database(url)
    assert "secret" not in told(caught.value)


def test_both_names_of_postgresql_are_one(postgres_url: str) -> None:
    with closing(Database(postgres_url)) as one, closing(Database(postgres_url.replace("://", "+psycopg://"))) as other:
        add(one)
        assert owners(other) == ["ann"]


# The file ----------------------------------------------------------------------------------------


def test_the_file_and_what_lies_beside_it_is_its_owners_alone(sqlite_url: str, tmp_path: Path) -> None:
    with closing(Database(sqlite_url)) as database:
        add(database)
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert modes == {"vidseq.db": 0o600, "vidseq.db-wal": 0o600, "vidseq.db-shm": 0o600}


def test_readers_wait_for_nobody_and_commits_for_no_disk(sqlite_url: str) -> None:
    with closing(Database(sqlite_url)) as database, database.reading() as connection:
        found = [connection.exec_driver_sql(f"PRAGMA {name}").scalar_one() for name in ("journal_mode", "synchronous")]
    assert found == ["wal", 1]  # NORMAL


def test_a_file_that_is_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no database, but long enough to be looked at " * 30)
    with closing(sqlite3.connect(tmp_path / "other")) as connection:
        connection.execute("CREATE TABLE sessions (id)")
    for name, words in (("text", "not a database"), ("other", "something else"), ("none/here", "No such file")):
        with closing(Database(f"sqlite://{tmp_path}/{name}")) as database, pytest.raises(OptionError, match=words):
            database.prepare()


# Copies ----------------------------------------------------------------------------------------


def test_a_copy_made_under_writers_is_whole_and_private(sqlite_url: str, tmp_path: Path) -> None:
    """Two rows are written in one transaction, again and again: no copy has one of them."""
    stop = threading.Event()
    with closing(Database(sqlite_url)) as database:
        database.prepare()

        def write() -> None:
            number = 0
            while not stop.is_set():
                with database.writing() as connection:
                    for half in ("a", "b"):
                        fields = {"owner": half, "key_sha256": number.to_bytes(32), "answer": bytes(5_000)}
                        connection.execute(database.insert(idempotent_answers).values(ROW | fields))
                number += 1

        writer = threading.Thread(target=write)
        writer.start()
        counts = [copied(sqlite_url, tmp_path / f"copy{number}.db") for number in range(5)]
        stop.set()
        writer.join()
    assert [a == b for a, b in counts] == [True] * 5
    assert counts[-1][0] > counts[0][0]
    assert stat.S_IMODE((tmp_path / "copy0.db").stat().st_mode) == 0o600


def copied(url: str, path: Path) -> tuple[int, int]:
    """How many of each half are in a copy made now, which needs no file beside it."""
    backup(url, path)
    with closing(sqlite3.connect(f"file:{path}?mode=ro&immutable=1", uri=True)) as copy:
        assert copy.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        a, b = (
            copy.execute("SELECT count(*) FROM idempotent_answers WHERE owner = ?", half).fetchone()[0] for half in "ab"
        )
    return a, b


def test_a_copy_can_take_the_place_of_what_was_lost(sqlite_url: str, tmp_path: Path) -> None:
    with closing(Database(sqlite_url)) as database:
        add(database)
        backup(sqlite_url, tmp_path / "copy.db")
        with database.writing() as connection:
            connection.execute(delete(idempotent_answers))
    with closing(Database(f"sqlite://{tmp_path}/copy.db")) as restored:
        assert owners(restored) == ["ann"]


def test_a_copy_does_not_replace_a_file(sqlite_url: str, tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("precious")
    with pytest.raises(OptionError, match="precious cannot be the copy: File exists"):
        backup(sqlite_url, tmp_path / "precious")
    assert (tmp_path / "precious").read_text() == "precious"


def test_what_is_not_there_is_not_copied(sqlite_url: str, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="cannot be copied"):
        backup(sqlite_url, tmp_path / "copy")
    assert list(tmp_path.iterdir()) == []


# The command line ----------------------------------------------------------------------------------------


def test_the_command_brings_tables_up_to_date(database_url: str, database: Database) -> None:
    code, said = cli("upgrade", VIDSEQ_DATABASE=database_url)
    assert (code, f"have version {schema.newest_version()}" in said, PASSWORD in said) == (0, True, False)
    assert owners(database) == []


def test_the_command_copies_a_file(sqlite_url: str, tmp_path: Path) -> None:
    with closing(Database(sqlite_url)) as database:
        add(database)
    assert cli("backup", sqlite_url, str(tmp_path / "copy.db"))[0] == 0
    with closing(Database(f"sqlite://{tmp_path}/copy.db")) as restored:
        assert owners(restored) == ["ann"]


def test_of_postgresql_the_command_that_copies_is_told_without_the_password(tmp_path: Path) -> None:
    url = f"postgresql+psycopg://vidseq:{PASSWORD}@db.example:5433/names?sslmode=require&password={PASSWORD}"
    code, said = cli("backup", url, str(tmp_path / "my copy"))
    asked = "'postgresql://vidseq@db.example:5433/names?sslmode=require'"
    command = f"pg_dump --format=custom --file='{tmp_path}/my copy' {asked}"
    assert (code != 0, command in said, PASSWORD in said) == (True, True, False), said
