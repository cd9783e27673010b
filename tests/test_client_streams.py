"""Streams of both clients: against a service of a few lines that breaks where it is told, and against the real one."""

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
import pytest
from websockets.datastructures import Headers
from websockets.http11 import Response

from tests.scripted_service import Service, problem, terms
from tests.web_server import wait_until
from vidseq.client import AsyncClient, Client, Notice, Resume, StreamOptions
from vidseq.client.blocking import Stream, VideoStream
from vidseq.client.conversation import MAX_EVENTS, Event, Terms
from vidseq.client.pushes import pushes
from vidseq.client.streams import AsyncStream, AsyncVideoStream
from vidseq.errors import (
    ConnectionFailed,
    NotAuthorized,
    NotFound,
    OptionError,
    Overloaded,
    RequestRejected,
    RequestTimeout,
    UnexpectedAnswer,
)
from vidseq.messages import Applied, Open, Ready, unpack_frames
from vidseq.schemas import FrameLabel, Moment, Prediction

JPEG = b"\xff\xd8\xff and the rest"


def blocking(settings: Terms, num_pushes: int) -> tuple[list[Event], Prediction]:
    """All events and the prediction of a stream of one frame a push, at 0, 1, 2 ... seconds."""
    with Stream(AsyncStream(settings)) as stream:
        for number in range(num_pushes):
            stream.push(JPEG, seconds=number)
        prediction = stream.end()
        return list(stream.events()), prediction


def awaiting(settings: Terms, num_pushes: int) -> tuple[list[Event], Prediction]:
    async def main() -> tuple[list[Event], Prediction]:
        async with AsyncStream(settings) as stream:
            for number in range(num_pushes):
                await stream.push(JPEG, seconds=number)
            prediction = await stream.end()
            return [event async for event in stream.events()], prediction

    return asyncio.run(main())


Through = Callable[[Terms, int], tuple[list[Event], Prediction]]


@pytest.fixture(params=[blocking, awaiting])
def through(request: pytest.FixtureRequest) -> Through:
    through: Through = request.param
    return through


def seconds_of(events: Sequence[Event]) -> list[float]:
    return [event.seconds for event in events if isinstance(event, Moment)]


# A stream


def test_each_push_brings_its_labels_in_order_and_the_prediction_is_whole(through: Through) -> None:
    with Service() as service:
        events, prediction = through(terms(service.url), 10)
    assert seconds_of(events) == list(range(10))
    assert prediction.frames[3] == FrameLabel(seconds=3.0, label="3", score=0.5)
    assert [segment.start_seconds for segment in prediction.segments] == list(range(10))


def test_a_client_opens_a_stream_with_its_key_and_its_options() -> None:
    options = StreamOptions(top_k=2)
    with (
        Service() as service,
        Client(service.url + "/", api_key="secret") as client,
        client.stream(model="toy", options=options) as stream,
    ):
        stream.push(JPEG, seconds=0.0)
    opening, request = service.opens[0], service.requests[0]
    assert opening == Open(model="toy", options=options)
    assert (request.path, request.headers["Authorization"]) == ("/v1/streams", "Bearer secret")
    assert request.headers["User-Agent"].startswith("vidseq/")
    assert "Sec-WebSocket-Extensions" not in request.headers


def test_one_thread_pushes_while_another_iterates() -> None:
    def push(stream: Stream) -> None:
        for number in range(200):
            stream.push(JPEG, seconds=number)
        stream.end()

    with Service() as service, Stream(AsyncStream(terms(service.url))) as stream:
        pushing = threading.Thread(target=push, args=[stream])
        pushing.start()
        assert [moment.seconds for moment in stream] == list(range(200))
        pushing.join()
        assert len(stream.prediction.frames) == 200


def test_one_task_pushes_while_another_iterates() -> None:
    async def push(stream: AsyncStream) -> None:
        for number in range(100):
            await stream.push(JPEG, seconds=number)
        await stream.end()

    async def main(url: str) -> list[float]:
        async with AsyncClient(url) as client, client.stream() as stream:
            pushing = asyncio.create_task(push(stream))
            seconds = [moment.seconds async for moment in stream]
            await pushing
            return seconds

    with Service(("after-apply:cut", 50)) as service:
        assert asyncio.run(main(service.url)) == list(range(100))


def test_no_more_pushes_are_on_their_way_than_the_service_allows(through: Through) -> None:
    with Service(window_pushes=3) as service:
        through(terms(service.url), 30)
    assert 1 <= service.most_unanswered <= 3


def test_one_thread_pushes_and_takes_by_turns() -> None:
    taken: list[Event] = []
    with Service() as service, Stream(AsyncStream(terms(service.url))) as stream:
        for number in range(20):
            stream.push(JPEG, seconds=number)
            taken += stream.take()
        stream.end()
        taken += stream.take()
        assert stream.take() == []
    assert seconds_of(taken) == list(range(20))


def test_many_frames_go_in_as_few_pushes_as_hold_them() -> None:
    with Service() as service, Stream(AsyncStream(terms(service.url))) as stream:
        stream.push_many((number, JPEG) for number in range(600))
        stream.push_many((600 + number, np.zeros((100, 100, 3), np.uint8)) for number in range(7))
        stream.end()
        assert seconds_of(stream.take()) == list(range(607))
    assert [len(answer.labels) for answer in service.answers] == [256, 256, 88, 3, 3, 1]


def test_a_stream_that_is_left_without_end_is_ended(through: Through) -> None:
    with Service() as service, Stream(AsyncStream(terms(service.url))) as stream:
        stream.push(JPEG, seconds=0.0)
        stream.__exit__(None, None, None)
        assert len(stream.prediction.frames) == 1


def test_a_stream_that_is_left_by_an_exception_can_be_resumed() -> None:
    with Service() as service:
        with contextlib.suppress(KeyError), Stream(AsyncStream(terms(service.url))) as stream:
            stream.push(JPEG, seconds=0.0)
            assert next(iter(stream)).seconds == 0.0
            raise KeyError
        assert stream.resume == Resume(session="session-1", received=1)
        with Stream(AsyncStream(terms(service.url, resume=stream.resume))) as stream:
            assert stream.ready.next_sequence == 1
            stream.push(JPEG, seconds=1.0)
            stream.end()
            assert seconds_of(stream.take()) == [1.0]


def test_a_stream_that_its_client_keeps_is_resumed_by_its_token() -> None:
    with Service() as service, Client(service.url) as client:
        with contextlib.suppress(KeyError), client.stream(keep="client") as first:
            first.push(JPEG, seconds=0.0)
            assert next(iter(first)).seconds == 0.0
            raise KeyError
        assert first.resume == Resume(token="1", received=1)
        with client.stream(keep="client", resume=first.resume) as second:
            second.push(JPEG, seconds=1.0)
            second.end()
        assert seconds_of(second.take()) == [1.0]


def test_what_was_not_taken_can_be_taken_from_a_closed_stream() -> None:
    with Service() as service:
        with Stream(AsyncStream(terms(service.url))) as stream:
            stream.push(JPEG, seconds=0.0)
        assert (seconds_of(stream.take()), stream.take()) == ([0.0], [])


def test_both_faces_have_one_surface() -> None:
    def surface(kind: type) -> set[str]:
        return {name for name in dir(kind) if not name.startswith("_")}

    assert surface(AsyncStream) - surface(Stream) == {"add", "next_event"}
    assert surface(AsyncVideoStream) - surface(VideoStream) == {"next_event"}
    assert surface(Stream) <= surface(AsyncStream) and surface(VideoStream) <= surface(AsyncVideoStream)


def test_a_stream_into_which_nothing_was_pushed_is_closed_without_an_answer() -> None:
    with Service(("before-final:cut", 0)) as service, Stream(AsyncStream(terms(service.url, reconnects=0))):
        pass
    assert len(service.opens) == 1


def test_a_stream_without_collect_keeps_nothing_for_the_end() -> None:
    with Service() as service, Client(service.url) as client, client.stream(collect=False) as stream:
        stream.push(JPEG, seconds=0.0)
        assert (stream.end().frames, stream.prediction.segments) == ((), ())
        assert seconds_of(stream.take()) == [0.0]


# What is pushed


@pytest.mark.parametrize(
    ("image", "format"),
    [
        (JPEG, "jpeg"),
        (bytearray(b"\x89PNG\r\n\x1a\n..."), "png"),
        (memoryview(b"RIFF....WEBPVP8L"), "webp"),
        (np.arange(24, dtype=np.uint8).reshape(2, 4, 3), "rgb"),
        (np.arange(24, dtype=np.uint8).reshape(2, 4, 3)[:, ::-1, ::-1], "rgb"),
    ],
)
def test_an_image_arrives_as_it_was_given(image: Any, format: str) -> None:
    (push,) = pushes([(1.5, image)], max_bytes=1000)
    (frame,) = unpack_frames(push.data)
    assert (frame.header.format, frame.seconds, bytes(frame.data)) == (format, 1.5, memoryview(image).tobytes())
    assert (frame.header.height, frame.header.width) == ((2, 4) if format == "rgb" else (None, None))


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (b"GIF89a", "begin with b'GIF89a'"),
        (b"", "begin with b''"),
        ("clip.jpg", "not str"),
        (np.zeros((2, 4, 3), np.float32), r"not \[2, 4, 3\] of format 'f'"),
        (np.zeros((2, 4), np.uint8), r"not \[2, 4\]"),
        (np.zeros((2, 4, 4), np.uint8), r"not \[2, 4, 4\]"),
        (np.zeros((0, 4, 3), np.uint8), "greater than 0"),
        (np.zeros((200, 200, 3), np.uint8), "120,0.. bytes; the service takes at most 100,000"),
    ],
)
def test_what_is_no_image_is_refused_before_it_is_sent(image: Any, words: str) -> None:
    with Service() as service, Stream(AsyncStream(terms(service.url))) as stream:
        with pytest.raises(OptionError, match=words):
            stream.push(image, seconds=0.0)
        with pytest.raises(OptionError, match="finite"):
            stream.push(JPEG, seconds=float("nan"))
    assert service.answers == []


# Cuts


MOMENTS = [
    ("before-ready", 0),
    ("after-ready", 0),
    ("before-apply", 0),
    ("before-apply", 5),
    ("after-apply", 0),
    ("after-apply", 5),
    ("after-apply", 9),
    ("after-answer", 5),
    ("before-final", 0),
]


@pytest.mark.parametrize("keep", ["service", "client"])
@pytest.mark.parametrize("how", ["cut", "half"])
@pytest.mark.parametrize(("moment", "number"), MOMENTS)
def test_after_a_cut_at_any_moment_every_label_comes_once(
    moment: str, number: int, how: str, keep: Literal["service", "client"]
) -> None:
    with Service((f"{moment}:{how}", number)) as service:
        events, prediction = blocking(terms(service.url, keep=keep), 10)
    assert seconds_of(events) == list(range(10))
    assert [frame.seconds for frame in prediction.frames] == list(range(10))
    assert len(service.opens) == 2


def test_both_clients_come_back_after_cuts_in_a_row(through: Through) -> None:
    faults = [("after-apply:cut", 2), ("before-ready:cut", 0), ("after-missed:cut", 2), ("after-apply:half", 6)]
    with Service(*faults) as service:
        events, _ = through(terms(service.url), 10)
    assert seconds_of(events) == list(range(10))
    assert len(service.opens) == 5


def test_a_stream_that_comes_back_says_what_it_has_received() -> None:
    with Service(("after-apply:cut", 3)) as service:
        blocking(terms(service.url), 6)
        assert service.opens[1].resume == Resume(session="session-1", received=3)
    with Service(("after-apply:cut", 3)) as service:
        blocking(terms(service.url, keep="client"), 6)
        assert service.opens[1].resume == Resume(token="3", received=3)


def test_an_answer_that_comes_twice_is_told_once(through: Through) -> None:
    with Service(("after-answer:again", 3)) as service:
        events, _ = through(terms(service.url), 6)
    assert seconds_of(events) == list(range(6))


def test_cuts_at_random_moments_lose_and_double_nothing() -> None:
    random = np.random.default_rng(0)
    for _ in range(10):
        moments = random.choice(["before-apply", "after-apply", "after-answer", "before-ready", "after-ready"], 6)
        faults = [(f"{moment}:{random.choice(['cut', 'half'])}", int(random.integers(30))) for moment in moments]
        with Service(*faults, window_pushes=int(random.integers(1, 6))) as service:
            events, _ = blocking(terms(service.url, keep=str(random.choice(["service", "client"]))), 30)
        assert seconds_of(events) == list(range(30)), faults


# Failures


def test_a_service_that_does_not_come_back_is_told_with_what_is_missing(through: Through) -> None:
    faults = [("after-apply:cut", 2), *[("before-ready:cut", 0)] * 3]
    with (
        Service(*faults, window_pushes=1) as service,
        pytest.raises(ConnectionFailed, match="given up after 4 failures: no answer came to the last 1 of"),
    ):
        through(terms(service.url, reconnects=3), 10)
    assert len(service.opens) == 4


def test_a_service_that_is_not_there_is_a_failed_connection() -> None:
    with Service() as service:
        pass
    with Client(service.url, max_retries=0) as client, pytest.raises(ConnectionFailed, match="no answer from ws://"):
        client.stream().__enter__()


def test_a_failure_that_may_pass_is_tried_again(through: Through) -> None:
    faults = [("before-ready:fail 429 session/too-many", 0), ("after-apply:fail 503 service/not-ready", 2)]
    with Service(*faults) as service:
        events, _ = through(terms(service.url), 5)
    assert seconds_of(events) == list(range(5))
    assert len(service.opens) == 3


@pytest.mark.parametrize("words", ["409 session/sequence", "409 session/push-mismatch", "408 stream/idle"])
def test_a_failure_of_an_earlier_connection_or_of_time_is_asked_about_again(words: str) -> None:
    with Service((f"after-apply:fail {words}", 2)) as service:
        events, _ = blocking(terms(service.url), 5)
    assert seconds_of(events) == list(range(5))


def test_a_failure_that_would_come_again_keeps_the_services_words(through: Through) -> None:
    with (
        Service(("after-apply:fail 409 session/model-replaced", 2)) as service,
        pytest.raises(RequestRejected, match="it is so") as caught,
    ):
        through(terms(service.url), 5)
    error = caught.value
    assert (error.status, error.type, error.request_id) == (409, "session/model-replaced", "r-1")
    assert len(service.opens) == 1


def test_a_full_service_is_told_when_retries_are_off() -> None:
    with (
        Service(("before-ready:fail 429 session/too-many", 0)) as service,
        Client(service.url, max_retries=0) as client,
        pytest.raises(Overloaded),
    ):
        client.stream().__enter__()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("{", "no message of a stream"),
        ('{"type": "applied", "sequence": 7}', "sent 'applied' 7 where answer 2 was due"),
        ('{"type": "ready"}', "no message of a stream"),
        ("[" * 100_000, "no message of a stream"),
    ],
)
def test_an_answer_that_is_none_is_unexpected(through: Through, words: str, message: str) -> None:
    with Service((f"after-answer:say {words}", 1)) as service, pytest.raises(UnexpectedAnswer, match=message):
        through(terms(service.url), 5)
    assert len(service.opens) == 1


def test_a_message_beyond_all_measure_is_unexpected() -> None:
    with (
        Service((f"after-answer:say {'[' * 17 * 2**20}", 1)) as service,
        pytest.raises(UnexpectedAnswer, match="no message of a stream"),
    ):
        blocking(terms(service.url), 5)


def test_an_answer_to_a_push_that_was_not_sent_is_unexpected() -> None:
    with (
        Service(('after-answer:say {"type": "applied", "sequence": 1}', 0)) as service,
        Stream(AsyncStream(terms(service.url))) as stream,
    ):
        stream.push(JPEG, seconds=0.0)
        with pytest.raises(UnexpectedAnswer, match="1 were sent"):
            list(stream)


class Forgetful(Service):
    """Believes that it has applied nine pushes."""

    def _ready(self, opening: Open) -> Ready:
        return super()._ready(opening).model_copy(update={"next_sequence": 9} if opening.resume else {})


def test_a_service_that_expects_what_was_not_sent_is_told() -> None:
    with Forgetful(("after-apply:cut", 3)) as service, pytest.raises(UnexpectedAnswer, match="expects push 9"):
        blocking(terms(service.url), 5)


def test_a_service_that_says_nothing_is_a_timeout() -> None:
    with Service(hold=True) as service, Stream(AsyncStream(terms(service.url, timeout_seconds=1.0))) as stream:
        stream.push(JPEG, seconds=0.0)
        with pytest.raises(RequestTimeout, match=r"did not answer for 1 s"):
            next(iter(stream))
        service.go_on.set()
        assert next(iter(stream)).seconds == 0.0


def test_a_service_that_says_nothing_is_a_timeout_where_pictures_are_dropped() -> None:
    def push_on(stream: Stream) -> None:
        for number in range(1000):
            stream.push(JPEG, seconds=number)
            time.sleep(0.002)

    options = StreamOptions(when_full="drop_oldest")
    with (
        Service(hold=True) as service,
        Stream(AsyncStream(terms(service.url, timeout_seconds=0.2, options=options))) as stream,
    ):
        with pytest.raises(RequestTimeout):
            push_on(stream)
        stream.close()


def test_a_full_window_that_is_not_answered_is_a_timeout() -> None:
    with (
        Service(hold=True, window_pushes=2) as service,
        Stream(AsyncStream(terms(service.url, timeout_seconds=0.2))) as stream,
    ):
        stream.push_many([(0.0, JPEG)])
        stream.push_many([(1.0, JPEG)])
        with pytest.raises(RequestTimeout):
            stream.push_many([(2.0, JPEG)])
        stream.close()


def refusal(status: int, body: str = "", **headers: str) -> Response:
    return Response(status, "No", Headers(headers), body.encode())


@pytest.mark.parametrize(
    ("answer", "error", "words"),
    [
        (refusal(401, "who are you?"), NotAuthorized, "401 Unauthorized: who are you?"),
        (refusal(403, problem(403, "request/origin").model_dump_json()), NotAuthorized, "403 No: it is so"),
        (refusal(404, "<p>nothing here</p>"), NotFound, "404 Not Found: nothing here"),
        (refusal(307, Location="http://127.0.0.1:1/v1/streams"), UnexpectedAnswer, "answered 307 .* 'http://127"),
        (refusal(200, "hello"), UnexpectedAnswer, "answered 200 where a WebSocket was asked for"),
    ],
)
def test_what_is_answered_in_place_of_a_websocket_is_told(
    through: Through, answer: Response, error: type[Exception], words: str
) -> None:
    with Service() as service:
        service.refusal = answer
        with pytest.raises(error, match=words):
            through(terms(service.url), 1)
    assert service.opens == []


def test_a_service_that_is_full_before_it_listens_is_asked_again() -> None:
    with Service() as service, Client(service.url, max_retries=0) as client:
        service.refusal = refusal(503, "later", **{"Retry-After": "3"})
        with pytest.raises(Overloaded) as caught:
            client.stream().__enter__()
    assert caught.value.retry_after_seconds == 3.0


def test_a_close_wakes_whoever_waits() -> None:
    with Service() as service, Stream(AsyncStream(terms(service.url))) as stream:
        closing = threading.Timer(0.1, stream.close)
        closing.start()
        with pytest.raises(OptionError, match="closed"):
            next(iter(stream))
        closing.join()
        with pytest.raises(OptionError, match="closed"):
            stream.push(JPEG, seconds=0.0)


def test_a_stream_that_was_not_opened_says_how_it_is() -> None:
    with Service() as service, Client(service.url) as client:
        with pytest.raises(OptionError, match="`with`"):
            client.stream().push(JPEG, seconds=0.0)
        with pytest.raises(OptionError, match="`with`"):
            client.stream().end()
        with pytest.raises(OptionError, match="not ended"):
            _ = client.stream().prediction


def test_nothing_can_be_pushed_after_the_end_and_the_end_may_be_asked_twice() -> None:
    with Service() as service, Stream(AsyncStream(terms(service.url))) as stream:
        stream.push(JPEG, seconds=0.0)
        assert stream.end() == stream.end()
        with pytest.raises(OptionError, match="ended"):
            stream.push(JPEG, seconds=1.0)


def test_labels_that_nobody_takes_are_bounded() -> None:
    many = Applied(sequence=1, labels=(Moment(seconds=0.0, frame=None, action=None),) * MAX_EVENTS)
    with (
        Service((f"after-answer:say {many.model_dump_json()}", 0)) as service,
        Stream(AsyncStream(terms(service.url))) as stream,
    ):
        stream.push(JPEG, seconds=0.0)
        stream.push(JPEG, seconds=1.0)
        wait_until(lambda: stream.resume is not None and stream.resume.received == 2)
        with pytest.raises(OptionError, match="labels and notices wait"):
            stream.push(JPEG, seconds=2.0)
        assert len(stream.take()) > MAX_EVENTS
        stream.close()


@pytest.mark.parametrize("when_full", ["drop_oldest", "thin"])
def test_what_comes_too_fast_is_dropped_without_waiting_and_told(when_full: str) -> None:
    options = StreamOptions.model_validate({"when_full": when_full})
    with (
        Service(hold=True, window_pushes=2) as service,
        Stream(AsyncStream(terms(service.url, options=options))) as stream,
    ):
        for number in range(40):
            stream.push(JPEG, seconds=number)
        service.go_on.set()
        stream.end()
        events = stream.take()
        told = seconds_of(events)
        notices = [event for event in events if isinstance(event, Notice)]
    assert told == sorted(told) and told[-1] == 39
    assert len(told) + stream.num_dropped == 40
    assert stream.num_dropped == sum(notice.num_frames for notice in notices) > 30
    assert {notice.kind for notice in notices} == {"dropped"}
