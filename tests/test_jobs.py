"""Jobs as rows: made once, leased by one, ended once, cancelled, expired, forgotten; on SQLite and on PostgreSQL."""

import json
import multiprocessing
import random
import threading
import time
import tracemalloc
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from databases import *  # noqa: F403  fixtures
from pydantic import ValidationError
from sqlalchemy import Connection, insert, select, update

from serving.database.core import Database
from serving.database.errors import DatabaseDown
from serving.database.tables import deliveries, job_items, jobs, uploads
from serving.jobs.asked import JobAsked
from serving.jobs.errors import JobNotFound, TooManyItems, TooManyJobs, WebhookNotAllowed
from serving.jobs.jobs import MAX_PAGE_BYTES
from serving.jobs.queue import Leased
from serving.jobs.settings import MAX_ITEMS, JobSettings
from serving.once.kept import Answer
from serving.problems import AskedOtherwise
from serving.sealing import SealBroken, Vault, load_keys, new_key
from serving.uploads.errors import UploadIncomplete, UploadNotFound
from tests.toy_jobs import ANSWER, OWNER, PROBLEM, REFUSED, SECRET, Kept, asked_for, inline, webhook
from vidseq.errors import OptionError

SPAWN = multiprocessing.get_context("spawn")
KEY = b"k" * 32


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    with closing(Database(database_url)) as database:
        yield database


@pytest.fixture
def kept(database: Database, tmp_path: Path) -> Kept:
    return kept_in(database, tmp_path)


def kept_in(database: Database, tmp_path: Path, **settings: Any) -> Kept:
    return Kept(database, tmp_path / "uploads", JobSettings.model_validate(settings))


TIMES = {
    jobs: ("created_at", "finished_at", "expires_at"),
    job_items: ("due_at",),
    deliveries: ("due_at",),
    uploads: ("expires_at",),
}


def pass_time(kept: Kept, seconds: float, *, of: Any = tuple(TIMES)) -> None:
    """What was written is so much older."""
    with kept.database.writing() as connection:
        for table in of:
            names = TIMES[table]
            connection.execute(update(table).values({name: table.c[name] - seconds for name in names}))


def count(kept: Kept, table: Any) -> int:
    with kept.database.reading() as connection:
        return len(connection.execute(select(table)).all())


def leased(kept: Kept, most: int = 1, *, suspected: bool = False, last: bool = True) -> Leased:
    (item,) = kept.queue.lease(most, suspected=suspected, last=last)
    return item


# Made --------------------------------------------------------------------------------------------


def test_a_job_is_queued_then_runs_then_has_succeeded(kept: Kept) -> None:
    job = kept.job(2)
    assert (job.state, job.num_items, job.finished_at) == ("queued", 2, None)
    first, second = kept.queue.lease(10)
    assert kept.now(job).state == "running"
    assert kept.end(second) and kept.now(job).num_succeeded == 1
    assert kept.end(first)
    ended = kept.now(job)
    assert (ended.state, ended.num_succeeded, ended.num_failed) == ("succeeded", 2, 0)
    assert ended.finished_at is not None and ended.ended


def test_results_are_in_the_order_of_the_job_page_by_page(kept: Kept) -> None:
    items = [{"upload": kept.upload(), "custom_id": f"my {n}"} for n in range(5)]
    job = kept.jobs.create(OWNER, asked_for(items)).job
    for item in reversed(kept.queue.lease(3)):
        kept.end(item, REFUSED if item.position == 1 else ANSWER)
    page = kept.jobs.results(OWNER, job.id, after=None, limit=4)
    assert [result.custom_id for result in page.results] == ["my 0", "my 1", "my 2", "my 3"]
    assert [result.state for result in page.results] == ["succeeded", "failed", "succeeded", "queued"]
    assert page.results[1].problem == PROBLEM and page.results[1].prediction is None
    assert page.results[0].prediction is not None and page.results[0].prediction.action is not None
    rest = kept.jobs.results(OWNER, job.id, after=int(page.next or ""), limit=4)
    assert [result.position for result in rest.results] == [4] and rest.next is None


def test_a_page_of_large_results_is_a_short_one(kept: Kept) -> None:
    problem = PROBLEM.model_copy(update={"detail": random.Random(0).randbytes(MAX_PAGE_BYTES // 3).hex()})
    large = Answer(422, problem.model_dump_json(exclude_none=True).encode())
    job = kept.job(4)
    for item in kept.queue.lease(4):
        kept.end(item, large)
    found, after, num_pages = list[int](), None, 0
    while num_pages == 0 or after is not None:
        page = kept.jobs.results(OWNER, job.id, after=after, limit=9)
        found += [result.position for result in page.results]
        after, num_pages = None if page.next is None else int(page.next), num_pages + 1
    assert found == [0, 1, 2, 3] and num_pages > 1


def test_a_job_with_an_item_that_failed_has_failed(kept: Kept) -> None:
    job = kept.job(2)
    first, second = kept.queue.lease(2)
    kept.end(first, REFUSED)
    assert kept.now(job).state == "running"
    kept.end(second)
    assert (kept.now(job).state, kept.now(job).num_failed) == ("failed", 1)


def test_small_clips_come_with_the_job(kept: Kept) -> None:
    job = kept.jobs.create(OWNER, asked_for([inline(b"all of it", custom_id="c"), {"upload": kept.upload()}])).job
    item = kept.queue.lease(2)[0]
    assert item.job_id == job.id
    with kept.uploads.opened(OWNER, item.upload_id) as video:
        assert video.read() == b"all of it"


def test_a_key_makes_one_job(kept: Kept) -> None:
    asked = asked_for([inline(b"clip")])
    first = kept.jobs.create(OWNER, asked, key_sha256=KEY)
    again = kept.jobs.create(OWNER, asked, key_sha256=KEY)
    assert (first.before, again.before, first.job.id) == (False, True, again.job.id)
    assert count(kept, jobs) == count(kept, uploads) == 1
    with pytest.raises(AskedOtherwise):
        kept.jobs.create(OWNER, asked_for([inline(b"another")]), key_sha256=KEY)
    assert not kept.jobs.create("another", asked, key_sha256=KEY).before


def test_a_job_of_videos_that_are_not_there_is_none(kept: Kept) -> None:
    theirs = kept.upload(owner="another")
    half = kept.uploads.create(OWNER, num_bytes=5).id
    for upload, error in ((theirs, UploadNotFound), ("f" * 32, UploadNotFound), (half, UploadIncomplete)):
        with pytest.raises(error):
            kept.jobs.create(OWNER, asked_for([inline(b"goes again"), {"upload": upload}]))
    assert count(kept, jobs) == count(kept, job_items) == 0
    assert count(kept, uploads) == 2, "what came with a job that is none is left"


class Unheard(Database):
    """Commits; the word of it is lost on its way."""

    @contextmanager
    def writing(self, *, durably: bool = False) -> Iterator[Connection]:
        with super().writing(durably=durably) as connection:
            yield connection
        if durably:
            raise DatabaseDown("the connection was lost")


def test_a_job_of_which_no_word_came_back_keeps_its_clips(database_url: str, tmp_path: Path) -> None:
    asked = asked_for([inline(b"all of it")])
    with closing(Unheard(database_url)) as database:
        kept = Kept(database, tmp_path / "uploads")
        with pytest.raises(DatabaseDown):
            kept.jobs.create(OWNER, asked, key_sha256=KEY)
        assert kept.jobs.create(OWNER, asked, key_sha256=KEY).before
        with kept.uploads.opened(OWNER, leased(kept).upload_id) as video:
            assert video.read() == b"all of it"


def test_too_much_is_refused(database: Database, tmp_path: Path) -> None:
    kept = kept_in(database, tmp_path, max_items=2, max_unfinished=1, max_time_to_live_seconds=7 * 86400)
    with pytest.raises(TooManyItems, match="3 items; at most 2"):
        kept.job(3)
    with pytest.raises(OptionError, match="at most 604,800"):
        kept.job(time_to_live_seconds=604801)
    with pytest.raises(WebhookNotAllowed):
        kept.job(webhook=webhook("http://example.org"))
    kept.job()
    with pytest.raises(TooManyJobs):
        kept.job()
    kept.job(owner="another")


@pytest.mark.parametrize(
    "odd",
    [
        {"items": []},
        {"items": [{}]},
        {"items": [{"upload": "a", "clip": "YQ=="}]},
        {"items": [{"clip": "no base64!"}]},
        {"items": [{"upload": "a", "custom_id": "twice"}, {"upload": "b", "custom_id": "twice"}]},
        {"items": [{"upload": "a", "custom_id": "ü"}]},
        {"items": [{"upload": "a"}], "options": {"top_k": 0}},
        {"items": [{"upload": "a"}], "webhook": {"url": "https://e.org", "secret": "short"}},
        {"items": [{"upload": "a"}], "webhook": {"url": "ftp://e.org", "secret": SECRET}},
        {"items": [{"upload": "a"}], "webhook": {"url": "https://me:pw@e.org", "secret": SECRET}},
        {"items": [{"upload": "a"}], "webhook": {"url": "https://e.org:99999/", "secret": SECRET}},
        {"items": [{"upload": "a"}], "webhook": {"url": "https://e.org/a b", "secret": SECRET}},
        {"items": [{"upload": "a"}], "webhook": {"url": "https://a..b/", "secret": SECRET}},
        {"items": [{"upload": "a"}], "webhook": {"url": f"https://{'a' * 64}.com/", "secret": SECRET}},
        {"items": [{"upload": "a"}], "time_to_live_seconds": 0},
    ],
)
def test_what_is_no_job_is_refused(odd: dict[str, Any]) -> None:
    with pytest.raises(ValidationError) as refused:
        asked_for(**odd)
    assert SECRET not in str(refused.value)


def test_jobs_are_listed_the_newest_first_page_by_page(kept: Kept) -> None:
    made = [kept.job().id for _ in range(5)]
    kept.job(owner="another")
    first = kept.jobs.page(OWNER, after=None, limit=3)
    rest = kept.jobs.page(OWNER, after=first.next, limit=3)
    assert [job.id for job in first.jobs + rest.jobs] == made[::-1] and rest.next is None


def test_a_key_has_no_more_than_so_many_items_in_all(database: Database, tmp_path: Path) -> None:
    kept = kept_in(database, tmp_path, max_kept_items=3)
    job = kept.job(2)
    kept.jobs.cancel(OWNER, job.id)
    with pytest.raises(TooManyJobs, match="delete those"):
        kept.job(2)
    kept.jobs.delete(OWNER, job.id)
    kept.job(2)


@pytest.mark.parametrize("job_id", ["", "job_", "job_" + "g" * 32, "job_\0", "../x", "job_" + "0" * 33])
def test_what_is_no_id_is_not_looked_for(kept: Kept, job_id: str) -> None:
    with pytest.raises(JobNotFound):
        kept.jobs.get(OWNER, job_id)


def test_the_same_request_finds_its_job_though_what_it_names_has_changed(kept: Kept) -> None:
    """As where `all` are other models by now."""
    first = kept.jobs.create(OWNER, asked_for([inline(b"1")]), key_sha256=KEY, asked_sha256=b"sent")
    other = asked_for([inline(b"1")], options={"model": "new"})
    assert kept.jobs.create(OWNER, other, key_sha256=KEY, asked_sha256=b"sent").job.id == first.job.id


def test_another_owner_finds_nothing(kept: Kept) -> None:
    job = kept.job()
    for ask in (kept.jobs.get, kept.jobs.cancel, kept.jobs.delete, kept.jobs.deliveries):
        with pytest.raises(JobNotFound):
            ask("another", job.id)
    with pytest.raises(JobNotFound):
        kept.jobs.results("another", job.id, after=None, limit=1)
    assert kept.now(job).state == "queued"


def test_what_is_wrong_many_times_is_told_once_and_soon() -> None:
    swollen = json.dumps({"items": [{"upload": "a"}], **{f"no field {n}": n for n in range(200_000)}}).encode()
    twice = [{"upload": "a", "custom_id": str(n)} for n in range(9_999)] + [{"upload": "a", "custom_id": "9998"}]
    wrong = [{"upload": n, "none": n} for n in range(10_000)]
    for body, words in (
        (swollen, "200,001 fields"),
        (json.dumps({"items": [{"upload": "a"}] * 10_001}).encode(), "10,000 are the most"),
        (json.dumps({"items": twice}).encode(), "stands for more than one item"),
        (json.dumps({"items": wrong}).encode(), "items.0.upload"),
        (json.dumps({"items": [inline(b"c")] * 101}).encode(), "at most 100 clips"),
        (json.dumps({"items": [{"upload": "a"}], "x" * 10_000: 1}).encode(), "xxx"),
        (b"[" * 100_000, "no JSON"),
        (b"\xff", "no JSON"),
    ):
        begun = time.process_time()
        with pytest.raises(OptionError, match=words) as refused:
            JobAsked.read(body)
        assert len(str(refused.value)) < 400 and time.process_time() - begun < 5


@pytest.mark.parametrize("swollen", [b"[[[[]]]]", b'{"a":{"b":{}}}'])
def test_a_body_of_brackets_is_refused_before_anything_is_made_of_it(swollen: bytes) -> None:
    body = b'{"items":[' + b",".join([swollen] * (2**20 // len(swollen) * 4)) + b"]}"
    tracemalloc.start()
    try:
        with pytest.raises(OptionError, match="opening brackets"):
            JobAsked.read(body)
        _, most_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most_bytes < len(body) / 4


def test_the_largest_job_may_have_brackets_in_its_texts() -> None:
    items = [{"upload": "a", "custom_id": json.dumps({"of": [[{"n": n}], [{"m": {}}]]})} for n in range(MAX_ITEMS)]
    asked = JobAsked.read(json.dumps({"items": items, "options": {"model": ["a", "b"]}}).encode())
    assert len(asked.items) == MAX_ITEMS


# Leased ------------------------------------------------------------------------------------------


def test_of_several_jobs_one_item_each_comes_first(kept: Kept) -> None:
    long, short = kept.job(3), kept.job(1)
    assert [(item.job_id, item.position) for item in kept.queue.lease(3)] == [
        (long.id, 0),
        (short.id, 0),
        (long.id, 1),
    ]


def test_what_is_leased_is_nobody_elses_until_the_lease_has_run_out(kept: Kept) -> None:
    kept.job()
    item = leased(kept)
    assert kept.queue.lease(1) == []
    pass_time(kept, kept.settings.lease_seconds + 1)
    taken = leased(kept, suspected=True)
    assert (taken.attempts, taken.position, taken.token != item.token) == (2, item.position, True)
    assert not kept.end(item), "whoever was too late is not heard"
    assert kept.end(taken, REFUSED) and not kept.end(taken)


def test_who_renews_keeps_it(kept: Kept) -> None:
    job = kept.job(2)
    first, second = kept.queue.lease(2)
    pass_time(kept, 0.6 * kept.settings.lease_seconds)
    assert kept.queue.renew([first]) == []
    pass_time(kept, 0.6 * kept.settings.lease_seconds)
    assert leased(kept, 5, suspected=True).position == second.position
    assert kept.queue.renew([first, second]) == [second]
    kept.jobs.cancel(OWNER, job.id)
    assert kept.queue.renew([first]) == [first]


def test_who_comes_late_is_not_given_what_he_still_holds(kept: Kept) -> None:
    """As after a pause that was longer than a lease."""
    kept.job(2)
    held = kept.queue.lease(1)
    pass_time(kept, kept.settings.lease_seconds + 1)
    assert kept.queue.lease(5, suspected=True, held=held) == []
    assert [item.position for item in kept.queue.lease(5, held=held)] == [1]
    assert kept.queue.renew(held) == [] == kept.queue.lease(5, suspected=True)


def test_those_that_did_not_end_are_leased_apart(kept: Kept) -> None:
    kept.job(2)
    first, second = kept.queue.lease(2)
    kept.queue.put_back(first)
    kept.queue.put_back(second, counts=False)
    assert [item.position for item in kept.queue.lease(9)] == [second.position]
    assert [item.position for item in kept.queue.lease(9, suspected=True)] == [first.position]


def test_those_that_have_their_last_attempt_are_told_from_other_suspects(kept: Kept) -> None:
    kept.job(3, time_to_live_seconds=60)
    assert kept.queue.suspicion() == "none"
    first, second, third = kept.queue.lease(3)
    kept.queue.put_back(second)
    assert kept.queue.suspicion() == "some" and not kept.queue.is_last(second)
    kept.queue.put_back(replace(first, attempts=2))
    assert kept.queue.suspicion() == "last"
    assert leased(kept, 9, suspected=True, last=False).position == second.position
    last = leased(kept, 9, suspected=True)
    assert last.position == first.position and kept.queue.is_last(last)
    kept.queue.put_back(replace(third, attempts=2))
    pass_time(kept, 61, of=[jobs])
    assert kept.queue.suspicion() == "none", "nobody waits for one whose time is over"


def test_what_is_put_back_is_due_again_and_counts_where_it_is_to(kept: Kept) -> None:
    kept.job()
    kept.queue.put_back(leased(kept), counts=False)
    item = leased(kept)
    assert item.attempts == 1
    kept.queue.put_back(item, after_seconds=60)
    assert kept.queue.lease(1) == []
    pass_time(kept, 61)
    assert leased(kept, suspected=True).attempts == 2
    kept.queue.put_back(item)  # it is not his any more
    assert kept.queue.lease(1) == []


def work(url: str, folder: Path, keys: str, told: Any) -> None:
    with closing(Database(url)) as database:
        kept = Kept(database, folder, vault=Vault(load_keys(keys)))
        while items := kept.queue.lease(3):
            for item in items:
                told.put((item.position, kept.end(item)))
    told.put(None)


def test_several_processes_share_a_job_and_nothing_is_done_twice(database_url: str, tmp_path: Path) -> None:
    keys, told = new_key(), SPAWN.Queue()
    with closing(Database(database_url)) as database:
        kept = Kept(database, tmp_path, vault=Vault(load_keys(keys)))
        job = kept.job(60)
        workers = [SPAWN.Process(target=work, args=(database_url, tmp_path, keys, told)) for _ in range(3)]
        for worker in workers:
            worker.start()
        done, num_ended = [], 0
        while num_ended < len(workers):
            said = told.get(timeout=120)
            num_ended += said is None
            done += [] if said is None else [said]
        for worker in workers:
            worker.join(20)
        assert sorted(done) == [(position, True) for position in range(60)]
        assert (kept.now(job).state, kept.now(job).num_succeeded) == ("succeeded", 60)


# Ended -------------------------------------------------------------------------------------------


def test_what_is_cancelled_keeps_what_it_has_and_gets_no_more(kept: Kept) -> None:
    job = kept.job(3)
    first, second, _ = kept.queue.lease(3)
    kept.end(first)
    cancelled = kept.jobs.cancel(OWNER, job.id)
    assert (cancelled.state, cancelled.num_succeeded, cancelled.num_cancelled) == ("cancelled", 1, 2)
    assert not kept.end(second)
    assert kept.jobs.cancel(OWNER, job.id) == cancelled == kept.now(job)
    states = [result.state for result in kept.jobs.results(OWNER, job.id, after=None, limit=9).results]
    assert states == ["succeeded", "cancelled", "cancelled"]


def test_a_job_that_has_ended_is_not_cancelled(kept: Kept) -> None:
    job = kept.job()
    kept.end(leased(kept))
    assert kept.jobs.cancel(OWNER, job.id).state == "succeeded"


def test_what_is_deleted_is_gone_with_its_videos_but_not_with_those_of_others(kept: Kept) -> None:
    shared, own = kept.upload(b"shared"), kept.upload(b"own")
    job = kept.jobs.create(OWNER, asked_for([{"upload": shared}, {"upload": own}])).job
    kept.jobs.create(OWNER, asked_for([{"upload": shared}]))
    kept.jobs.delete(OWNER, job.id)
    with pytest.raises(JobNotFound):
        kept.now(job)
    kept.uploads.sweep()
    kept.uploads.opened(OWNER, shared).close()
    with pytest.raises(UploadNotFound):
        kept.uploads.opened(OWNER, own)


def test_videos_stay_as_long_as_a_job_needs_them_and_a_while_longer(kept: Kept) -> None:
    job = kept.job(time_to_live_seconds=20 * 86400)
    pass_time(kept, 19 * 86400)
    kept.uploads.sweep()
    item = leased(kept)
    kept.uploads.opened(OWNER, item.upload_id).close()
    kept.end(item)
    pass_time(kept, kept.settings.uploads_kept_seconds + 1)
    kept.uploads.sweep()
    with pytest.raises(UploadNotFound):
        kept.uploads.opened(OWNER, item.upload_id)
    assert kept.now(job).state == "succeeded"


def test_a_job_that_ends_leaves_the_videos_of_one_that_is_just_being_made(kept: Kept, database_url: str) -> None:
    upload = kept.upload()
    kept.jobs.create(OWNER, asked_for([{"upload": upload}]))
    item, far = leased(kept), time.time() + 1e6
    ending = threading.Thread(target=kept.end, args=(item,))
    with closing(Database(database_url)) as other, other.writing() as connection:
        kept.uploads.keep_until(connection, OWNER, [upload], far)
        row = {"id": "job_2", "owner": OWNER, "asked_sha256": b"", "options": "{}", "num_items": 1, "created_at": 0.0}
        counts = {"num_succeeded": 0, "num_failed": 0, "num_cancelled": 0}
        connection.execute(insert(jobs).values(row | counts | {"expires_at": far}))
        ending.start()
        time.sleep(0.5)  # it waits for the upload by now
        its = {"job_id": "job_2", "position": 0, "upload_id": upload, "attempts": 0, "due_at": far}
        connection.execute(insert(job_items).values(its))
    ending.join(20)
    with kept.database.reading() as connection:
        assert connection.execute(select(uploads.c.expires_at)).scalar_one() == far


def test_a_job_whose_time_is_over_is_neither_found_nor_begun_and_then_it_is_gone(kept: Kept) -> None:
    kept.job(5, time_to_live_seconds=60)
    other = kept.job()
    pass_time(kept, 61)
    assert [item.job_id for item in kept.queue.lease(9)] == [other.id]
    assert [job.id for job in kept.jobs.page(OWNER, after=None, limit=9).jobs] == [other.id]
    assert kept.jobs.sweep() == 1
    assert (count(kept, jobs), count(kept, job_items)) == (1, 1)


def test_who_is_forgotten_leaves_nothing(kept: Kept, tmp_path: Path) -> None:
    for _ in range(25):
        kept.job(webhook=webhook("https://example.org"))
    kept.end(leased(kept))
    theirs = kept.job(owner="another")
    assert kept.jobs.forget(OWNER) == 25
    assert (count(kept, jobs), count(kept, job_items), count(kept, deliveries)) == (1, 1, 0)
    assert kept.now(theirs, owner="another").state == "queued"


# Sealed ------------------------------------------------------------------------------------------


def test_results_and_secrets_are_sealed_each_in_its_place(kept: Kept) -> None:
    job = kept.job(2, webhook=webhook("https://example.org/hook"))
    first, second = kept.queue.lease(2)
    kept.end(first)
    kept.end(second, REFUSED)
    with kept.database.writing() as connection:
        rows = [*connection.execute(select(job_items)), *connection.execute(select(jobs))]
        assert not any(secret in repr(rows) for secret in ("walk", PROBLEM.detail, SECRET))
        answers = {row.position: row.answer for row in connection.execute(select(job_items))}
        swapped = update(job_items).where(job_items.c.position == 0).values(answer=answers[1])
        connection.execute(swapped)
    with pytest.raises(SealBroken):
        kept.jobs.results(OWNER, job.id, after=None, limit=1)


# Messages ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("answer", "state"), [(ANSWER, "succeeded"), (REFUSED, "failed")])
def test_a_job_that_has_ended_has_one_message(kept: Kept, answer: Answer, state: str) -> None:
    job = kept.job(webhook=webhook("https://example.org/hook"))
    assert kept.outbox.lease(9) == []
    kept.end(leased(kept), answer)
    (message,) = kept.outbox.lease(9)
    assert (message.url, message.secret, message.attempts) == ("https://example.org/hook", SECRET, 1)
    assert f'"job.{state}"'.encode() in message.body and job.id.encode() in message.body
    assert kept.outbox.lease(9) == [], "it is being sent"
    (told,) = kept.jobs.deliveries(OWNER, job.id)
    assert (told.state, told.type, told.attempts, told.id) == ("pending", f"job.{state}", 1, message.id)


def test_a_message_whose_sender_has_died_is_sent_again_under_the_same_id(kept: Kept) -> None:
    kept.job(webhook=webhook("https://example.org/hook"))
    kept.end(leased(kept))
    (message,) = kept.outbox.lease(9)
    pass_time(kept, 3 * kept.settings.webhooks.timeout_seconds + 1, of=[deliveries])
    (again,) = kept.outbox.lease(9)
    assert replace(again, token=message.token, attempts=1) == message and again.attempts == 2


def test_a_message_whose_secret_does_not_open_is_no_reason_to_send_no_other(kept: Kept) -> None:
    for _ in range(2):
        kept.job(webhook=webhook("https://example.org/hook"))
    for item in kept.queue.lease(9):
        kept.end(item)
    with kept.database.writing() as connection:
        first = select(jobs.c.id).limit(1).scalar_subquery()
        connection.execute(update(jobs).where(jobs.c.id == first).values(webhook_secret=b"of another key"))
    assert sorted(message.secret is None for message in kept.outbox.lease(9)) == [False, True]


def ended_jobs(kept: Kept, *owners: str) -> None:
    """A message is due for each, in this order."""
    for owner in owners:
        job = kept.job(owner=owner, webhook=webhook("https://example.org/hook"))
        kept.jobs.cancel(owner, job.id)


def test_messages_of_several_owners_are_sent_in_turn(kept: Kept) -> None:
    ended_jobs(kept, "a", "a", "a", "a", "a", "b", "c", "c")
    assert sorted(message.owner for message in kept.outbox.lease(5)) == ["a", "a", "b", "c", "c"]
    assert [message.owner for message in kept.outbox.lease(9)] == ["a", "a", "a"], "where nobody else waits"


def test_whose_messages_are_being_sent_has_the_next_turn_after_others(kept: Kept) -> None:
    ended_jobs(kept, "a", "a", "b", "c")
    assert [message.owner for message in kept.outbox.lease(1, going_on=["a", "a", "b"])] == ["c"]
    assert [message.owner for message in kept.outbox.lease(1, going_on=["a", "a", "b"])] == ["b"]
    assert [message.owner for message in kept.outbox.lease(9, going_on=["a", "a", "b"])] == ["a", "a"]


def test_a_job_that_is_cancelled_says_so(kept: Kept) -> None:
    job = kept.job(webhook=webhook("https://example.org/hook"))
    kept.jobs.cancel(OWNER, job.id)
    (message,) = kept.outbox.lease(9)
    assert b'"job.cancelled"' in message.body


# One statement after the other: who is slow must not hold up others -----------------------------


def test_a_lease_waits_for_nobody(kept: Kept, database_url: str) -> None:
    """Somebody ends an item, and takes his time; who wants another gets it (PostgreSQL; SQLite has one writer)."""
    if database_url.startswith("sqlite"):
        pytest.skip("a SQLite lets one write at a time")
    kept.job(2)
    with closing(Database(database_url)) as other, other.writing() as connection:
        connection.execute(select(job_items).where(job_items.c.position == 0).with_for_update())
        begun = time.monotonic()
        assert leased(kept).position == 1
        assert time.monotonic() - begun < 5
    assert Counter(item.position for item in kept.queue.lease(9)) == {0: 1}
