"""Who executes a request with a key, and what is kept of it: raced for, taken over, late, sealed, old, forgotten."""

import multiprocessing
import os
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from typing import Any

import pytest
from databases import *  # noqa: F403  fixtures
from sqlalchemy import select, update

from serving.database.core import Database
from serving.database.tables import idempotent_answers
from serving.once.kept import SWEPT_AT_ONCE, Answer, Claim, ClaimLost, Held, Kept, OnceSettings
from serving.once.question import Question
from serving.problems import AskedOtherwise, StillRunning
from serving.sealing import SealBroken, Vault, load_keys, new_key

SPAWN = multiprocessing.get_context("spawn")
KEYS = load_keys(new_key())
QUESTION = Question(owner="ann", key_sha256=b"k" * 32, asked_sha256=b"a" * 32, model_sha256="0" * 64)
ANSWER = Answer(200, b'{"action": "a secret walk"}' * 40)


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    with closing(Database(database_url)) as database:
        yield database


@pytest.fixture
def kept(database: Database) -> Kept:
    return kept_in(database, lease_seconds=1000)  # a machine that stands still for seconds makes none of them late


def kept_in(database: Database, *, keys: Any = KEYS, **settings: Any) -> Kept:
    return Kept(database, Vault(keys), OnceSettings.model_validate(settings))


def claimed(kept: Kept, question: Question = QUESTION) -> Claim:
    claim = kept.claim(question)
    assert isinstance(claim, Claim)
    return claim


def answer(kept: Kept, question: Question = QUESTION, given: Answer = ANSWER) -> None:
    assert kept.keep(claimed(kept, question), given)


def rows(database: Database) -> list[Any]:
    with database.reading() as connection:
        return list(connection.execute(select(idempotent_answers)))


def pass_time(database: Database, seconds: float) -> None:
    """What was written is so much older."""
    columns = idempotent_answers.c
    with database.writing() as connection:
        times = {name: columns[name] - seconds for name in ("lease_ends_at", "expires_at")}
        connection.execute(update(idempotent_answers).values(times))


# One request ----------------------------------------------------------------------------------------


def test_an_answer_is_given_again_as_it_was(kept: Kept) -> None:
    answer(kept)
    assert kept.claim(QUESTION) == kept.claim(QUESTION) == kept.standing(QUESTION) == ANSWER


def test_while_one_executes_another_hears_when_to_ask_again(kept: Kept) -> None:
    claimed(kept)
    with pytest.raises(StillRunning) as caught:
        kept.claim(QUESTION)
    assert 0 < caught.value.retry_after_seconds <= 1


@pytest.mark.parametrize("owner", ["ben", ""])
def test_the_same_key_of_another_owner_is_another_request(kept: Kept, owner: str) -> None:
    answer(kept)
    other = replace(QUESTION, owner=owner, asked_sha256=b"b" * 32)
    answer(kept, other, Answer(422, b"no"))
    assert (kept.claim(QUESTION), kept.claim(other)) == (ANSWER, Answer(422, b"no"))


@pytest.mark.parametrize("answered", [True, False])
def test_the_same_key_for_another_request_is_refused(kept: Kept, answered: bool) -> None:
    claim = claimed(kept)
    assert not answered or kept.keep(claim, ANSWER)
    with pytest.raises(AskedOtherwise, match="another video or with other options"):
        kept.claim(replace(QUESTION, asked_sha256=b"b" * 32))


def test_what_another_model_has_answered_is_refused(kept: Kept) -> None:
    answer(kept)
    with pytest.raises(AskedOtherwise, match="model 000000000000, which was replaced"):
        kept.claim(replace(QUESTION, model_sha256="1" * 64))


def test_a_new_model_takes_over_what_the_old_one_never_answered(kept: Kept) -> None:
    kept.release(claimed(kept))
    answer(kept, replace(QUESTION, model_sha256="1" * 64))


def test_who_gives_up_leaves_it_to_the_next(kept: Kept, database: Database) -> None:
    kept.release(claimed(kept))
    answer(kept)
    assert [row.attempts for row in rows(database)] == [2]


def test_what_is_too_large_is_not_kept_and_executes_again(database: Database) -> None:
    kept = kept_in(database, max_answer_bytes=1_000)
    assert not kept.keep(claimed(kept), Answer(200, os.urandom(1_000)))
    assert kept.keep(claimed(kept), Answer(200, bytes(50_000)))  # compressed it is small
    assert kept.claim(QUESTION) == Answer(200, bytes(50_000))


# Races, deaths, delays ----------------------------------------------------------------------------------------


def claim_at(url: str, barrier: Any, won: Any) -> None:
    with closing(Database(url)) as database:
        kept = kept_in(database)
        for number in range(40):
            barrier.wait()
            try:
                kept.claim(replace(QUESTION, key_sha256=number.to_bytes(32)))
                won.put(number)
            except StillRunning:
                pass


def test_of_processes_that_claim_at_once_one_executes(database_url: str, database: Database) -> None:
    database.prepare()
    barrier, won = SPAWN.Barrier(3), SPAWN.Queue()
    racers = [SPAWN.Process(target=claim_at, args=(database_url, barrier, won)) for _ in range(3)]
    for racer in racers:
        racer.start()
    winners = sorted(won.get(timeout=120) for _ in range(40))
    for racer in racers:
        racer.join(60)
    assert winners == list(range(40))
    assert won.empty()
    assert {row.attempts for row in rows(database)} == {1}


def test_the_claim_of_who_has_died_is_taken_over_when_its_lease_has_run_out(kept: Kept, database: Database) -> None:
    claimed(kept)
    pass_time(database, 900)
    with pytest.raises(StillRunning):
        kept.claim(QUESTION)
    pass_time(database, 200)
    answer(kept)
    assert [row.attempts for row in rows(database)] == [2]


def test_of_several_who_take_over_one_does(kept: Kept, database: Database) -> None:
    claimed(kept)
    pass_time(database, 1100)
    outcomes: list[str] = []

    def take_over() -> None:
        try:
            outcomes.append(type(kept.claim(QUESTION)).__name__)
        except StillRunning as error:
            outcomes.append(type(error).__name__)

    threads = [threading.Thread(target=take_over) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["Claim", "StillRunning", "StillRunning", "StillRunning"]


def test_a_claim_that_is_renewed_lasts(kept: Kept, database: Database) -> None:
    claim = claimed(kept)
    pass_time(database, 900)
    kept.renew(claim)
    pass_time(database, 900)
    with pytest.raises(StillRunning):
        kept.claim(QUESTION)


def test_who_comes_late_changes_nothing_and_hears_what_was_answered(kept: Kept, database: Database) -> None:
    late = claimed(kept)
    pass_time(database, 1100)
    answer(kept)
    kept.renew(late)
    kept.release(late)
    with pytest.raises(ClaimLost):
        kept.keep(late, Answer(200, b"other"))
    assert kept.standing(QUESTION) == kept.claim(QUESTION) == ANSWER


def test_who_comes_late_while_another_executes_must_not_answer(kept: Kept, database: Database) -> None:
    late = claimed(kept)
    pass_time(database, 1100)
    second = claimed(kept)
    with pytest.raises(ClaimLost):
        kept.keep(late, Answer(200, b"other"))
    with pytest.raises(StillRunning):
        kept.standing(QUESTION)
    assert kept.keep(second, ANSWER)


def test_a_lease_that_has_run_out_is_good_as_long_as_nobody_took_over(kept: Kept, database: Database) -> None:
    claim = claimed(kept)
    pass_time(database, 1100)
    assert kept.keep(claim, ANSWER)
    assert kept.claim(QUESTION) == ANSWER


# Rest, age, deletion ----------------------------------------------------------------------------------------


def test_at_rest_nothing_can_be_read(kept: Kept, database: Database) -> None:
    answer(kept)
    (row,) = rows(database)
    assert b"secret" not in row.answer
    with pytest.raises(SealBroken):
        kept_in(database, keys=load_keys(new_key())).claim(QUESTION)


def test_an_answer_cannot_be_put_in_anothers_place(kept: Kept, database: Database) -> None:
    other = replace(QUESTION, owner="ben")
    answer(kept)
    answer(kept, other, Answer(200, b"ben's"))
    stolen = next(row.answer for row in rows(database) if row.owner == "ben")
    with database.writing() as connection:
        connection.execute(update(idempotent_answers).where(idempotent_answers.c.owner == "ann").values(answer=stolen))
    with pytest.raises(SealBroken):
        kept.claim(QUESTION)


def test_an_answer_that_is_too_old_is_none(kept: Kept, database: Database) -> None:
    answer(kept)
    pass_time(database, 24 * 3600 - 60)
    assert kept.claim(QUESTION) == ANSWER
    pass_time(database, 61)
    answer(kept, replace(QUESTION, asked_sha256=b"b" * 32), Answer(200, b"new"))
    assert [row.attempts for row in rows(database)] == [1]


def test_what_is_too_old_is_swept_and_nothing_else(kept: Kept, database: Database) -> None:
    num_old = SWEPT_AT_ONCE + 5
    for number in range(num_old):
        claimed(kept, replace(QUESTION, key_sha256=number.to_bytes(32)))
    pass_time(database, 24 * 3600 + 1)
    answer(kept)
    assert (kept.sweep(), kept.sweep()) == (num_old, 0)
    assert kept.claim(QUESTION) == ANSWER


def test_all_of_an_owner_can_be_counted_and_forgotten(kept: Kept, database: Database) -> None:
    other = replace(QUESTION, owner="ben")
    answer(kept)
    claimed(kept, replace(QUESTION, key_sha256=b"other"))
    answer(kept, other)
    held = kept.held("ann")
    assert held.num_requests == 2 and 0 < held.num_bytes == len(next(r.answer for r in rows(database) if r.status))
    assert kept.forget("ann") == 2
    assert (kept.held("ann"), kept.held("ben").num_requests) == (Held(0, 0), 1)


def test_what_was_forgotten_while_it_executed_is_not_kept(kept: Kept) -> None:
    claim = claimed(kept)
    kept.forget("ann")
    with pytest.raises(ClaimLost):
        kept.keep(claim, ANSWER)
    with pytest.raises(StillRunning):
        kept.standing(QUESTION)
    assert kept.held("ann") == Held(0, 0)


def test_the_lease_is_that_of_the_databases_clock(database: Database) -> None:
    kept = kept_in(database, lease_seconds=0.2)
    claimed(kept)
    time.sleep(0.3)
    claimed(kept)
