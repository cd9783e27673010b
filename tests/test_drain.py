"""A service that leaves ends what it has begun, and sends what comes elsewhere."""

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI

from serving.drain import Drain
from serving.service_routes import Parts
from serving.web import create_control_app, create_service_app
from serving.web_settings import WebSettings
from tests.stream_server import kept_sessions, refusal, talking
from tests.toy_streams import chunked, toy_frames, toy_live
from tests.web_server import TOY_MODELS, Held, count_bytes, running, undecoded, wait_until
from vidseq.live import Live
from vidseq.messages import Applied, Failed, pack_frames
from vidseq.schemas import Problem


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    with toy_live(tmp_path_factory.mktemp("live")) as live:
        yield live


class House:
    """A service with a drain, and the loop in which it is used."""

    def __init__(self, **parts: Any) -> None:
        self.drain = Drain()
        given = Parts(**{"classify": count_bytes, "models": lambda: TOY_MODELS, "decode": undecoded} | parts)
        self.app: FastAPI = create_service_app(given, keys=None, settings=WebSettings(), drain=self.drain)
        self.app.add_api_route("/loop", self._note_loop)
        self._loop: asyncio.AbstractEventLoop | None = None

    async def _note_loop(self) -> None:
        self._loop = asyncio.get_running_loop()

    def leave(self, url: str) -> None:
        assert httpx2.get(f"{url}/loop").status_code == 200
        assert self._loop is not None
        self._loop.call_soon_threadsafe(self.drain.begin)
        wait_until(lambda: self.drain.leaving)


def test_what_has_begun_is_answered_and_what_comes_is_sent_elsewhere() -> None:
    held = Held()
    house = House(classify=held)
    with running(house.app) as url, ThreadPoolExecutor(1) as pool:
        begun = pool.submit(httpx2.post, f"{url}/v1/classify", content=b"clip", headers={"Content-Type": "video/mp4"})
        assert held.entered.wait(10)
        house.leave(url)
        refused = httpx2.post(f"{url}/v1/classify", content=b"clip", headers={"Content-Type": "video/mp4"})
        assert house.drain.num_going_on == 1
        held.release.set()
        assert begun.result(10).json()["action"]["label"] == "4 bytes"
        wait_until(lambda: house.drain.num_going_on == 0)
    problem = Problem.model_validate(refused.json())
    assert (problem.status, problem.type, problem.retryable) == (503, "service/leaving", True)
    assert (refused.headers["retry-after"], refused.headers["connection"]) == ("1", "close")


def test_an_open_stream_is_told_to_go_elsewhere_after_the_answers_that_it_got(live: Live, tmp_path: Path) -> None:
    sessions = kept_sessions(live, tmp_path)
    house = House(sessions=sessions)
    with running(house.app) as url, talking(url) as client:
        ready = client.open()
        client.say(pack_frames(chunked(toy_frames(8), [4])[0]))
        assert isinstance(client.hear(), Applied)
        house.leave(url)
        failed, code = refusal(client)
    assert (failed.problem.type, code) == ("service/leaving", 4503)
    standing = asyncio.run(sessions.standing(ready.session, owner=""))
    assert standing.next_sequence == 1


def test_a_stream_that_comes_too_late_is_told_so_in_answer_to_its_handshake(live: Live, tmp_path: Path) -> None:
    house = House(sessions=kept_sessions(live, tmp_path))
    with running(house.app) as url:
        house.leave(url)
        with talking(url, subprotocols=["vidseq.v1"]) as client:
            (failed,) = client.hear_all()
    assert isinstance(failed, Failed)
    assert (failed.problem.status, client.code) == (503, 4503)


def test_where_only_the_control_app_is_a_stream_is_told_to_come_again() -> None:
    app = create_control_app(ready=lambda: None, metrics=None, settings=WebSettings())
    with running(app) as url, talking(url, subprotocols=["vidseq.v1"]) as client:
        (failed,) = client.hear_all()
    assert isinstance(failed, Failed)
    assert (failed.problem.type, client.code) == ("service/not-ready", 4503)
