"""The databases of tests: an empty SQLite file, and an empty database in a PostgreSQL that a module starts."""

import secrets
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.postgres_server import empty_database, running_postgres


@pytest.fixture(scope="module")
def postgres_process() -> Iterator[str]:
    with running_postgres() as url:
        yield url


@pytest.fixture
def postgres_url(postgres_process: str) -> Iterator[str]:
    with empty_database(postgres_process, f"test_{secrets.token_hex(4)}") as url:
        yield url


@pytest.fixture
def sqlite_url(tmp_path: Path) -> Iterator[str]:
    """A file that is sound after the test, too."""
    path = tmp_path / "vidseq.db"
    yield f"sqlite://{path}"
    if path.exists():
        with closing(sqlite3.connect(path)) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


@pytest.fixture(params=["sqlite_url", "postgres_url"])
def database_url(request: pytest.FixtureRequest) -> str:
    found: str = request.getfixturevalue(request.param)
    return found
