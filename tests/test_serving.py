"""The whole service on a real Ray: over HTTP it answers as it does in-process, and it leaves nothing behind."""

import asyncio
import http.client
import os
import signal
import struct
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from serving.flow import WINDOW_BYTES
from tests.conftest import SHARED_DATA
from tests.predictions import assert_same
from tests.running import START_SECONDS, VIDSEQ, Service, free_port, name_of, running_service, started_service, status
from tests.toy_models import toy_checkpoint
from tests.toy_videos import write_clip, write_sound
from tests.web_server import wait_until
from vidseq.classifier import Classifier
from vidseq.client import AsyncClient, Client
from vidseq.errors import VideoRejected
from vidseq.schemas import Prediction

pytestmark = pytest.mark.cluster

AT_ONCE = 8


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy_checkpoint(tmp_path_factory.mktemp("models") / "toy")


@pytest.fixture(scope="module")
def service(model: Path) -> Iterator[Service]:
    with running_service(model) as service:
        yield service


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Twenty real clips where there are any, else twenty toys."""
    real = sorted(SHARED_DATA.glob("fight/*/*.mp4"))[::10][:20]
    folder = tmp_path_factory.mktemp("clips")
    return real or [write_clip(folder / f"{number}.mp4", num_frames=20 + number) for number in range(20)]


@pytest.fixture(scope="module")
def expected(model: Path, clips: list[Path]) -> list[Prediction]:
    classifier = Classifier.load(model)
    return [classifier.classify(clip) for clip in clips]


def test_one_after_the_other_clips_get_the_answer_they_get_in_process(
    service: Service, clips: list[Path], expected: list[Prediction]
) -> None:
    with Client(service.url) as client:
        assert_same([client.classify(clip) for clip in clips], expected)


def test_eight_at_once_clips_get_the_answer_they_get_in_process(
    service: Service, clips: list[Path], expected: list[Prediction]
) -> None:
    with Client(service.url) as client, ThreadPoolExecutor(AT_ONCE) as pool:
        assert_same(list(pool.map(client.classify, clips)), expected)


def test_the_asynchronous_client_gets_the_same_answers_eight_at_once(
    service: Service, clips: list[Path], expected: list[Prediction]
) -> None:
    async def classify_all() -> list[Prediction]:
        places = asyncio.Semaphore(AT_ONCE)
        async with AsyncClient(service.url) as client:

            async def classify(clip: Path) -> Prediction:
                async with places:
                    return await client.classify(clip)

            return await asyncio.gather(*map(classify, clips))

    assert_same(asyncio.run(classify_all()), expected)


def test_part_of_a_clip_gets_the_answer_it_gets_in_process(service: Service, model: Path, clips: list[Path]) -> None:
    interval = {"start_seconds": 0.5, "end_seconds": 1.5, "top_k": 2}
    with Client(service.url) as client:
        assert_same([client.classify(clips[0], **interval)], [Classifier.load(model).classify(clips[0], **interval)])


def audio_only(folder: Path) -> bytes:
    return write_sound(folder / "sound.mp4").read_bytes()


@pytest.mark.parametrize(
    ("make", "type"),
    [
        (lambda folder: b"", "video/empty"),
        (lambda folder: b"ffconcat version 1.0\nfile other.mp4\n", "video/unsupported-container"),
        (audio_only, "video/no-video-stream"),
    ],
    ids=["empty", "text", "audio only"],
)
def test_what_is_no_video_is_rejected_in_the_words_of_its_error(
    service: Service, tmp_path: Path, make: Callable[[Path], bytes], type: str
) -> None:
    with Client(service.url) as client, pytest.raises(VideoRejected) as rejected:
        client.classify(make(tmp_path))
    assert rejected.value.type == type
    assert rejected.value.request_id


def test_a_body_of_many_windows_comes_whole(service: Service, model: Path, tmp_path: Path) -> None:
    """A clip with a box behind it that says nothing."""
    clip = write_clip(tmp_path / "clip.mp4")
    num_bytes = 12 * WINDOW_BYTES
    padded = clip.read_bytes() + struct.pack(">I4s", num_bytes, b"free") + bytes(num_bytes - 8)
    with Client(service.url) as client:
        assert_same([client.classify(padded)], [Classifier.load(model).classify(clip)])


def test_a_body_over_the_limit_is_refused_before_it_is_sent(service: Service) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=30)
    connection.putrequest("POST", "/v1/classify")
    connection.putheader("Content-Type", "video/mp4")
    connection.putheader("Content-Length", str(2**40))
    connection.endheaders()
    answer = connection.getresponse()
    assert (answer.status, answer.getheader("Content-Type")) == (413, "application/problem+json")
    connection.close()


def test_the_models_that_answer_are_named(service: Service, expected: list[Prediction]) -> None:
    with Client(service.url) as client:
        assert client.models() == (expected[0].model,)


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/metrics", "/docs", "/openapi.json", "/v1/models"])
def test_what_is_not_a_clip_is_answered_too(service: Service, path: str) -> None:
    assert status(service.port, path) == 200


@pytest.mark.parametrize("path", ["/nothing", "/v1/nothing"])
def test_an_unknown_path_is_a_problem_with_one_request_id(service: Service, path: str) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=30)
    connection.request("GET", path, headers={"X-Request-ID": "mine"})
    answer = connection.getresponse()
    assert (answer.status, answer.getheader("Content-Type")) == (404, "application/problem+json")
    assert answer.headers.get_all("X-Request-ID") == ["mine"]
    connection.close()


def test_the_figures_count_what_was_labelled(service: Service, clips: list[Path]) -> None:
    with Client(service.url) as client:
        client.classify(clips[0])
    deadline = time.monotonic() + 60  # replicas report to the node's agent every 10 seconds
    while b"ray_vidseq_frames_labelled_total{" not in (page := read(service.port, "/metrics")):
        assert time.monotonic() < deadline, page
        time.sleep(0.5)
    assert b'status="200"' in page


def read(port: int, path: str) -> bytes:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("GET", path)
    try:
        return connection.getresponse().read()
    finally:
        connection.close()


@pytest.mark.parametrize("newest", ["raylet", "ray::ServeContr"], ids=["while Ray starts", "when Ray has started"])
def test_a_service_that_is_stopped_while_it_starts_leaves_nothing(model: Path, newest: str) -> None:
    with started_service(model) as service:
        deadline = time.monotonic() + START_SECONDS
        while newest not in map(name_of, service.tree()):
            assert time.monotonic() < deadline, service.said()
            time.sleep(0.05)
    assert service.process.returncode != 0  # and started_service has looked for what may be left


def test_a_ray_that_does_not_start_in_its_time_is_begun_once_more(model: Path) -> None:
    """As on a machine that is too busy for a while: its raylet gets no CPU at all."""
    with started_service(model) as service:
        late = stopped_raylet(service, apart_from=set())
        wait_until(lambda: "it is begun once more" in service.said(), seconds=START_SECONDS)
        wait_until(lambda: status(service.port, "/readyz") == 200, seconds=START_SECONDS)
        assert late not in service.tree()
        assert "Traceback" not in service.said()


def test_a_ray_that_does_not_start_in_its_time_twice_is_told_in_a_sentence(model: Path) -> None:
    with started_service(model) as service:
        late = stopped_raylet(service, apart_from=set())
        stopped_raylet(service, apart_from={late})
        assert service.process.wait(120) == 2
        said = service.said()
    assert said.splitlines()[-1].startswith("vidseq: Ray did not start within its 30 seconds: ")
    assert said.endswith("try again when there is less of it\n")
    assert "Traceback" not in said


def stopped_raylet(service: Service, *, apart_from: set[int]) -> int:
    """The next one, as soon as it is there: the first of its name, and not what it has just forked."""

    def raylets() -> set[int]:
        return {pid for pid in service.tree() if name_of(pid) == "raylet"} - apart_from

    wait_until(lambda: bool(raylets()), seconds=START_SECONDS)
    pid = min(raylets())
    os.kill(pid, signal.SIGSTOP)
    return pid


def test_a_second_service_on_the_port_is_refused_in_one_sentence(service: Service, model: Path) -> None:
    assert_refused(model, "--port", str(service.port), words=f"port {service.port}")


def test_a_folder_that_is_no_model_is_refused_in_one_sentence(tmp_path: Path) -> None:
    assert_refused(tmp_path, "--port", str(free_port()), words="manifest.json")


def assert_refused(*arguments: str | Path, words: str) -> None:
    ended = subprocess.run([VIDSEQ, "serve", *arguments], capture_output=True, text=True, timeout=120)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert words in ended.stderr
    assert len(ended.stderr.splitlines()) == 1
