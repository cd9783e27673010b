"""Usage of a service: each key is charged with what was done for it, once, and may ask how much that is."""

from collections.abc import Iterator
from contextlib import closing
from datetime import date
from pathlib import Path
from typing import Any

import httpx2
import pytest

from serving.chores import Chore, Chores
from serving.database.core import Database
from serving.keyring import KeyRing
from serving.usage.ledger import Ledger
from serving.usage.table import UsageTable
from serving.usage.used import Used
from tests.stream_server import stream_app, talking
from tests.test_guard import bearer, made
from tests.test_usage import FOREVER, used_by
from tests.test_web import RAW, problem_of
from tests.toy_streams import chunked, toy_frames, toy_live
from tests.toy_videos import write_clip
from tests.web_server import raising, running, toy_app, wait_until
from vidseq.client import Client
from vidseq.errors import UndecodableVideo
from vidseq.live import Live
from vidseq.messages import FRAMES_TYPE, Final, pack_frames


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with closing(Database(f"sqlite://{tmp_path}/usage.db")) as database:
        yield Ledger(UsageTable(database), by_key=True)


@pytest.fixture
def keys(tmp_path: Path) -> dict[str, str]:
    file = tmp_path / "keys.db"
    return {name: made(file, name, [name]) for name in ("classify", "stream", "admin")}


def id_of(key: str) -> str:
    return key[4:16]


def used(ledger: Ledger, key: str) -> Used:
    ledger.flush()
    return used_by(ledger.table, id_of(key))[0]


def test_a_video_is_counted_for_the_key_that_sent_it(ledger: Ledger, keys: dict[str, str], tmp_path: Path) -> None:
    app = toy_app(keys=KeyRing(tmp_path / "keys.db"), ledger=ledger)
    with running(app) as url:
        for _ in range(2):
            httpx2.post(url + "/v1/classify", content=bytes(5_000), headers=RAW | bearer(keys["classify"]))
    assert used(ledger, keys["classify"]) == Used(
        requests=2, received_bytes=10_000, frames_decoded=2, frames_labelled=2, compute_seconds=0.006
    )


def test_what_was_refused_is_counted_as_such_and_costs_no_frames(
    ledger: Ledger, keys: dict[str, str], tmp_path: Path
) -> None:
    app = toy_app(raising(UndecodableVideo("no")), keys=KeyRing(tmp_path / "keys.db"), ledger=ledger)
    with running(app) as url:
        httpx2.post(url + "/v1/classify", content=b"video", headers=RAW | bearer(keys["classify"]))
    assert used(ledger, keys["classify"]) == Used(requests=1, failed=1, received_bytes=5)


def test_whoever_is_not_let_in_is_not_counted(ledger: Ledger, keys: dict[str, str], tmp_path: Path) -> None:
    with running(toy_app(keys=KeyRing(tmp_path / "keys.db"), ledger=ledger)) as url:
        httpx2.post(url + "/v1/classify", content=b"video", headers=RAW)
        httpx2.post(url + "/v1/classify", content=b"video", headers=RAW | bearer(keys["stream"]))
        httpx2.post(url + "/v1/classify", content=b"video", headers=RAW | bearer(keys["classify"][:-1] + "-"))
        httpx2.get(url + "/readyz")
    assert ledger.flush() <= 1  # /readyz is nobody's
    assert used_by(ledger.table, id_of(keys["stream"])) == used_by(ledger.table, id_of(keys["classify"])) == []


def test_an_answer_that_is_given_again_is_counted_as_a_request_alone(
    ledger: Ledger, keys: dict[str, str], tmp_path: Path
) -> None:
    headers = RAW | bearer(keys["classify"]) | {"Idempotency-Key": tmp_path.name}
    with running(toy_app(keys=KeyRing(tmp_path / "keys.db"), ledger=ledger)) as url:
        for _ in range(3):
            assert httpx2.post(url + "/v1/classify", content=b"video", headers=headers).status_code == 200
    assert used(ledger, keys["classify"]) == Used(
        requests=3, received_bytes=15, frames_decoded=1, frames_labelled=1, compute_seconds=0.003
    )


def test_an_open_service_counts_all_together_whoever_they_say_they_are(tmp_path: Path) -> None:
    with closing(Database(f"sqlite://{tmp_path}/usage.db")) as database:
        ledger = Ledger(UsageTable(database), by_key=False)
        with running(toy_app(ledger=ledger)) as url:
            for name in ("ann", "ben"):
                httpx2.post(url + "/v1/classify", content=b"video", headers=RAW | bearer(name))
        ledger.flush()
        assert [(day.owner, day.used.requests) for day in ledger.table.days(**FOREVER)] == [("", 2)]


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    with toy_live(tmp_path_factory.mktemp("live")) as live:
        yield live


def streaming_app(live: Live, tmp_path: Path, ledger: Ledger, **options: Any) -> Any:
    return stream_app(live, tmp_path, keys=KeyRing(tmp_path / "keys.db"), ledger=ledger, **options)


def test_a_stream_is_counted_while_it_is_open(live: Live, ledger: Ledger, keys: dict[str, str], tmp_path: Path) -> None:
    pushes = [pack_frames(chunk) for chunk in chunked(toy_frames(10), [5, 5])]
    with running(streaming_app(live, tmp_path, ledger)) as url:
        with talking(url, additional_headers=bearer(keys["stream"])) as client:
            client.open(input="frames")
            client.say(pushes[0])
            applied = client.hear()
            midway = used(ledger, keys["stream"])
            client.say(pushes[1])
            client.end()
            told = [applied, *client.hear_all()]
        wait_until(lambda: used(ledger, keys["stream"]).requests == 1)
    whole = used(ledger, keys["stream"])
    assert isinstance(told[-1], Final)
    assert (midway.frames_labelled, midway.requests) == (len(applied.labels), 0)  # type: ignore[union-attr]
    assert whole.frames_labelled == told[-1].prediction.sampled.num_frames > midway.frames_labelled
    assert whole.received_bytes > sum(map(len, pushes)) > midway.received_bytes > len(pushes[0])
    timings = told[-1].prediction.timings
    spent_ms = timings.decode_ms + timings.encode_ms + timings.recur_ms
    assert whole.compute_seconds == pytest.approx(spent_ms / 1000)
    assert whole.failed == 0


def test_a_video_that_is_labelled_line_by_line_is_counted(
    live: Live, ledger: Ledger, keys: dict[str, str], tmp_path: Path
) -> None:
    clip = write_clip(tmp_path / "clip.mp4", num_frames=20).read_bytes()
    headers = RAW | bearer(keys["classify"]) | {"Accept": "application/x-ndjson"}
    with running(streaming_app(live, tmp_path, ledger)) as url:
        lines = httpx2.post(url + "/v1/classify", content=clip, headers=headers, timeout=60).text.splitlines()
    final = Final.model_validate_json(lines[-1])
    found = used(ledger, keys["classify"])
    assert (found.requests, found.failed, found.received_bytes) == (1, 0, len(clip))
    assert (found.frames_labelled, found.frames_decoded) == (final.prediction.sampled.num_frames, 20)
    assert found.compute_seconds > 0


def test_a_push_that_is_repeated_is_labelled_once(
    live: Live, ledger: Ledger, keys: dict[str, str], tmp_path: Path
) -> None:
    push = pack_frames(toy_frames(5))
    headers = bearer(keys["stream"])
    with running(streaming_app(live, tmp_path, ledger)) as url, httpx2.Client(base_url=url, headers=headers) as client:
        session = client.post("/v1/sessions", json={}).json()["session"]
        for _ in range(3):
            answer = client.put(f"/v1/sessions/{session}/pushes/0", content=push, headers={"Content-Type": FRAMES_TYPE})
            assert answer.status_code == 200
    found = used(ledger, keys["stream"])
    assert (found.requests, found.frames_labelled) == (4, len(answer.json()["labels"]))
    assert found.received_bytes == 3 * len(push) + 2


def test_usage_is_written_now_and_then_and_at_the_end(ledger: Ledger) -> None:
    chores = Chores([Chore("usage", ledger.flush, every_seconds=0.05, at_the_end=True)])
    with running(toy_app(ledger=ledger, chores=chores)) as url:
        httpx2.post(url + "/v1/classify", content=b"video", headers=RAW)
        wait_until(lambda: bool(used_by(ledger.table, "")))
    assert ledger.flush() == 0  # nothing was left when it had ended


# Asking for it ------------------------------------------------------------------------------------


@pytest.fixture
def asked(ledger: Ledger, keys: dict[str, str], tmp_path: Path) -> Iterator[str]:
    """A service where two keys have used something, on two days."""
    for name, day in (("classify", "2026-11-25"), ("classify", "2026-11-26"), ("stream", "2026-11-26")):
        ledger.table.write("a writer", {(id_of(keys[name]), day): Used(requests=1, received_bytes=7)})
    with running(toy_app(keys=KeyRing(tmp_path / "keys.db"), ledger=ledger)) as url:
        yield url


def told_days(answer: httpx2.Response) -> list[tuple[str, str]]:
    return [(day["day"][-2:], day["key"]) for day in answer.json()["days"]]


SINCE = "?since=2026-11-01&until=2026-11-30"


def test_a_key_sees_its_own_usage(asked: str, keys: dict[str, str]) -> None:
    answer = httpx2.get(f"{asked}/v1/usage{SINCE}", headers=bearer(keys["classify"]))
    own = id_of(keys["classify"])
    assert told_days(answer) == [("25", own), ("26", own)]
    assert answer.json()["days"][0] == {
        "day": "2026-11-25",
        "key": own,
        "requests": 1,
        "failed": 0,
        "received_bytes": 7,
        "frames_decoded": 0,
        "frames_labelled": 0,
        "compute_seconds": 0.0,
    }


def test_a_key_does_not_see_anothers(asked: str, keys: dict[str, str]) -> None:
    other = id_of(keys["stream"])
    problem = problem_of(httpx2.get(f"{asked}/v1/usage{SINCE}&key={other}", headers=bearer(keys["classify"])))
    assert (problem.status, problem.type) == (403, "key/scope")


def test_an_admin_sees_all_or_whom_he_names(asked: str, keys: dict[str, str]) -> None:
    every = httpx2.get(f"{asked}/v1/usage{SINCE}", headers=bearer(keys["admin"]))
    one = httpx2.get(f"{asked}/v1/usage{SINCE}&key={id_of(keys['stream'])}", headers=bearer(keys["admin"]))
    assert len(told_days(every)) == 3
    assert told_days(one) == [("26", id_of(keys["stream"]))]


def test_pages_follow_each_other_and_the_client_reads_them_all(asked: str, keys: dict[str, str]) -> None:
    first = httpx2.get(f"{asked}/v1/usage{SINCE}&limit=2", headers=bearer(keys["admin"]))
    rest = httpx2.get(f"{asked}/v1/usage{SINCE}&after={first.json()['next']}", headers=bearer(keys["admin"]))
    with Client(asked, keys["admin"]) as client:
        days = client.usage(since=date(2026, 11, 1), until=date(2026, 11, 30))
    assert [(day.day[-2:], day.key) for day in days] == told_days(first) + told_days(rest)
    assert (len(days), rest.json()["next"]) == (3, None)


@pytest.mark.parametrize("query", ["?since=yesterday", "?key=all", "?after=x", "?since=2026-11-02&until=2026-11-01"])
def test_what_cannot_be_asked_is_told(asked: str, keys: dict[str, str], query: str) -> None:
    problem = problem_of(httpx2.get(f"{asked}/v1/usage{query}", headers=bearer(keys["admin"])))
    assert (problem.status, problem.type) == (422, "option/invalid")
