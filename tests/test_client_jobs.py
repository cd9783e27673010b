"""Jobs from the SDK to the label and to the webhook, over real HTTP: handed over, waited for, listed, cancelled."""

import asyncio
import io
import sqlite3
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx2
import pytest
from typer.testing import CliRunner

from serving.database.core import Database
from serving.jobs.settings import JobSettings, WebhookSettings
from serving.parts import Classify
from tests.hook_server import Hook, listening
from tests.toy_jobs import SECRET, Kept, worked_at
from tests.web_server import Held, count_bytes, raising, running, toy_app, wait_until
from vidseq.cli import app
from vidseq.client import AsyncClient, Client
from vidseq.client.answers import status_error
from vidseq.client.job_calls import Video, Webhook, left_over
from vidseq.errors import (
    BodyTooLarge,
    JobUnfinished,
    NotAuthorized,
    NotFound,
    OptionError,
    Overloaded,
    RequestRejected,
    ServerFault,
    SourceNotFound,
    StatusError,
    UnsupportedContainer,
    WebhookRefused,
)
from vidseq.schemas import Upload
from vidseq.webhooks import check, headers, new_secret

QUICK = JobSettings(
    poll_seconds=0.02,
    webhooks=WebhookSettings(allow_private=True, pauses_seconds=(0.05, 0.05, 0.05), timeout_seconds=2),
)


@contextmanager
def service(
    tmp_path: Path,
    settings: JobSettings = QUICK,
    classify: Classify = count_bytes,
    *,
    around: Callable[[Any], Any] = lambda app: app,
) -> Iterator[Client]:
    """A client of one that has jobs, and does them; `around` may put something between the two."""
    with closing(Database(f"sqlite://{tmp_path}/vidseq.db")) as database:
        kept = Kept(database, tmp_path / "uploads", settings)
        answering = toy_app(classify, uploads=kept.uploads, jobs=kept.jobs)
        with running(around(answering)) as url, worked_at(kept, classify), Client(url, max_retries=1) as client:
            yield client


def hook_at(hook: Hook) -> Webhook:
    return Webhook(url=hook.url, secret=SECRET)


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
        assert held.entered.wait(10)
        with pytest.raises(JobUnfinished, match="running"):
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


def test_of_a_job_that_is_refused_no_upload_stays_but_what_was_uploaded_apart(tmp_path: Path) -> None:
    async def ask(url: Any, upload: Upload) -> None:
        async with AsyncClient(str(url)) as client:
            with pytest.raises(NotFound, match="no model is named"):
                await client.jobs.create([b"4", upload], models=["other"])

    with service(tmp_path) as client:
        apart = client.uploads.create(b"1")
        with pytest.raises(NotFound, match="no model is named"):
            client.jobs.create([b"2", apart, b"3"], models=["other"])
        asyncio.run(ask(client.base_url, apart))
        assert [file.stem for file in (tmp_path / "uploads").iterdir()] == [apart.id]
        assert labels(client, client.jobs.create([apart]).wait(timeout_seconds=20)) == ["1 bytes"]


@pytest.mark.parametrize(
    ("status", "kind", "never"),
    [
        (404, NotFound, True),
        (413, BodyTooLarge, True),
        (422, RequestRejected, True),
        (401, NotAuthorized, False),
        (409, RequestRejected, False),
        (429, Overloaded, False),
        (503, Overloaded, False),
        (500, ServerFault, False),
    ],
)
def test_uploads_of_a_job_that_may_have_been_made_stay(status: int, kind: type[StatusError], never: bool) -> None:
    digest, until = "0" * 64, datetime(2026, 1, 1, tzinfo=UTC)
    made = Upload(id="a" * 32, num_bytes=1, offset=1, complete=True, sha256=digest, expires_at=until)
    error = status_error(httpx2.Response(status))
    assert type(error) is kind
    assert [*left_over(error, [made])] == ([made] if never else [])


def test_uploads_of_a_job_that_a_full_service_did_not_take_stay(tmp_path: Path) -> None:
    held = Held()
    with service(tmp_path, QUICK.model_copy(update={"max_unfinished": 1}), held) as client:
        client.jobs.create([b"1"])
        with Client(str(client.base_url), max_retries=0) as hasty, pytest.raises(Overloaded) as caught:
            hasty.jobs.create([b"2"])
        assert (caught.value.status, caught.value.type) == (429, "job/too-many")
        assert len(list((tmp_path / "uploads").iterdir())) == 2
        held.release.set()


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        (b"{", 422, "no JSON"),
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


@pytest.mark.parametrize(
    "after", ["1.2.3/job_" + "0" * 32, "/job_" + "0" * 32, "1.0/x", "nan/job_" + "0" * 32, "٣.٣/job_" + "0" * 32]
)
def test_what_is_no_cursor_is_refused(tmp_path: Path, after: str) -> None:
    with service(tmp_path) as client:
        assert httpx2.get(f"{client.base_url}/v1/jobs", params={"after": after}).status_code == 422


def test_a_service_without_jobs_says_so() -> None:
    with running(toy_app()) as url, Client(url) as client, pytest.raises(RequestRejected, match="keeps no jobs"):
        client.jobs.get("job_1")


def test_what_is_wrong_with_one_video_is_said_before_any_is_sent(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"1")
    with Client("http://127.0.0.1:9") as client:
        with pytest.raises(SourceNotFound, match="no file"):
            client.jobs.create([tmp_path / "a.mp4", tmp_path / "none.mp4"])
        with pytest.raises(OptionError, match="twice"):
            client.jobs.create([Video(b"1", "twice"), Video(b"2", "twice")])


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
        sent, body = hook.received[0]
        check(body, sent, secret=SECRET)
        with pytest.raises(WebhookRefused):
            check(body, sent, secret=new_secret())
        event = client.webhooks.verify(body, sent, secret=SECRET)
        assert (event.type, event.data.id) == ("job.succeeded", job.id)
        (delivery,) = client.jobs.deliveries(job)
        assert (delivery.attempts, delivery.status, delivery.next_attempt_at) == (1, 204, None)
        assert delivery.id == sent["webhook-id"]


def test_a_webhook_that_is_not_taken_is_sent_again_under_the_same_id(tmp_path: Path) -> None:
    with service(tmp_path) as client, listening(500, 301) as hook:
        hook.location = hook.url
        job = client.jobs.create([b"12345"], webhook=hook_at(hook))
        wait_until(lambda: client.jobs.deliveries(job.id) != () and client.jobs.deliveries(job)[0].state == "delivered")
        ids = {sent["webhook-id"] for sent, _ in hook.received}
        assert (len(hook.received), len(ids), len({body for _, body in hook.received})) == (3, 1, 1)
        assert client.jobs.deliveries(job)[0].attempts == 3


def test_a_webhook_that_never_takes_it_is_given_up(tmp_path: Path) -> None:
    with service(tmp_path) as client, listening(*[500] * 9) as hook:
        job = client.jobs.create([b"12345"], webhook=hook_at(hook))
        wait_until(lambda: client.jobs.deliveries(job) != () and client.jobs.deliveries(job)[0].state == "failed")
        assert (client.jobs.deliveries(job)[0].status, len(hook.received)) == (500, 4)


def test_a_webhook_where_nobody_listens_is_told_of(tmp_path: Path) -> None:
    with service(tmp_path) as client:
        nobody = Webhook(url="http://127.0.0.1:1/hook", secret=SECRET)
        job = client.jobs.create([b"12345"], webhook=nobody)
        wait_until(lambda: client.jobs.deliveries(job) != () and client.jobs.deliveries(job)[0].state == "failed")
        assert "ConnectError" in (client.jobs.deliveries(job)[0].reason or "")


def test_a_host_that_is_no_name_holds_up_no_other_message(tmp_path: Path) -> None:
    """It is refused where it is asked for; a row of before that was so must not end the sender."""
    held = Held()
    with service(tmp_path, classify=held) as client, listening() as hook:
        jobs = [client.jobs.create([b"1"], webhook=hook_at(hook)) for _ in range(3)]
        with closing(sqlite3.connect(tmp_path / "vidseq.db")) as database, database:
            database.execute("UPDATE jobs SET webhook_url = 'https://a..b/' WHERE id = ?", (jobs[0].id,))
        held.release.set()
        wait_until(lambda: all(client.jobs.deliveries(job) for job in jobs))
        wait_until(lambda: {client.jobs.deliveries(job)[0].state for job in jobs[1:]} == {"delivered"})
        wait_until(lambda: client.jobs.deliveries(jobs[0])[0].state == "failed")
        assert "UnicodeError" in (client.jobs.deliveries(jobs[0])[0].reason or "")
        assert len(hook.received) == 2


def test_nothing_is_sent_to_a_private_address_by_whatever_name(tmp_path: Path) -> None:
    strict = QUICK.model_copy(update={"webhooks": QUICK.webhooks.model_copy(update={"allow_private": False})})
    with service(tmp_path, strict) as client, listening() as hook:
        named = Webhook(url=hook.url.replace("http://127.0.0.1", "https://localhost"), secret=SECRET)
        job = client.jobs.create([b"12345"], webhook=named)
        wait_until(lambda: client.jobs.deliveries(job) != () and client.jobs.deliveries(job)[0].state == "failed")
        assert "not public" in (client.jobs.deliveries(job)[0].reason or "")
        assert hook.received == []


def test_a_webhook_needs_a_url_and_a_secret_and_so_does_whoever_checks_one() -> None:
    with pytest.raises(OptionError, match="24 to 64 bytes"):
        Webhook("https://example.org", "whsec_short")
    assert SECRET not in repr(Webhook("https://example.org", SECRET))
    with Client("http://127.0.0.1:9") as client:
        with pytest.raises(OptionError, match="a secret is needed"):
            client.webhooks.verify(b"{}", {})
        signed = headers("msg_1", b"{}", secret=SECRET, timestamp=int(time.time()))
        with pytest.raises(WebhookRefused, match="says nothing"):
            client.webhooks.verify(b"{}", signed, secret=SECRET)
        assert client.webhooks.new_secret() != client.webhooks.new_secret()


# The command line --------------------------------------------------------------------------------


def cli(client: Client, *words: str, exit_code: int = 0, **environment: str) -> str:
    told = {"COLUMNS": "200", "NO_COLOR": "1", "VIDSEQ_BASE_URL": str(client.base_url)} | environment
    done = CliRunner(env=told).invoke(app, ["jobs", *words])
    assert done.exit_code == exit_code, done.output + str(done.exception)
    return done.output + str(done.exception or "")


def test_a_person_hands_over_clips_waits_looks_and_deletes(tmp_path: Path) -> None:
    clips = [tmp_path / name for name in ("a.mp4", "b ü.mp4")]
    for clip in clips:
        clip.write_bytes(clip.name.encode())
    with service(tmp_path) as client:
        job = cli(client, "submit", *map(str, clips)).strip()
        shown = cli(client, "wait", job)
        assert f"{job} has succeeded: 2 labelled" in shown
        assert f"{clips[0]}  5 bytes (1.00)" in shown and "b \\xfc.mp4  8 bytes" in shown
        assert job in cli(client, "list", COLUMNS="70")
        assert job in cli(client, "list") and '"succeeded"' in cli(client, "list", "--json")
        assert cli(client, "show", job, "--json").count('"predictions"') == 2
        assert "has succeeded" in cli(client, "cancel", job)
        assert f"{job} is gone" in cli(client, "delete", job)
        assert "there are no jobs" in cli(client, "list")
        assert "no such job" in cli(client, "show", job, exit_code=1)


def test_a_person_waits_at_once_and_hears_of_a_failure_by_the_exit_code(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"1")
    with service(tmp_path, classify=raising(UnsupportedContainer("this is a letter"))) as client:
        shown = cli(client, "submit", "--wait", str(tmp_path / "a.mp4"), exit_code=1)
        assert "has failed: 1 failed" in shown and "this is a letter" in shown


def test_whoever_waits_at_once_knows_the_id_before_the_wait_fails(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"1")
    held = Held()

    def delete(client: Client) -> str:
        assert held.entered.wait(20)
        (job,) = client.jobs.list()
        client.jobs.delete(job)
        return job.id

    with service(tmp_path, classify=held) as client, ThreadPoolExecutor() as beside:
        deleting = beside.submit(delete, client)
        runner = CliRunner(env={"VIDSEQ_BASE_URL": str(client.base_url)})
        done = runner.invoke(app, ["jobs", "submit", "--wait", "--json", str(tmp_path / "a.mp4")])
        held.release.set()
        assert isinstance(done.exception, NotFound)
        assert (done.stdout, done.stderr) == ("", f"{deleting.result()}\n")


def test_a_person_sees_what_the_webhook_was_told(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"1")
    with service(tmp_path) as client, listening(500) as hook:
        hooked = ["--webhook", hook.url, "--secret", SECRET]
        asked = ["--start", "0.5", "--end", "2", "--keep", "0.5", *hooked]
        job = cli(client, "submit", str(tmp_path / "a.mp4"), *asked).strip()
        wait_until(lambda: client.jobs.deliveries(job) != () and client.jobs.deliveries(job)[0].state == "delivered")
        assert cli(client, "deliveries", job) == "job.succeeded is delivered after 2 attempts: answered 204\n"
        assert '"status":204' in cli(client, "deliveries", job, "--json")
        told = client.jobs.get(job)
        assert told.expires_at - told.created_at == timedelta(days=0.5)
        untold = client.jobs.create([b"1"])
        assert "no webhook" in cli(client, "deliveries", untold.id)


def test_what_a_person_gets_wrong_is_said_and_nothing_is_sent(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"1")
    with service(tmp_path) as client:
        assert "there is no file" in cli(client, "submit", str(tmp_path / "b.mp4"), exit_code=1)
        hooked = ["submit", str(tmp_path / "a.mp4"), "--webhook", "https://example.org"]
        assert "whsec_" in cli(client, *hooked, exit_code=1)
        assert "24 to 64 bytes" in cli(client, *hooked, exit_code=1, VIDSEQ_WEBHOOK_SECRET="short")
        assert list(client.jobs.list()) == [] and list((tmp_path / "uploads").iterdir()) == []
