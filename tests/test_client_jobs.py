"""Jobs from the SDK to the label and to the webhook, over real HTTP: handed over, waited for, listed, cancelled."""

import asyncio
import io
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from pydantic import SecretStr, ValidationError

from serving.database.core import Database
from serving.jobs.settings import JobSettings, WebhookSettings
from serving.parts import Classify
from tests.hook_server import Hook, listening
from tests.toy_jobs import SECRET, Kept, worked_at
from tests.web_server import Held, count_bytes, raising, running, toy_app, wait_until
from vidseq.client import AsyncClient, Client
from vidseq.client.job_calls import Video, Webhook
from vidseq.errors import JobUnfinished, NotFound, OptionError, RequestRejected, UnsupportedContainer, WebhookRefused
from vidseq.jobs import JobEvent
from vidseq.webhooks import check, new_secret

QUICK = JobSettings(
    poll_seconds=0.02,
    webhooks=WebhookSettings(allow_private=True, pauses_seconds=(0.05, 0.05, 0.05), timeout_seconds=2),
)


@contextmanager
def service(tmp_path: Path, settings: JobSettings = QUICK, classify: Classify = count_bytes) -> Iterator[Client]:
    """A client of one that has jobs, and does them."""
    with closing(Database(f"sqlite://{tmp_path}/vidseq.db")) as database:
        kept = Kept(database, tmp_path / "uploads", settings)
        app = toy_app(classify, uploads=kept.uploads, jobs=kept.jobs)
        with running(app) as url, worked_at(kept, classify), Client(url, max_retries=1) as client:
            yield client


def hook_at(hook: Hook) -> Webhook:
    return Webhook(url=hook.url, secret=SecretStr(SECRET))


def labels(client: Client, job: Any) -> list[str]:
    found = [result.prediction for result in client.jobs.results(job)]
    return [prediction.action.label for prediction in found if prediction and prediction.action]


def test_videos_are_handed_over_and_their_labels_come(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"12345")
    seen: list[Any] = []
    with service(tmp_path) as client:
        before = client.uploads.create(b"123456789")
        videos = [tmp_path / "a.mp4", b"12", io.BytesIO(b"123"), before, Video(b"1", custom_id="mine")]
        job = client.jobs.create(videos, top_k=2, on_uploaded=lambda *told: seen.append(told))
        assert seen == [(n, 5) for n in range(1, 6)]
        ended = job.wait(on_progress=seen.append, timeout_seconds=20)
        assert (ended.state, ended.num_succeeded, seen[-1]) == ("succeeded", 5, ended)
        assert labels(client, job) == [f"{n} bytes" for n in (5, 2, 3, 9, 1)]
        results = list(ended.results())
        assert [result.custom_id for result in results] == [None] * 4 + ["mine"]
        assert all(result.prediction and len(result.prediction.top) == 2 for result in results)


def test_many_results_and_jobs_come_page_by_page(tmp_path: Path) -> None:
    with service(tmp_path) as client:
        upload = client.uploads.create(b"1")
        job = client.jobs.create([upload] * 45).wait(timeout_seconds=30)
        assert [result.position for result in job.results()] == list(range(45))
        made = [job.id] + [client.jobs.create([upload]).id for _ in range(104)]
        assert [job.id for job in client.jobs.list()] == made[::-1]


def test_the_same_asynchronously(tmp_path: Path) -> None:
    async def work(url: Any) -> None:
        seen: list[str] = []
        async with AsyncClient(str(url)) as client:
            job = await client.jobs.create([b"12345", Video(b"1")], frames=False)
            ended = await job.wait(on_progress=lambda now: seen.append(now.state), timeout_seconds=20)
            assert (ended.state, seen[-1]) == ("succeeded", "succeeded")
            results = [result async for result in ended.results()]
            assert [len(result.predictions) for result in results] == [1, 1]
            assert [found.id async for found in client.jobs.list()] == [job.id]
            assert (await client.jobs.cancel(job)).state == "succeeded"
            assert await client.jobs.deliveries(job) == ()
            await client.jobs.delete(job)
            with pytest.raises(NotFound):
                await client.jobs.get(job)

    with service(tmp_path) as client:
        asyncio.run(work(client.base_url))


def test_what_cannot_be_labelled_says_why_and_the_others_have_their_labels(tmp_path: Path) -> None:
    def some(video: Any, **options: Any) -> Any:
        if video.read(3) == b"bad":
            raising(UnsupportedContainer("this is a letter"))(video, **options)
        video.seek(0)
        return count_bytes(video, **options)

    with service(tmp_path, classify=some) as client:
        job = client.jobs.create([b"good", b"bad one"]).wait(timeout_seconds=20)
        good, bad = job.results()
        assert (job.state, good.state, bad.state) == ("failed", "succeeded", "failed")
        assert bad.problem is not None and bad.problem.type == "video/unsupported-container"
        assert "this is a letter" in bad.problem.detail


def test_a_job_that_is_cancelled_stops_and_one_that_is_waited_for_too_long_goes_on(tmp_path: Path) -> None:
    held = Held()
    with service(tmp_path, QUICK.model_copy(update={"lease_seconds": 0.6}), held) as client:
        job = client.jobs.create([b"1", b"2", b"3"])
        with pytest.raises(JobUnfinished, match="running"):
            assert held.entered.wait(10)
            job.wait(timeout_seconds=0.1)
        assert job.cancel().state == "cancelled"
        assert held.stopped.wait(10), "whoever labels it is told to stop"
        held.release.set()
        assert {result.state for result in job.results()} == {"cancelled"}


def test_the_same_request_makes_one_job(tmp_path: Path) -> None:
    with service(tmp_path) as client:
        upload = client.uploads.create(b"1")
        jobs = [client.jobs.create([upload], idempotency_key="mine") for _ in range(3)]
        assert len({job.id for job in jobs}) == len(list(client.jobs.list())) == 1
        with pytest.raises(RequestRejected, match="another job"):
            client.jobs.create([upload, upload], idempotency_key="mine")


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        (b"{", 422, "body is wrong"),
        (b'{"items": []}', 422, "items"),
        (b'{"items": [{"upload": "../../etc/passwd"}]}', 404, "no upload"),
        (b'{"items": [{"clip": "MTIz"}], "options": {"model": "other"}}', 404, "no model is named"),
        (b'{"items": [{"clip": "MTIz"}], "webhook": {"url": "http://169.254.169.254/", "secret": "%s"}}', 422, "https"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, body: bytes, status: int, words: str) -> None:
    strict = JobSettings(poll_seconds=0.05)
    with service(tmp_path, strict) as client:
        answer = httpx2.post(
            f"{client.base_url}/v1/jobs",
            content=body.replace(b"%s", SECRET.encode()),
            headers={"Content-Type": "application/json"},
        )
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
    assert words in answer.json()["detail"] and SECRET not in answer.text


def test_a_service_without_jobs_says_so() -> None:
    with running(toy_app()) as url, Client(url) as client, pytest.raises(RequestRejected, match="keeps no jobs"):
        client.jobs.get("job_1")


@pytest.mark.parametrize("videos", [[], "a.mp4", b"video"])
def test_what_is_no_list_of_videos_is_refused_before_anything_is_sent(videos: Any) -> None:
    with Client("http://127.0.0.1:9") as client, pytest.raises(OptionError, match="list"):
        client.jobs.create(videos)


@pytest.mark.parametrize("job", ["", "../models", "job_/x", "job_1?a=b"])
def test_what_is_no_id_is_refused_before_anything_is_sent(job: str) -> None:
    with Client("http://127.0.0.1:9") as client, pytest.raises(OptionError, match="not the id of a job"):
        client.jobs.get(job)


# Told --------------------------------------------------------------------------------------------


def test_the_webhook_is_told_once_the_job_has_ended_and_can_check_who_says_so(tmp_path: Path) -> None:
    with service(tmp_path) as client, listening() as hook:
        job = client.jobs.create([b"12345"], webhook=hook_at(hook)).wait(timeout_seconds=20)
        wait_until(lambda: len(hook.received) == 1 and client.jobs.deliveries(job)[0].state == "delivered")
        headers, body = hook.received[0]
        check(body, headers, secret=SECRET)
        with pytest.raises(WebhookRefused):
            check(body, headers, secret=new_secret())
        event = JobEvent.model_validate_json(body)
        assert (event.type, event.data.id) == ("job.succeeded", job.id)
        (delivery,) = client.jobs.deliveries(job)
        assert (delivery.attempts, delivery.status, delivery.next_attempt_at) == (1, 204, None)
        assert delivery.id == headers["webhook-id"]


def test_a_webhook_that_is_not_taken_is_sent_again_under_the_same_id(tmp_path: Path) -> None:
    with service(tmp_path) as client, listening(500, 301) as hook:
        hook.location = hook.url
        job = client.jobs.create([b"12345"], webhook=hook_at(hook))
        wait_until(lambda: client.jobs.deliveries(job.id) != () and client.jobs.deliveries(job)[0].state == "delivered")
        ids = {headers["webhook-id"] for headers, _ in hook.received}
        assert (len(hook.received), len(ids), len({body for _, body in hook.received})) == (3, 1, 1)
        assert client.jobs.deliveries(job)[0].attempts == 3


def test_a_webhook_that_never_takes_it_is_given_up(tmp_path: Path) -> None:
    with service(tmp_path) as client, listening(*[500] * 9) as hook:
        job = client.jobs.create([b"12345"], webhook=hook_at(hook))
        wait_until(lambda: client.jobs.deliveries(job) != () and client.jobs.deliveries(job)[0].state == "failed")
        assert (client.jobs.deliveries(job)[0].status, len(hook.received)) == (500, 4)


def test_a_webhook_where_nobody_listens_is_told_of(tmp_path: Path) -> None:
    with service(tmp_path) as client:
        nobody = Webhook(url="http://127.0.0.1:1/hook", secret=SecretStr(SECRET))
        job = client.jobs.create([b"12345"], webhook=nobody)
        wait_until(lambda: client.jobs.deliveries(job) != () and client.jobs.deliveries(job)[0].state == "failed")
        assert "ConnectError" in (client.jobs.deliveries(job)[0].reason or "")


def test_nothing_is_sent_to_a_private_address_by_whatever_name(tmp_path: Path) -> None:
    strict = QUICK.model_copy(update={"webhooks": QUICK.webhooks.model_copy(update={"allow_private": False})})
    with service(tmp_path, strict) as client, listening() as hook:
        named = Webhook(url=hook.url.replace("http://127.0.0.1", "https://localhost"), secret=SecretStr(SECRET))
        job = client.jobs.create([b"12345"], webhook=named)
        wait_until(lambda: client.jobs.deliveries(job) != () and client.jobs.deliveries(job)[0].state == "failed")
        assert "not public" in (client.jobs.deliveries(job)[0].reason or "")
        assert hook.received == []


def test_a_webhook_needs_a_url_and_a_secret() -> None:
    with pytest.raises(ValidationError):
        Webhook.model_validate({"url": "https://example.org"})
    assert threading.active_count() < 100
