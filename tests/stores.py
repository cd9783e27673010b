"""Stores for tests, a SQLite file and a Redis that a module starts, both empty; and sessions to keep in them."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import redis

from serving.sealing import load_keys, new_key
from serving.store import Kept, Lifetimes, Record, Store, open_store
from tests.redis_server import running_redis

KEYS = load_keys(f"{new_key()} {new_key()}")


@pytest.fixture(scope="module")
def redis_process() -> Iterator[str]:
    with running_redis() as url:
        yield url


@pytest.fixture
def redis_url(redis_process: str) -> str:
    with redis.Redis.from_url(redis_process) as client:
        client.flushall()
    return redis_process


@pytest.fixture
def sqlite_url(tmp_path: Path) -> Iterator[str]:
    path = tmp_path / "sessions.db"
    yield f"sqlite://{path}"
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


@pytest.fixture(params=["sqlite_url", "redis_url"])
def url(request: pytest.FixtureRequest) -> str:
    found: str = request.getfixturevalue(request.param)
    return found


def opened(url: str, *, keys: tuple[bytes, ...] = KEYS, **lifetimes: float) -> "closing[Store]":
    return closing(open_store(url, lifetimes=Lifetimes.model_validate(lifetimes), keys=keys))


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    with opened(url) as store:
        yield store


def new(session_id: str = "s", **fields: Any) -> Record:
    record = Record(
        session_id=session_id,
        owner="ann",
        sequence=0,
        state=state_at(0),
        meta='{"top_k": 5, "é": 1}',
        ended=False,
        created_seconds=1_700_000_000.25,
        touched_seconds=1_700_000_000.25,
    )
    return replace(record, **fields)


def state_at(sequence: int) -> bytes:
    """20,000 bytes that tell a whole state from half of one."""
    return b"%09d\0" % sequence * 2_000


def kept_at(sequence: int) -> Kept:
    return Kept(digest=b"digest %d" % sequence, answer=b"answer %d" % sequence)


def push(store: Store, record: Record, *, number: int = 1, **fields: Any) -> Record:
    """The record after `number` more pushes, which the store has."""
    sequence = record.sequence + number
    after = replace(record, **{"sequence": sequence, "state": state_at(sequence)} | fields)
    store.replace(
        after, expected=record.sequence, kept={push: kept_at(push) for push in range(record.sequence, sequence)}
    )
    return after
