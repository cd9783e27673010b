"""The client and the real service, with a line between them that is cut at random bytes."""

import contextlib
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest

from tests.line import Line
from tests.predictions import assert_same as assert_same_prediction
from tests.scripted_service import terms
from tests.stream_server import stream_app
from tests.toy_streams import assert_same, picture, toy_live
from tests.toy_videos import write_clip
from tests.web_server import running
from vidseq.classifier import Classifier
from vidseq.client import Client, StreamOptions
from vidseq.client.blocking import Stream, VideoStream
from vidseq.client.conversation import Event
from vidseq.client.streams import AsyncStream, AsyncVideoStream
from vidseq.errors import RequestRejected, VideoRejected
from vidseq.schemas import Moment, Prediction

NUM_PUSHES = 40


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("service")


@pytest.fixture(scope="module")
def service(folder: Path) -> Iterator[str]:
    """A toy model behind the application that is served, on a real server, with small windows."""
    windows = {"window_pushes": 4, "window_bytes": 16_384}
    with toy_live(folder) as live, running(stream_app(live, folder, sessions=windows)) as url:
        yield url


def push_all(url: str, **opening: object) -> tuple[list[Event], Prediction]:
    with Stream(AsyncStream(terms(url, **opening))) as stream:
        for number in range(NUM_PUSHES):
            stream.push_many([(number / 4 + part / 8, picture(2 * number + part)) for part in range(2)])
        stream.end()
        return stream.take(), stream.prediction


def send_all(url: str, clip: Path, *, move_index: bool = False) -> tuple[list[Event], Prediction]:
    stream = VideoStream(AsyncVideoStream(terms(url, input="video"), clip, move_index=move_index, on_progress=None))
    return list(stream.events()), stream.prediction


def moments(events: list[Event]) -> list[Moment]:
    return [event for event in events if isinstance(event, Moment)]


def assert_same_stream(found: tuple[list[Event], Prediction], expected: tuple[list[Event], Prediction]) -> None:
    assert_same(moments(found[0]), moments(expected[0]))
    assert [(one.label, one.start_seconds, one.end_seconds) for one in found[1].segments] == [
        (one.label, one.start_seconds, one.end_seconds) for one in expected[1].segments
    ]
    assert [frame.seconds for frame in found[1].frames] == [frame.seconds for frame in expected[1].frames]
    assert found[1].sampled == expected[1].sampled


@pytest.mark.parametrize("keep", ["service", "client"])
@pytest.mark.parametrize("seed", range(4))
def test_pictures_over_a_line_that_is_cut_get_the_labels_of_one_that_is_not(
    service: str, keep: Literal["service", "client"], seed: int
) -> None:
    expected = push_all(service)
    chance = random.Random(seed)
    budgets = [round(2 ** chance.uniform(6, 17)) for _ in range(12)]
    with Line(service, budgets) as line:
        found = push_all(line.url, keep=keep)
    assert len(moments(expected[0])) == 2 * NUM_PUSHES
    assert_same_stream(found, expected)
    assert line.num_cuts >= 6


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("container", ["mkv", "ts", "mp4"])
def test_a_video_over_a_line_that_is_cut_gets_the_labels_of_one_that_is_not(
    service: str, tmp_path: Path, container: str, seed: int
) -> None:
    clip = write_clip(tmp_path / f"clip.{container}", num_frames=100)
    expected = send_all(service, clip, move_index=True)
    chance = random.Random(seed)
    budgets = [chance.randrange(100, clip.stat().st_size) for _ in range(8)]
    with Line(service, budgets) as line:
        found = send_all(line.url, clip, move_index=True)
    assert len(moments(expected[0])) == 80
    assert_same_stream(found, expected)
    assert line.num_cuts >= 3


@pytest.mark.parametrize("container", ["mkv", "ts", "mp4"])
def test_a_video_gets_the_prediction_that_classify_gives(
    service: str, folder: Path, tmp_path: Path, container: str
) -> None:
    clip = write_clip(tmp_path / f"clip.{container}", num_frames=100)
    with Client(service) as client:
        labels = client.classify_stream(clip, options=StreamOptions(top_k=2), faststart=True)
        told = list(labels)
    expected = Classifier.load(folder / "toy").classify(clip, top_k=2)
    seen = labels.prediction.model_copy(update={"video": expected.video})  # a stream does not know how long it will be
    assert_same_prediction([seen], [expected])
    assert [moment.seconds for moment in told] == [frame.seconds for frame in expected.frames]


def test_a_video_that_is_none_is_rejected_with_the_services_words(service: str) -> None:
    with Client(service) as client, pytest.raises(VideoRejected) as caught:
        list(client.classify_stream(b"not a video" * 1000))
    assert caught.value.type == "video/unsupported-container"


def test_a_session_is_resumed_by_another_client(service: str) -> None:
    with Client(service) as client:
        with contextlib.suppress(KeyError), client.stream() as first:
            first.push(picture(0), seconds=0.0)
            assert next(iter(first)).seconds == 0.0
            raise KeyError
        with client.stream(resume=first.resume) as second:
            assert (second.ready.next_sequence, second.ready.last_seconds) == (1, 0.0)
            second.push(picture(1), seconds=1.0)
            second.end()
        assert [moment.seconds for moment in moments(second.take())] == [1.0]


def test_a_rule_that_refuses_is_told_with_its_type(service: str) -> None:
    options = StreamOptions.model_validate({"rules": {"backward": "refuse"}})
    with Client(service) as client, client.stream(options=options) as stream:
        stream.push(picture(0), seconds=1.0)
        stream.push(picture(1), seconds=0.5)
        with pytest.raises(RequestRejected, match="refuse") as caught:
            stream.end()
    assert caught.value.type == "session/refused"
