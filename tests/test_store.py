"""Where sessions are kept: the same promises of a SQLite file and of a real Redis, raced for, killed and filled up."""

import multiprocessing
import os
import pickle
import queue
import resource
import sqlite3
import threading
import time
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest
import redis

from serving.sealing import SealBroken, load_keys, new_key
from serving.store import MAX_STATE_BYTES, Kept, Record, Store, StoreDown
from tests.redis_server import PASSWORD, losing_one_answer
from tests.stores import *  # noqa: F403  fixtures
from tests.stores import KEYS, kept_at, new, opened, push, state_at
from vidseq.errors import (
    OptionError,
    SequenceConflict,
    SessionEnded,
    SessionExpired,
    SessionNotFound,
    StateError,
    TooManySessions,
)

SPAWN = multiprocessing.get_context("spawn")
ROUNDS = 60  # of a race


# One session -----------------------------------------------------------------------------------------


def test_a_session_reads_as_it_was_kept(store: Store) -> None:
    store.create(new())
    assert store.read("s") == new()


def test_a_session_is_there_for_whoever_opens_the_same_store(url: str) -> None:
    with opened(url) as one, opened(url) as other:
        one.create(new())
        after = push(one, new(), touched_seconds=1_700_000_001.5)
        assert other.read("s") == after
        assert other.answer("s", 0) == kept_at(0)


def test_a_session_never_kept_is_not_found(store: Store) -> None:
    with pytest.raises(SessionNotFound):
        store.read("s")
    with pytest.raises(SessionNotFound):
        store.replace(new(sequence=1), expected=0, kept={})
    assert (store.answer("s", 0), store.answers_from("s", 0)) == (None, {})


def test_a_deleted_session_is_not_found(store: Store) -> None:
    store.create(new())
    after = push(store, new())
    store.delete("s")
    with pytest.raises(SessionNotFound):
        store.read("s")
    with pytest.raises(SessionNotFound):
        push(store, after)
    assert store.answers_from("s", 0) == {}


def test_to_delete_what_is_not_there_is_no_error(store: Store) -> None:
    store.delete("s")
    with pytest.raises(SessionNotFound):
        store.read("s")


def test_a_state_over_the_limit_is_refused() -> None:
    new(state=b"x" * MAX_STATE_BYTES)
    with pytest.raises(StateError, match="131,073 bytes; at most 131,072"):
        new(state=b"x" * (MAX_STATE_BYTES + 1))


# Steps -----------------------------------------------------------------------------------------------


def test_a_step_writes_the_state_and_the_answers_of_all_its_pushes(store: Store) -> None:
    store.create(new())
    after = push(store, push(store, new(), number=3), number=2)
    assert (store.read("s"), after.sequence) == (after, 5)
    assert store.answers_from("s", 1) == {number: kept_at(number) for number in (1, 2, 3, 4)}
    assert list(store.answers_from("s", 0)) == [0, 1, 2, 3, 4]


def test_a_step_from_elsewhere_changes_nothing_and_tells_where_the_session_stands(store: Store) -> None:
    store.create(new())
    after = push(store, new(), number=2)
    with pytest.raises(SequenceConflict, match="push 2") as caught:
        store.replace(new(sequence=1, state=b"other"), expected=0, kept={0: Kept(b"other", b"other")})
    assert caught.value.expected == 2
    assert (store.read("s"), store.answer("s", 0)) == (after, kept_at(0))


def test_where_the_session_stands_crosses_processes_with_the_error() -> None:
    assert pickle.loads(pickle.dumps(SequenceConflict(3))).expected == 3


def test_a_step_ahead_of_the_session_is_refused(store: Store) -> None:
    store.create(new())
    with pytest.raises(SequenceConflict) as caught:
        store.replace(new(sequence=8), expected=7, kept={})
    assert caught.value.expected == 0


def test_an_ended_session_takes_no_further_step_and_can_be_read(store: Store) -> None:
    store.create(new())
    after = push(store, new(), ended=True)
    with pytest.raises(SessionEnded):
        push(store, after)
    assert store.read("s") == after


def test_a_session_may_end_without_a_push(store: Store) -> None:
    store.create(new())
    ended = new(ended=True, state=b"the end")
    store.replace(ended, expected=0, kept={})
    assert store.read("s") == ended


def test_whoever_repeats_a_push_of_an_ended_session_hears_where_it_stands(store: Store) -> None:
    store.create(new())
    push(store, new(), ended=True)
    with pytest.raises(SequenceConflict) as caught:
        push(store, new(), ended=True)
    assert caught.value.expected == 1


def test_only_the_last_answers_are_kept(url: str) -> None:
    with opened(url, kept_answers=3) as store:
        store.create(new())
        record = push(store, push(store, new()), number=2)
        assert list(store.answers_from("s", 0)) == [0, 1, 2]
        push(store, record, number=5)
        assert list(store.answers_from("s", 0)) == [5, 6, 7]
        assert (store.answer("s", 4), store.answer("s", 7)) == (None, kept_at(7))


def test_a_number_beyond_all_numbers_has_no_answer(store: Store) -> None:
    store.create(new())
    push(store, new())
    assert (store.answer("s", 10**30), store.answers_from("s", 10**30)) == (None, {})


# Many at once ----------------------------------------------------------------------------------------


def race(store: Store, barrier: Any, won: Any) -> None:
    """Push until `ROUNDS`, as everybody does; `won` hears of each step that was this racer's."""
    barrier.wait()
    while (record := store.read("s")).sequence < ROUNDS:
        with suppress(SequenceConflict):
            push(store, record)
            won.put(record.sequence)


def race_at(url: str, barrier: Any, won: Any) -> None:
    with opened(url, keys=()) as store:
        race(store, barrier, won)


def exactly_once(racers: list[Any], won: Any) -> bool:
    """Whether each step of the race was won, and by one racer."""
    for racer in racers:
        racer.start()
    steps = sorted(won.get(timeout=60) for _ in range(ROUNDS))
    for racer in racers:
        racer.join()
    return steps == list(range(ROUNDS)) and bool(won.empty())


def test_of_eight_threads_exactly_one_wins_each_step(store: Store) -> None:
    store.create(new())
    told = (store, threading.Barrier(8), won := queue.Queue[int]())
    assert exactly_once([threading.Thread(target=race, args=told) for _ in range(8)], won)


def test_of_three_processes_exactly_one_wins_each_step(url: str) -> None:
    with opened(url, keys=()) as store:
        store.create(new())
        told = (url, SPAWN.Barrier(3), won := SPAWN.Queue())
        racers = [SPAWN.Process(target=race_at, args=told) for _ in range(3)]
        assert exactly_once(racers, won)
        assert [racer.exitcode for racer in racers] == [0, 0, 0]
        assert store.read("s").state == state_at(ROUNDS)


def create_at(url: str, barrier: Any) -> None:
    barrier.wait()
    with opened(url) as store:
        store.create(new(f"of {os.getpid()}"))


def test_three_processes_may_open_a_new_file_at_once(sqlite_url: str) -> None:
    barrier = SPAWN.Barrier(3)
    creators = [SPAWN.Process(target=create_at, args=(sqlite_url, barrier)) for _ in range(3)]
    for creator in creators:
        creator.start()
    for creator in creators:
        creator.join()
    assert [creator.exitcode for creator in creators] == [0, 0, 0]


def push_on(store: Store, record: Record, *, pause_seconds: float) -> None:
    """Two pushes at a time, until the store refuses or the process is killed."""
    while True:
        record = push(store, record, number=2)
        time.sleep(pause_seconds)


def push_on_at(url: str) -> None:
    with opened(url, keys=()) as store:
        push_on(store, store.read("s"), pause_seconds=0)


def test_a_writer_killed_in_the_middle_leaves_whole_steps(url: str) -> None:
    with opened(url, keys=()) as store:
        store.create(new())
        for _ in range(3):
            goal = store.read("s").sequence + 50
            writer = SPAWN.Process(target=push_on_at, args=(url,))
            writer.start()
            while store.read("s").sequence < goal:
                time.sleep(0.001)
            writer.kill()
            writer.join()
            record = store.read("s")
            last = record.sequence - 1
            assert record.state == state_at(record.sequence)
            assert store.answers_from("s", last - 1) == {last - 1: kept_at(last - 1), last: kept_at(last)}


# Lifetimes -------------------------------------------------------------------------------------------


def test_a_session_left_alone_expires(url: str) -> None:
    with opened(url, idle_seconds=0.5) as store:
        store.create(new())
        after = push(store, new())
        time.sleep(0.6)
        with pytest.raises(SessionExpired):
            store.read("s")
        with pytest.raises(SessionExpired):
            push(store, after)
        assert (store.answer("s", 0), store.answers_from("s", 0)) == (None, {})


def test_each_push_prolongs_a_session(url: str) -> None:
    with opened(url, idle_seconds=4.0) as store:
        store.create(record := new())
        for _ in range(3):
            time.sleep(1.5)
            record = push(store, record)
        assert store.read("s") == record


def test_no_push_prolongs_a_session_beyond_its_absolute_lifetime(url: str) -> None:
    with opened(url, absolute_seconds=0.3) as store:
        store.create(new())
        with pytest.raises(SessionExpired):
            push_on(store, new(), pause_seconds=0.01)


def test_an_ended_session_is_kept_for_a_time_of_its_own(url: str) -> None:
    with opened(url, ended_seconds=0.5) as store:
        store.create(new())
        after = push(store, new(), ended=True)
        assert store.read("s") == after
        time.sleep(0.6)
        with pytest.raises(SessionExpired):
            store.read("s")


def test_an_expired_session_is_remembered_after_it_was_swept_and_then_forgotten(url: str) -> None:
    with opened(url, idle_seconds=0.1, remembered_seconds=1.0) as store:
        store.create(new())
        time.sleep(0.15)
        store.create(new("sweeps"))
        with pytest.raises(SessionExpired):
            store.read("s")
        time.sleep(1.0)
        store.create(new("sweeps again"))
        with pytest.raises(SessionNotFound):
            store.read("s")


# Forgetting ------------------------------------------------------------------------------------------


def test_all_sessions_of_an_owner_are_forgotten_and_no_others(store: Store) -> None:
    for name in "123":
        store.create(new(name))
    store.create(new("4", owner="bob"))
    after = push(store, new("1"))
    assert store.forget_all("ann") == 3
    for name in "123":
        with pytest.raises(SessionNotFound):
            store.read(name)
    with pytest.raises(SessionNotFound):
        push(store, after)  # by a replica that had it in its hands
    assert store.answers_from("1", 0) == {}
    assert store.read("4") == new("4", owner="bob")
    assert store.forget_all("ann") == 0


def test_what_was_forgotten_makes_room(url: str) -> None:
    with opened(url, max_per_owner=1, max_total=1) as store:
        store.create(new("1"))
        store.forget_all("ann")
        store.create(new("2"))
        assert store.read("2") == new("2")


def test_more_sessions_than_one_step_takes_are_all_forgotten(url: str) -> None:
    with opened(url, max_per_owner=2_000) as store:
        for number in range(1_203):
            store.create(new(f"s{number}", state=b"small"))
        assert store.forget_all("ann") == 1_203
        with pytest.raises(SessionNotFound):
            store.read("s1202")


def test_nothing_of_a_forgotten_session_is_left_in_any_file(sqlite_url: str, tmp_path: Path) -> None:
    """Not in a page that was given back, nor as a page once was, in the WAL."""
    with opened(sqlite_url, keys=()) as store, opened(sqlite_url, keys=()) as other:
        for number in range(20):
            store.create(record := new(f"s{number}", state=b"never seen again" * 1_000))
            push(other, record, state=b"never seen again" * 500)
        assert num_found(tmp_path, b"never seen again") >= 20 * 500
        store.forget_all("ann")
        assert num_found(tmp_path, b"never seen again", b"answer 0") == 0


def num_found(folder: Path, *words: bytes) -> int:
    return sum(path.read_bytes().count(word) for path in folder.rglob("*") if path.is_file() for word in words)


def test_nothing_is_left_in_redis(redis_url: str) -> None:
    with opened(redis_url) as store, redis.Redis.from_url(redis_url) as client:
        for number in range(3):
            store.create(new(f"s{number}"))
            push(store, new(f"s{number}"))
        assert len(client.keys("*")) == 2 * 3 + 2
        store.forget_all("ann")
        assert client.keys("*") == []


def test_whoever_reads_old_pages_is_told_of_and_the_next_call_leaves_nothing(sqlite_url: str, tmp_path: Path) -> None:
    with opened(sqlite_url, keys=()) as store, closing(sqlite3.connect(tmp_path / "sessions.db")) as reader:
        store.create(new(state=b"never seen again" * 1_000))
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM sessions").fetchone()
        with pytest.raises(StoreDown, match="ask again"):
            store.forget_all("ann")
        with pytest.raises(SessionNotFound):
            store.read("s")
        reader.execute("COMMIT")
        store.forget_all("ann")
        assert num_found(tmp_path, b"never seen again") == 0


def test_what_has_expired_is_gone_after_a_sweep(url: str, tmp_path: Path) -> None:
    with opened(url, keys=(), idle_seconds=0.1) as store:
        for number in range(100):
            store.create(new(f"s{number}", state=b"never seen again"))
        time.sleep(0.15)
        store.sweep()
        assert num_found(tmp_path, b"never seen again") == 0
        with pytest.raises(SessionExpired):
            store.read("s99")


def test_a_sweep_leaves_what_lives(store: Store) -> None:
    store.create(new())
    assert store.sweep() == 0
    assert store.read("s") == new()


def test_names_of_what_has_expired_are_forgotten_in_their_time(url: str) -> None:
    with opened(url, idle_seconds=0.1, remembered_seconds=0.1) as store:
        store.create(new())
        time.sleep(0.15)
        store.sweep()
        time.sleep(0.15)
        store.create(new("other"))  # Redis looks then
        store.sweep()
        with pytest.raises(SessionNotFound):
            store.read("s")


# Caps ------------------------------------------------------------------------------------------------


def test_an_owner_may_have_so_many_sessions(url: str) -> None:
    with opened(url, max_per_owner=2) as store:
        store.create(new("1"))
        store.create(new("2"))
        with pytest.raises(TooManySessions, match="2 sessions of this caller"):
            store.create(new("3"))
        store.create(new("3", owner="bob"))
        with pytest.raises(SessionNotFound):
            store.read("4")


def test_callers_without_a_key_share_the_total(url: str) -> None:
    with opened(url, max_per_owner=1, max_total=3) as store:
        for name in "123":
            store.create(new(name, owner=""))
        with pytest.raises(TooManySessions, match="3 sessions of all callers"):
            store.create(new("4", owner="bob"))


def test_a_deleted_session_makes_room(url: str) -> None:
    with opened(url, max_per_owner=1, max_total=1) as store:
        store.create(new("1"))
        store.delete("1")
        store.create(new("2"))
        assert store.read("2") == new("2")


def test_an_expired_session_makes_room(url: str) -> None:
    with opened(url, max_per_owner=1, max_total=1, idle_seconds=0.5) as store:
        store.create(new("1"))
        with pytest.raises(TooManySessions):
            store.create(new("2"))
        time.sleep(0.6)
        store.create(new("2"))
        assert store.read("2") == new("2")


def test_a_prolonged_session_keeps_its_place(url: str) -> None:
    with opened(url, max_per_owner=1, idle_seconds=4.0) as store:
        store.create(new("1"))
        time.sleep(2.2)
        push(store, new("1"))
        time.sleep(2.2)
        with pytest.raises(TooManySessions):
            store.create(new("2"))


def test_ten_thousand_sessions_left_open_are_all_there_and_the_next_is_refused(url: str) -> None:
    with opened(url, max_per_owner=20_000) as store:
        for number in range(10_000):
            store.create(new(f"s{number}", state=b"small"))
        with pytest.raises(TooManySessions, match="10,000 sessions of all callers"):
            store.create(new("one more"))
        assert store.read("s9999").state == b"small"


def test_expired_sessions_do_not_stay_in_the_file(sqlite_url: str) -> None:
    path = Path(sqlite_url.removeprefix("sqlite://"))
    with opened(sqlite_url, idle_seconds=0.001, remembered_seconds=0.001) as store:
        for number in range(300):
            store.create(new(f"s{number}"))
    with closing(sqlite3.connect(path)) as connection:
        (living,) = connection.execute("SELECT count(*) FROM sessions").fetchone()
        (remembered,) = connection.execute("SELECT count(*) FROM expired").fetchone()
    assert living + remembered < 60
    assert path.stat().st_size < 50 * len(state_at(0))


def test_redis_forgets_all_of_a_session_that_has_expired(redis_url: str) -> None:
    with opened(redis_url, idle_seconds=0.5, absolute_seconds=0.6, remembered_seconds=0.05) as store:
        store.create(new())
        push(store, new())
    time.sleep(0.8)
    with redis.Redis.from_url(redis_url) as client:
        assert [key for key in client.scan_iter() if client.exists(key)] == []


# Encrypted -------------------------------------------------------------------------------------------


def sqlite_content(url: str) -> bytes:
    path = Path(url.removeprefix("sqlite://"))
    return b"".join(file.read_bytes() for file in sorted(path.parent.glob(path.name + "*")))


def redis_content(url: str) -> bytes:
    with redis.Redis.from_url(url) as client:
        keys: Any = client.keys("vidseq:[sa]*:*")
        return b"".join(name + value for key in keys for name, value in client.hgetall(key).items())


CONTENT = {"sqlite": sqlite_content, "redis": redis_content}


@pytest.mark.parametrize(("keys", "plain"), [((), True), (KEYS, False)], ids=["without a key", "with a key"])
def test_with_a_key_no_state_and_no_answer_is_kept_in_plain_bytes(
    url: str, keys: tuple[bytes, ...], plain: bool
) -> None:
    with opened(url, keys=keys) as store:
        store.create(new())
        push(store, new())
        content = CONTENT[url.partition(":")[0]](url)
    assert kept_at(0).digest in content
    assert (state_at(1)[:100] in content, kept_at(0).answer in content) == (plain, plain)


def test_another_key_opens_nothing(url: str) -> None:
    with opened(url) as store, opened(url, keys=load_keys(new_key())) as other:
        store.create(new())
        push(store, new())
        with pytest.raises(SealBroken):
            other.read("s")
        with pytest.raises(SealBroken):
            other.answer("s", 0)


def test_a_new_key_in_front_of_the_old_one_opens_what_was_kept_before(url: str) -> None:
    with opened(url) as store, opened(url, keys=load_keys(new_key()) + KEYS) as renewed:
        store.create(new())
        after = push(renewed, renewed.read("s"))
        assert renewed.read("s") == after
        with pytest.raises(SealBroken):
            store.read("s")


def test_a_state_put_into_another_session_does_not_open(sqlite_url: str) -> None:
    with opened(sqlite_url) as store:
        store.create(new("hers"))
        store.create(new("his"))
        with closing(sqlite3.connect(sqlite_url.removeprefix("sqlite://"))) as thief, thief:
            thief.execute(
                "UPDATE sessions SET state = (SELECT state FROM sessions WHERE session_id = 'hers')"
                " WHERE session_id = 'his'"
            )
        assert store.read("hers") == new("hers")
        with pytest.raises(SealBroken, match="state 0 of his"):
            store.read("his")


# Which store -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        "",
        "hunter2",
        "postgresql://ann:hunter2@db/x",
        "sqlite://",
        "sqlite:///",
        "sqlite://hunter2.db",
        "sqlite:///hunter2.db?mode=memory",
        "sqlite:///hunter2/is/no/folder.db",
        "redis://:hunter2@host:port",
        "redis://ann:hunter2",
        "redis://:hunter2@host?timeout_of_nowhere=1",
    ],
)
def test_what_is_no_url_of_a_store_is_refused_without_a_password_in_the_words(url: str) -> None:
    with pytest.raises(OptionError) as caught:
        opened(url)
    assert "hunter2" not in str(caught.value).replace("/hunter2/is/no/folder.db", "")
    assert caught.value.__cause__ is None


def test_a_file_that_is_no_database_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "letter.txt"
    path.write_text("Dear Sir, " * 100)
    with pytest.raises(OptionError, match=r"letter\.txt cannot be the store of sessions: file is not a database"):
        opened(f"sqlite://{path}")
    assert path.read_text() == "Dear Sir, " * 100


def test_a_store_of_another_version_is_refused(sqlite_url: str) -> None:
    opened(sqlite_url).thing.close()
    with closing(sqlite3.connect(sqlite_url.removeprefix("sqlite://"))) as connection:
        connection.execute("PRAGMA user_version = 7")
    with pytest.raises(OptionError, match="version is 7, not 1"):
        opened(sqlite_url)


@pytest.mark.parametrize("existing", [[], ["sessions.db"]], ids=["a new file", "a file that all may read"])
def test_only_its_owner_may_read_the_file(sqlite_url: str, existing: list[str]) -> None:
    path = Path(sqlite_url.removeprefix("sqlite://"))
    before = os.umask(0)
    for name in existing:
        path.with_name(name).touch()
    try:
        with opened(sqlite_url) as store:
            store.create(new())
            modes = {file.name: file.stat().st_mode & 0o777 for file in path.parent.glob("sessions.db*")}
    finally:
        os.umask(before)
    assert modes == dict.fromkeys(["sessions.db", "sessions.db-wal", "sessions.db-shm"], 0o600)


# When the store fails --------------------------------------------------------------------------------


def test_a_full_disk_is_told_and_the_store_goes_on_when_there_is_space(sqlite_url: str) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with opened(sqlite_url) as store:
        store.create(new())
        resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, hard))
        try:
            with pytest.raises(StoreDown, match="the store of sessions failed: "):
                push_on(store, new(), pause_seconds=0)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        record = store.read("s")
        assert push(store, record) == store.read("s")


def test_a_redis_that_is_not_there_is_told_without_its_password(caplog: pytest.LogCaptureFixture) -> None:
    with opened("redis://:hunter2@127.0.0.1:1/0") as store, pytest.raises(StoreDown) as caught:
        store.read("s")
    assert str(caught.value) == "the store of sessions failed (ConnectionError)"
    assert "127.0.0.1:1" in caplog.text
    assert "hunter2" not in caplog.text


def test_a_redis_that_wants_another_password_is_told_without_either(
    redis_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    with opened(redis_url.replace(PASSWORD, "hunter2")) as store, pytest.raises(StoreDown) as caught:
        store.create(new())
    assert str(caught.value) == "the store of sessions failed (AuthenticationError)"
    assert "hunter2" not in caplog.text
    assert PASSWORD not in caplog.text


def test_a_session_created_is_created_though_the_answer_was_lost(redis_url: str) -> None:
    with losing_one_answer(redis_url) as wire, opened(redis_url) as direct, opened(wire, max_total=1) as store:
        direct.create(new("loads the script"))
        direct.delete("loads the script")
        store.create(new())
        assert direct.read("s") == new()


def test_a_step_made_is_made_though_the_answer_was_lost(redis_url: str) -> None:
    with losing_one_answer(redis_url) as wire, opened(redis_url) as direct, opened(wire) as store:
        direct.create(new())
        before = push(direct, new())
        after = push(store, before)
        assert direct.read("s") == after
