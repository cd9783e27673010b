"""Labels line by line on a real server with a real toy model; and which answer an Accept header gets."""

import asyncio
import contextlib
import http.client
import json
import logging
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2
import pytest

from serving import decoding
from serving.accept import lines_wanted
from serving.parts import Frames
from tests.stream_server import said, stream_app
from tests.test_digest import digest, flipped
from tests.test_web import problem_of
from tests.toy_streams import labels, run, toy_live
from tests.toy_videos import write_clip
from tests.web_server import running, toy_app, wait_until
from vidseq.config import Limits
from vidseq.errors import UndecodableVideo
from vidseq.live import Live
from vidseq.messages import Applied, Failed, read_service_message

HEADERS = {"Content-Type": "application/octet-stream", "Accept": "application/x-ndjson"}


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    with toy_live(tmp_path_factory.mktemp("live")) as live:
        yield live


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return write_clip(tmp_path_factory.mktemp("clip") / "clip.mp4", num_frames=100).read_bytes()


@pytest.fixture(scope="module")
def url(live: Live, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running(stream_app(live, tmp_path_factory.mktemp("store"))) as url:
        yield url


def asked(url: str, video: bytes, **query: Any) -> httpx2.Response:
    return httpx2.post(f"{url}/v1/classify", params=query, content=video, headers=HEADERS, timeout=20)


def test_every_sampled_frame_has_its_line_and_the_last_line_is_the_prediction(url: str, video: bytes) -> None:
    answer = asked(url, video)
    assert answer.headers["Content-Type"] == "application/x-ndjson"
    answers, final = said([read_service_message(line) for line in answer.text.splitlines()])
    assert len(labels(answers)) == final.prediction.sampled.num_frames == 80
    assert final.prediction.video.complete
    assert len(final.prediction.top) == 3


def test_options_are_those_of_the_whole_answer(url: str, video: bytes) -> None:
    text = asked(url, video, start=1, end=2, top_k=1, frames=False).text
    answers, final = said([read_service_message(line) for line in text.splitlines()])
    assert (labels(answers), final.prediction.sampled.start_seconds) == ([], 1.0)
    assert any(applied.segments for applied in answers) and len(final.prediction.top) == 1


class Gated:
    """A decoder that goes on after some frames only when it is told to."""

    def __init__(self, live: Live, *, num_frames: int, error: Exception | None = None) -> None:
        self._decode = partial(decoding.decode, picture=live.config.picture, limits=Limits())
        self._num_frames = num_frames
        self._error = error
        self.go_on = threading.Event()
        self.closed = threading.Event()

    def __call__(self, video: Any, **options: Any) -> Frames:
        try:
            for number, seen in enumerate(self._decode(video, **options)):
                if number == self._num_frames:
                    self.go_on.wait(10)
                    if self._error is not None:
                        raise self._error
                yield seen
        finally:
            self.closed.set()


def test_the_first_line_does_not_wait_for_the_last(live: Live, tmp_path: Path, video: bytes) -> None:
    gated = Gated(live, num_frames=3)
    with contextlib.ExitStack() as open_things:
        url = open_things.enter_context(running(stream_app(live, tmp_path, decode=gated)))
        asking = httpx2.stream("POST", f"{url}/v1/classify", content=video, headers=HEADERS)
        lines = open_things.enter_context(asking).iter_lines()
        assert json.loads(next(lines))["type"] == "applied"
        gated.go_on.set()
        assert json.loads([*lines][-1])["type"] == "final"


def test_an_error_in_the_middle_is_the_last_line(live: Live, tmp_path: Path, video: bytes) -> None:
    gated = Gated(live, num_frames=3, error=UndecodableVideo("it is damaged"))
    gated.go_on.set()
    with running(stream_app(live, tmp_path, decode=gated)) as url:
        answer = asked(url, video)
    *before, last = [read_service_message(line) for line in answer.text.splitlines()]
    assert answer.status_code == 200 and all(isinstance(message, Applied) for message in before)
    assert isinstance(last, Failed) and last.problem.type == "video/undecodable"
    assert last.problem.request_id == answer.headers["X-Request-ID"]


def test_an_error_before_the_first_line_is_an_ordinary_problem(url: str) -> None:
    problem = problem_of(asked(url, b"this is no video" * 100))
    assert (problem.status, problem.type) == (422, "video/unsupported-container")


def test_a_video_that_was_damaged_on_its_way_is_refused_before_the_first_line(url: str, video: bytes) -> None:
    """Only a body that is whole is decoded, so nothing has been said that would have to be taken back."""
    headers = HEADERS | {"Content-Digest": digest(video)}
    assert httpx2.post(f"{url}/v1/classify", content=video, headers=headers, timeout=20).status_code == 200
    damaged = httpx2.post(f"{url}/v1/classify", content=flipped(video, 2000), headers=headers, timeout=20)
    assert (problem_of(damaged).status, problem_of(damaged).type) == (400, "body/digest_mismatch")


def test_a_video_that_stops_giving_labels_ends_with_a_timeout(live: Live, tmp_path: Path, video: bytes) -> None:
    gated = Gated(live, num_frames=3)
    with running(stream_app(live, tmp_path, decode=gated, request_timeout_seconds=3.0)) as url:
        last = read_service_message(asked(url, video).text.splitlines()[-1])
        gated.go_on.set()
    assert isinstance(last, Failed) and last.problem.type == "service/answer-timeout"


def test_the_work_for_a_client_that_went_away_stops_and_its_place_is_free(
    live: Live, tmp_path: Path, video: bytes
) -> None:
    gated = Gated(live, num_frames=3)
    with running(stream_app(live, tmp_path, decode=gated, max_concurrent=1)) as url:
        address = urlsplit(url)
        connection = http.client.HTTPConnection(str(address.hostname), address.port, timeout=10)
        connection.request("POST", "/v1/classify", body=video, headers=HEADERS)
        assert connection.getresponse().readline()
        connection.close()
        gated.go_on.set()
        assert gated.closed.wait(10)
        wait_until(lambda: asked(url, video).status_code == 200)


def test_who_takes_no_line_in_time_has_gone(
    live: Live, tmp_path: Path, video: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    coming = [{"type": "http.request", "body": video, "more_body": False}]

    async def receive() -> dict[str, Any]:
        return coming.pop() if coming else await asyncio.Future()

    async def send(message: dict[str, Any]) -> None:
        if message.get("body"):
            await asyncio.Future()

    headers = [(name.lower().encode(), value.encode()) for name, value in HEADERS.items()]
    scope = {"type": "http", "method": "POST", "path": "/v1/classify", "headers": headers, "query_string": b""}
    app = stream_app(live, tmp_path, request_timeout_seconds=3.0)
    with caplog.at_level(logging.INFO, logger="serving"):
        run(asyncio.wait_for(app(scope, receive, send), timeout=10))
    assert [record.levelname for record in caplog.records] == ["INFO"] and "went away" in caplog.text


def test_a_model_that_cannot_stream_says_so() -> None:
    with running(toy_app()) as url:
        problem = problem_of(asked(url, b"video"))
    assert (problem.status, problem.type) == (422, "state/offline-only")


@pytest.mark.parametrize(
    ("accept", "wanted"),
    [
        ("", False),
        ("*/*", False),
        ("application/json", False),
        ("application/x-ndjson", True),
        ("Application/X-NDJSON; charset=utf-8", True),
        ("application/x-ndjson, */*", True),
        ("application/x-ndjson;q=0.5, */*;q=0.1", True),
        ("application/x-ndjson;q=0.5, application/json", False),
        ("application/x-ndjson;q=0.5, application/json;q=0.2, */*", True),
        ("application/x-ndjson;q=0", False),
        ("application/x-ndjson;q=many", False),
        ("application/x-ndjson;q=nan", False),
        (",;=,", False),
    ],
)
def test_lines_are_for_who_asks_for_them_by_name_and_likes_nothing_better(accept: str, wanted: bool) -> None:
    assert lines_wanted(accept) is wanted
