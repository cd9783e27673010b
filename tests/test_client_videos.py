"""Videos whose labels come while they are sent, against a service that breaks where it is told."""

import asyncio
import io
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.scripted_service import Fault, Service, terms
from vidseq.client import AsyncClient, Client
from vidseq.client.blocking import VideoStream
from vidseq.client.conversation import Terms
from vidseq.client.streams import AsyncVideoStream
from vidseq.errors import ConnectionFailed, SourceNotFound
from vidseq.schemas import Prediction

VIDEO = np.random.default_rng(0).bytes(50_500)


class Stub(io.RawIOBase):
    """A file that cannot be rewound, like a pipe."""

    def __init__(self, content: bytes) -> None:
        self._content = io.BytesIO(content)

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        return self._content.read(size)


def label_video(settings: Terms, source: Any, **options: Any) -> tuple[list[float], Prediction]:
    stream = VideoStream(AsyncVideoStream(settings, source, **{"move_index": False, "on_progress": None} | options))
    return [moment.seconds for moment in stream], stream.prediction


def test_labels_of_a_video_come_while_it_is_sent() -> None:
    with Service() as service, Client(service.url) as client:
        labels = client.classify_stream(VIDEO)
        assert [moment.seconds for moment in labels] == list(range(50))
        assert len(labels.prediction.frames) == 50
    assert service.videos == [VIDEO]
    assert service.opens[0].input == "video"


def test_both_clients_send_paths_and_files(tmp_path: Path) -> None:
    async def main(url: str) -> list[float]:
        async with AsyncClient(url) as client, client.classify_stream(clip) as labels:
            return [moment.seconds async for moment in labels]

    clip = tmp_path / "clip.mp4"
    clip.write_bytes(VIDEO)
    with Service() as service:
        assert asyncio.run(main(service.url)) == list(range(50))
    with Service() as service, clip.open("rb") as file:
        assert label_video(terms(service.url, input="video"), file)[0] == list(range(50))


@pytest.mark.parametrize("window_bytes", [1, 999, 2000, 10_000])
def test_no_more_bytes_are_on_their_way_than_the_service_allows(window_bytes: int) -> None:
    video = VIDEO[: min(50_500, 100 * window_bytes)]
    with Service(window_bytes=window_bytes) as service:
        label_video(terms(service.url, input="video"), video)
    assert service.videos == [video]


@pytest.mark.parametrize(
    "fault", [("before-ready:cut", 0), ("after-apply:cut", 20), ("before-label:half", 50), ("before-final:cut", 0)]
)
def test_after_a_cut_a_video_is_sent_again_and_no_label_told_twice(fault: Fault) -> None:
    with Service(fault, ("after-missed:cut", 20), window_bytes=2000) as service:
        seconds, prediction = label_video(terms(service.url, input="video"), VIDEO)
    assert seconds == [frame.seconds for frame in prediction.frames] == list(range(50))
    assert service.videos[-1] == VIDEO


def test_a_video_that_cannot_be_rewound_is_not_sent_again() -> None:
    with (
        Service(("after-apply:cut", 20), window_bytes=2000) as service,
        pytest.raises(ConnectionFailed, match=r"cannot be rewound and sent again; labels came up to 19.000 s"),
    ):
        label_video(terms(service.url, input="video"), Stub(VIDEO))
    with Service(("before-ready:cut", 0)) as service:
        assert label_video(terms(service.url, input="video"), Stub(VIDEO))[0] == list(range(50))


def test_the_rest_of_a_video_is_not_sent_when_the_service_has_seen_enough() -> None:
    with Service(window_bytes=4000) as service:
        service.enough_bytes = 10_000
        seconds, _ = label_video(terms(service.url, input="video"), VIDEO)
    assert seconds == list(range(len(seconds)))
    assert len(service.videos[0]) < 20_000


def test_progress_of_a_video_starts_again_after_a_cut() -> None:
    told: list[tuple[int, int | None]] = []
    with Service(("before-final:cut", 0)) as service:
        label_video(terms(service.url, input="video"), VIDEO, on_progress=lambda *sent: told.append(sent))
    assert told == [(50_500, 50_500)] * 2


def test_an_error_of_the_progress_callback_ends_the_stream() -> None:
    def explode(num_sent: int, num_bytes: int | None) -> None:
        raise KeyError(num_sent)

    with Service() as service, pytest.raises(KeyError):
        label_video(terms(service.url, input="video"), VIDEO, on_progress=explode)


def test_a_loop_that_is_left_early_closes_its_stream() -> None:
    with Service(window_bytes=2000) as service:
        for moment in VideoStream(
            AsyncVideoStream(terms(service.url, input="video"), VIDEO, move_index=False, on_progress=None)
        ):
            assert moment.seconds == 0.0
            break
        names = [thread.name for thread in threading.enumerate()]
        assert names.count("vidseq-stream") == 1  # that of the service


def test_a_source_that_is_none_is_told_before_anything_is_sent() -> None:
    with Service() as service, Client(service.url) as client, pytest.raises(SourceNotFound):
        list(client.classify_stream("no/such/clip.mp4"))
    assert service.opens == []
