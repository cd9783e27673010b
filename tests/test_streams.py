"""WS /v1/streams on a real server with a real toy model: labels while the client still sends, and what goes wrong."""

import asyncio
import contextlib
import gc
import logging
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2
import pytest
from websockets.exceptions import ConnectionClosed

from serving.finished import Finished
from serving.parts import Frames
from tests.stream_server import Client, refusal, said, stream_app, talking
from tests.toy_streams import assert_same, chunked, labels, pushed, run, toy_frames, toy_live
from tests.toy_videos import write_clip
from tests.web_server import running, toy_app, wait_until
from vidseq.live import Live
from vidseq.messages import (
    Applied,
    Encoded,
    Final,
    Noticed,
    Open,
    Ready,
    Received,
    ServiceMessage,
    pack_frames,
    read_service_message,
)

FRAMES = toy_frames(30)


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    with toy_live(tmp_path_factory.mktemp("live")) as live:
        yield live


@pytest.fixture(scope="module")
def url(live: Live, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running(stream_app(live, tmp_path_factory.mktemp("store"))) as url:
        yield url


def frames_of(numbers: range) -> bytes:
    return pack_frames(FRAMES[number] for number in numbers)


# Pictures


def test_pictures_get_the_labels_that_the_model_gives_them_without_a_server(live: Live, url: str) -> None:
    expected, session = run(pushed(live, chunked(FRAMES, [4])))
    with talking(url) as client:
        client.open()
        for frames in chunked(FRAMES, [4]):
            client.say(pack_frames(frames))
        client.end()
        answers, final = said(client.hear_all())
    assert_same(labels(answers), labels(expected))
    assert [applied.sequence for applied in answers] == list(range(8))
    assert final.prediction.sampled.num_frames == session.track.num_frames
    assert client.code == 1000


def test_a_label_comes_before_the_next_picture_is_sent(url: str) -> None:
    with talking(url) as client:
        client.open()
        for number in range(3):
            client.say(frames_of(range(number, number + 1)))
            applied = client.hear()
            assert isinstance(applied, Applied) and applied.sequence == number


def test_a_session_goes_on_where_its_connection_was_cut_and_tells_what_was_missed(live: Live, url: str) -> None:
    with talking(url) as client:
        session = client.open().session
        client.say(frames_of(range(0, 10)))
        first = client.hear()
        client.say(frames_of(range(10, 20)))
        client.hear()  # as if it had been lost on its way
    with talking(url) as client:
        ready = client.open(resume={"session": session, "received": 1})
        assert ready.next_sequence == 2
        missed = client.hear()
        client.say(frames_of(range(20, 30)))
        client.end()
        answers, _ = said(client.hear_all())
    assert isinstance(first, Applied) and isinstance(missed, Applied)
    expected, _ = run(pushed(live, chunked(FRAMES, [10])))
    assert_same(labels([first, missed, *answers]), labels(expected))


def test_a_session_that_ended_before_its_client_heard_so_tells_it_again(url: str) -> None:
    with talking(url) as client:
        session = client.open().session
        client.say(frames_of(range(4)))
        client.end()
        _, final = said(client.hear_all())
    with talking(url) as client:
        client.open(resume={"session": session, "received": 1})
        assert client.hear_all() == [final]
        assert client.code == 1000


def test_a_client_that_keeps_its_own_memory_goes_on_with_a_token(live: Live, url: str) -> None:
    with talking(url) as client:
        assert client.open(keep="client").session is None
        client.say(frames_of(range(0, 15)))
        first = client.hear()
        assert isinstance(first, Applied)
    with talking(url) as client:
        client.open(keep="client", resume={"token": first.resume_token})
        client.say(frames_of(range(15, 30)))
        client.end()
        answers, _ = said(client.hear_all())
    expected, _ = run(pushed(live, chunked(FRAMES, [15])))
    assert_same(labels([first, *answers]), labels(expected))


def test_a_picture_that_is_none_is_told_and_the_stream_goes_on(url: str) -> None:
    broken = Encoded(FRAMES[2].header.model_copy(update={"format": "jpeg"}), FRAMES[2].data)
    with talking(url) as client:
        client.open()
        client.say(pack_frames([*FRAMES[:2], broken, *FRAMES[3:6]]))
        client.end()
        (applied,), _ = said(client.hear_all())
    assert [(notice.kind, notice.effect) for notice in applied.notices] == [("undecodable", "dropped")]
    assert len(applied.labels) > 1


# Faster than the service


def flood(client: Client, num_frames: int) -> tuple[list[Applied], Final]:
    """As many single frames as that, all at once, while somebody reads what comes."""
    frames = toy_frames(num_frames, frames_per_second=1000.0)
    sender = threading.Thread(target=lambda: [client.say(pack_frames([frame])) for frame in frames] and client.end())
    sender.start()
    heard = client.hear_all()
    sender.join()
    return said(heard)


@pytest.mark.parametrize("when_full", ["drop_oldest", "thin"])
def test_a_thousand_frames_at_once_are_each_labelled_or_said_to_be_dropped(
    live: Live, tmp_path: Path, when_full: str
) -> None:
    app = stream_app(live, tmp_path, sessions={"window_pushes": 8})
    with running(app) as url, talking(url) as client:
        client.open(options={"when_full": when_full})
        answers, final = flood(client, 1000)
    assert [applied.sequence for applied in answers] == list(range(1000))
    dropped = [notice for applied in answers for notice in applied.notices if notice.kind == "dropped"]
    assert 500 < len(dropped) < 1000
    assert final.prediction.video.frames_decoded == 1000 - len(dropped)


def test_a_client_that_said_it_would_wait_and_does_not_is_refused(live: Live, tmp_path: Path) -> None:
    app = stream_app(live, tmp_path, sessions={"window_pushes": 8})
    with running(app) as url, talking(url) as client:
        client.open()
        with contextlib.suppress(ConnectionClosed):
            for frame in toy_frames(200):
                client.say(pack_frames([frame]))
        failed, code = refusal(client)
    assert (failed.problem.type, failed.problem.retryable, code) == ("stream/window", True, 4429)


def test_a_push_larger_than_the_service_takes_is_refused(live: Live, tmp_path: Path) -> None:
    with running(stream_app(live, tmp_path, sessions={"max_push_bytes": 1000})) as url, talking(url) as client:
        assert client.open().max_push_bytes == 1000
        client.say(frames_of(range(1)))
        failed, code = refusal(client)
    assert (failed.problem.type, code) == ("request/body-too-large", 4413)


# Videos

CONTAINERS = [
    ("clip.mkv", "libx264", {}),
    ("clip.ts", "libx264", {}),
    ("clip.avi", "mpeg4", {}),
    ("fragmented.mp4", "libx264", {"movflags": "frag_keyframe+empty_moov"}),
    ("faststart.mp4", "libx264", {"movflags": "faststart"}),
    ("index_at_end.mp4", "libx264", {}),
]


def send_video(client: Client, video: bytes, *, piece_bytes: int = 1000) -> None:
    for start in range(0, len(video), piece_bytes):
        client.say(video[start : start + piece_bytes])
    client.end()


@pytest.mark.parametrize(("name", "codec", "muxing"), CONTAINERS, ids=[row[0] for row in CONTAINERS])
def test_a_video_that_arrives_gets_the_labels_of_one_that_is_here(
    url: str, tmp_path: Path, name: str, codec: str, muxing: dict[str, str]
) -> None:
    video = write_clip(tmp_path / name, codec=codec, muxing=muxing, num_frames=40).read_bytes()
    lines = lines_of(url, video)
    with talking(url) as client:
        client.open(input="video")
        send_video(client, video)
        answers, final = said(client.hear_all())
    expected, expected_final = said(lines)
    assert_same(labels(answers) + list(final.labels), labels(expected) + list(expected_final.labels))
    assert final.prediction.video.frames_decoded == expected_final.prediction.video.frames_decoded == 40
    assert client.code == 1000


def lines_of(url: str, video: bytes, **query: Any) -> list[ServiceMessage]:
    """The same over HTTP."""
    headers = {"Content-Type": "application/octet-stream", "Accept": "application/x-ndjson"}
    answer = httpx2.post(f"{url}/v1/classify", params=query, content=video, headers=headers, timeout=20)
    assert answer.headers["Content-Type"] == "application/x-ndjson", answer.text
    return [read_service_message(line) for line in answer.text.splitlines()]


def test_labels_of_a_video_come_while_it_is_being_sent(url: str, tmp_path: Path) -> None:
    video = write_clip(tmp_path / "clip.ts", num_frames=400).read_bytes()
    with talking(url) as client:
        client.open(input="video")
        client.say(video[: len(video) // 2])
        first = client.hear()
        assert isinstance(first, Applied) and first.labels


def test_of_a_video_with_its_index_at_the_end_it_is_said_that_labels_follow_later(url: str, tmp_path: Path) -> None:
    video = write_clip(tmp_path / "clip.mp4", num_frames=200).read_bytes()
    with talking(url) as client:
        client.open(input="video")
        client.say(video[:4000])
        noticed = client.hear()
        client.say(video[4000:])
        client.end()
        answers, _ = said(client.hear_all())
    assert isinstance(noticed, Noticed)
    assert [(notice.kind, notice.effect) for notice in noticed.notices] == [("index-at-end", "waiting")]
    assert labels(answers)


def test_a_video_that_is_sent_again_after_a_cut_repeats_no_label(url: str, tmp_path: Path) -> None:
    video = write_clip(tmp_path / "clip.ts", num_frames=200).read_bytes()
    whole = labels(said(lines_of(url, video))[0])
    with talking(url) as client:
        session = client.open(input="video").session
        client.say(video[: len(video) // 2])
        first = client.hear()
    assert isinstance(first, Applied)
    with talking(url) as client:
        client.open(input="video", resume={"session": session, "received": 1})
        send_video(client, video)
        answers, _ = said(client.hear_all())
    assert_same(labels([first, *answers]), whole)


def test_a_video_is_taken_no_faster_than_it_is_decoded(live: Live, tmp_path: Path) -> None:
    video = write_clip(tmp_path / "clip.ts", num_frames=400).read_bytes()
    with running(stream_app(live, tmp_path, sessions={"window_bytes": 4000})) as url, talking(url) as client:
        assert client.open(input="video").window_bytes == 4000
        heard, num_sent, num_taken = list[ServiceMessage](), 0, 0
        while num_sent < len(video):
            piece = video[num_sent : num_taken + 4000]
            client.say(piece)
            num_sent += len(piece)
            while num_sent - num_taken > 2000 and num_sent < len(video):
                heard.append(client.hear())
                num_taken = max([0, *(one.num_bytes for one in heard if isinstance(one, Received))])
        client.end()
        answers, _ = said([*heard, *client.hear_all()])
    assert_same(labels(answers), labels(said(lines_of_app(live, tmp_path, video))[0]))


def lines_of_app(live: Live, folder: Path, video: bytes) -> list[ServiceMessage]:
    with running(stream_app(live, folder)) as url:
        return lines_of(url, video)


def test_a_client_that_sends_a_video_faster_than_it_may_is_refused(live: Live, tmp_path: Path) -> None:
    with running(stream_app(live, tmp_path, sessions={"window_bytes": 4000})) as url, talking(url) as client:
        client.open(input="video")
        client.say(bytes(4001))
        failed, code = refusal(client)
    assert (failed.problem.type, code) == ("stream/window", 4429)


def test_a_stream_that_is_to_end_early_does_not_wait_for_the_rest_of_its_video(url: str, tmp_path: Path) -> None:
    video = write_clip(tmp_path / "clip.ts", num_frames=400).read_bytes()
    with talking(url) as client:
        client.open(input="video", options={"end": 1.0})
        client.say(video)
        answers, _ = said(client.hear_all())  # no End was sent
    assert max(moment.seconds for moment in labels(answers)) < 1.0


@pytest.mark.parametrize(
    ("video", "type"),
    [
        (b"this is a text and no video: " * 100, "video/unsupported-container"),
        (b"", "video/empty"),
        (b"\x1a\x45\xdf\xa3" + bytes(10_000), "video/no-video-stream"),
    ],
    ids=["text", "nothing", "matroska with nothing in it"],
)
def test_what_is_no_video_is_refused_in_the_words_of_classify(url: str, video: bytes, type: str) -> None:
    with talking(url) as client:
        client.open(input="video")
        with contextlib.suppress(ConnectionClosed):
            send_video(client, video)
        failed, code = refusal(client)
    assert (failed.problem.type, code) == (type, 4422)


# What else may come


@pytest.mark.parametrize(
    ("message", "word"),
    [
        ("not json", "message"),
        ("[]", "message"),
        ("{}", "type"),
        ('{"type": "open", "frames": 3}', "frames"),
        ('{"type": "open", "options": {"when_full": "explode"}}', "when_full"),
        ('{"type": "open", "resume": {}}', "session"),
        ('{"type": "end"}', "opens"),
        ('{"type": "ready"}', "type"),
        (b"bytes", "text"),
    ],
)
def test_a_wrong_first_message_is_refused_with_a_sentence(url: str, message: str | bytes, word: str) -> None:
    with talking(url) as client:
        client.say(message)
        failed, code = refusal(client)
    assert (failed.problem.type, failed.problem.status, code) == ("option/invalid", 422, 4422)
    assert word in failed.problem.detail


@pytest.mark.parametrize("message", ['{"type": "open"}', '{"type": "more"}', "not json", b"not a push"])
def test_a_wrong_message_in_an_open_stream_ends_it(url: str, message: str | bytes) -> None:
    with talking(url) as client:
        client.open()
        client.say(message)
        failed, code = refusal(client)
    assert (failed.problem.type, code) == ("option/invalid", 4422)


def test_nothing_may_follow_the_end(url: str) -> None:
    with talking(url) as client:
        client.open()
        for number in range(20):
            client.say(frames_of(range(number, number + 1)))
        client.end()
        client.say(frames_of(range(20, 21)))
        failed, code = refusal(client)
    assert ("after the end" in failed.problem.detail, code) == (True, 4422)


def test_a_stream_of_nothing_has_nothing_to_say(url: str) -> None:
    with talking(url) as client:
        client.open()
        client.end()
        failed, code = refusal(client)
    assert (failed.problem.type, code) == ("video/nothing-sampled", 4422)


def test_a_text_of_a_megabyte_is_not_read(url: str) -> None:
    with talking(url) as client:
        client.say('{"type": "open", "model": "' + "x" * 1_000_000 + '"}')
        failed, code = refusal(client)
    assert (failed.problem.type, code) == ("request/body-too-large", 4413)


def test_another_model_is_not_found(url: str) -> None:
    with talking(url) as client:
        client.say('{"type": "open", "model": "other"}')
        failed, code = refusal(client)
    assert (failed.problem.type, code) == ("model/not-found", 4404)


def test_a_session_that_nobody_opened_is_not_found(url: str) -> None:
    with talking(url) as client:
        client.say('{"type": "open", "resume": {"session": "nobody"}}')
        failed, code = refusal(client)
    assert (failed.problem.type, code) == ("session/not-found", 4404)


def test_a_session_belongs_to_the_key_that_opened_it(url: str) -> None:
    with talking(url, additional_headers={"Authorization": "Bearer mine"}) as client:
        session = client.open().session
    with talking(url, additional_headers={"Authorization": "Bearer other"}) as client:
        client.say(f'{{"type": "open", "resume": {{"session": "{session}"}}}}')
        failed, code = refusal(client)
    assert (failed.problem.type, code) == ("session/not-found", 4404)


def test_a_token_that_was_changed_is_refused(url: str) -> None:
    with talking(url) as client:
        token = client.open(keep="client").resume_token
    assert token is not None
    changed = token[:-2] + ("AA" if token[-2:] != "AA" else "BA")
    with talking(url) as client:
        client.say(f'{{"type": "open", "keep": "client", "resume": {{"token": "{changed}"}}}}')
        failed, code = refusal(client)
    assert (failed.problem.type, code) == ("session/token", 4403)


def test_a_session_of_another_model_names_both(live: Live, tmp_path: Path) -> None:
    with running(stream_app(live, tmp_path)) as url, talking(url) as client:
        session = client.open().session
    with toy_live(tmp_path, seed=1) as other, running(stream_app(other, tmp_path)) as url, talking(url) as client:
        client.say(f'{{"type": "open", "resume": {{"session": "{session}"}}}}')
        failed, code = refusal(client)
    assert (failed.problem.type, code) == ("session/model-replaced", 4409)
    assert live.info.sha256[:12] in failed.problem.detail and other.info.sha256[:12] in failed.problem.detail


def test_a_model_that_cannot_stream_says_so() -> None:
    with running(toy_app()) as url, talking(url) as client:
        client.say('{"type": "open"}')
        failed, code = refusal(client)
    assert (failed.problem.type, code) == ("state/offline-only", 4422)


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://127.0.0.1:1", "http://[", "http://[::1"])
def test_a_page_of_another_host_may_not_use_its_readers_browser(url: str, origin: str) -> None:
    with talking(url, origin=origin) as client:
        failed, code = refusal(client)
    assert (failed.problem.type, code) == ("request/foreign-origin", 4403)


def test_a_page_of_this_host_or_one_that_is_allowed_may(live: Live, tmp_path: Path) -> None:
    app = stream_app(live, tmp_path, allowed_origins=["https://app.example"])
    with running(app) as url:
        for origin in (url, "https://app.example"):
            with talking(url, origin=origin) as client:
                assert client.open().session


# Time, places, ends


def test_a_connection_that_opens_no_stream_is_closed(live: Live, tmp_path: Path) -> None:
    with running(stream_app(live, tmp_path, streams={"open_timeout_seconds": 0.1})) as url, talking(url) as client:
        failed, code = refusal(client)
    assert (failed.problem.type, code) == ("stream/idle", 4408)


def test_a_stream_in_which_nothing_happens_is_closed_and_can_go_on_later(live: Live, tmp_path: Path) -> None:
    with running(stream_app(live, tmp_path, streams={"idle_timeout_seconds": 2.0})) as url:
        with talking(url) as client:
            session = client.open().session
            client.say(frames_of(range(4)))
            client.hear()
            failed, code = refusal(client)
        assert (failed.problem.type, failed.problem.retryable, code) == ("stream/idle", True, 4408)
        with talking(url) as client:
            assert client.open(resume={"session": session, "received": 1}).next_sequence == 1


def test_there_is_a_most_of_open_streams_and_a_place_is_free_again_when_one_ends(live: Live, tmp_path: Path) -> None:
    with running(stream_app(live, tmp_path, streams={"max_streams": 1})) as url, talking(url) as first:
        first.open()
        with talking(url) as second:
            failed, code = refusal(second)
        first.connection.close()
        wait_until(lambda: opens(url))
    assert (failed.problem.type, failed.problem.retryable, code) == ("service/busy", True, 4429)


def opens(url: str, **asked: Any) -> bool:
    with talking(url) as client:
        with contextlib.suppress(ConnectionClosed):
            client.say(Open.model_validate(asked).model_dump_json())
        return isinstance(client.hear(), Ready)


def test_videos_share_their_places_with_those_that_come_as_bodies(live: Live, tmp_path: Path) -> None:
    with running(stream_app(live, tmp_path, max_concurrent=1)) as url, talking(url) as first, talking(url) as second:
        first.open(input="video")
        second.open(input="video")
        failed, code = refusal(second)
    assert (failed.problem.type, code) == ("service/busy", 4429)


def vanishes(url: str, *, input: str, half: bytes) -> bool:
    """Leaves in the middle of a message, without a word. False where there was no place for it."""
    with talking(url) as client, contextlib.suppress(ConnectionClosed, OSError):
        client.say(Open.model_validate({"input": input}).model_dump_json())
        client.say(half)
        heard = client.hear(), client.hear()
        client.connection.socket.sendall(b"\x82\xfe\xff\xff" + b"half a message")
        client.connection.socket.shutdown(socket.SHUT_RDWR)
        return isinstance(heard[1], Applied)
    return False


def things_held() -> tuple[int, int]:
    """Tasks of asyncio, and descriptors, of this whole process."""
    gc.collect()
    num_tasks = sum(type(thing) is asyncio.Task and not thing.done() for thing in gc.get_objects())
    return num_tasks, len(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize("input", ["video", "frames"])
def test_clients_that_vanish_leave_no_task_no_descriptor_and_no_place_behind(
    live: Live, tmp_path: Path, input: str
) -> None:
    video = write_clip(tmp_path / "clip.ts", num_frames=400).read_bytes()
    half = {"video": video[: len(video) // 2], "frames": frames_of(range(10))}[input]
    with running(stream_app(live, tmp_path, max_concurrent=1, streams={"max_streams": 1})) as url:
        wait_until(lambda: vanishes(url, input=input, half=half))
        wait_until(lambda: opens(url, input=input))
        held = things_held()
        for _ in range(3):
            wait_until(lambda: vanishes(url, input=input, half=half))  # the only place is free
        wait_until(lambda: things_held() <= held, seconds=60)


def deaf(url: str) -> socket.socket:
    """A connection that can hold next to nothing."""
    address = urlsplit(url)
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.connect((address.hostname, address.port))
    return connection


def test_a_client_that_reads_nothing_is_cut_off_and_the_others_notice_nothing(live: Live, tmp_path: Path) -> None:
    """It does not answer the pings that stand behind what it does not read."""
    app = stream_app(live, tmp_path, streams={"max_streams": 2})
    pinging = running(app, ws_ping_interval=0.3, ws_ping_timeout=5.0)
    with pinging as url, talking(url) as polite, talking(url, sock=deaf(url), max_queue=1, close_timeout=0.1) as greedy:
        polite.open()
        greedy.open(options={"when_full": "drop_oldest"})
        for number in range(30):
            with contextlib.suppress(ConnectionClosed):  # it may have been cut off by now
                for _ in range(20):
                    greedy.say(frames_of(range(number, number + 1)))
            polite.say(frames_of(range(number, number + 1)))
            applied = polite.hear()
            assert isinstance(applied, Applied) and applied.sequence == number
        wait_until(lambda: opens(url), seconds=60)  # there is a place again


def test_a_client_that_takes_no_answer_in_time_is_given_up(live: Live, tmp_path: Path) -> None:
    """Where no ping helps: what is sent waits in the server, for the kernel's buffers are full."""
    app = stream_app(live, tmp_path, streams={"send_timeout_seconds": 0.1})
    coming = [
        {"type": "websocket.connect"},
        {"type": "websocket.receive", "text": Open().model_dump_json()},
        {"type": "websocket.receive", "bytes": frames_of(range(4))},
    ]
    told = []

    async def receive() -> dict[str, Any]:
        return coming.pop(0) if coming else await asyncio.Future()

    async def send(message: dict[str, Any]) -> None:
        told.append(message["type"])
        if "applied" in message.get("text", ""):
            await asyncio.Future()

    scope = {"type": "websocket", "path": "/v1/streams", "headers": [(b"host", b"x")], "query_string": b""}
    run(asyncio.wait_for(app(scope, receive, send), timeout=10))
    assert told == ["websocket.accept", "websocket.send", "websocket.send"]


def test_a_client_that_goes_before_it_is_let_in_is_no_error(live: Live, tmp_path: Path) -> None:
    async def receive() -> dict[str, Any]:
        return {"type": "websocket.connect"}

    async def send(message: dict[str, Any]) -> None:
        raise OSError("nobody is there")

    scope = {"type": "websocket", "path": "/v1/streams", "headers": [(b"host", b"x")], "query_string": b""}
    run(asyncio.wait_for(stream_app(live, tmp_path)(scope, receive, send), timeout=10))


def test_sessions_that_are_opened_and_left_cost_no_connection_and_have_a_most(live: Live, tmp_path: Path) -> None:
    app = stream_app(live, tmp_path, sessions={"lifetimes": {"max_total": 20}})
    with running(app) as url:
        for _ in range(20):
            assert opens(url)
        with talking(url) as client:
            client.say(Open().model_dump_json())
            failed, code = refusal(client)
    assert (failed.problem.type, failed.problem.retryable, code) == ("session/too-many", True, 4429)


# What is seen from outside


def test_a_stream_has_the_request_id_that_its_client_gave(url: str) -> None:
    with talking(url, additional_headers={"X-Request-ID": "camera-7"}) as client:
        client.say("{}")
        failed, _ = refusal(client)
        assert client.connection.response is not None
        assert client.connection.response.headers["X-Request-ID"] == failed.problem.request_id == "camera-7"


def test_our_own_mistake_is_logged_and_not_told(live: Live, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def broken(video: object, **options: object) -> Frames:
        raise RuntimeError("secret")
        yield

    app = stream_app(live, tmp_path, decode=broken)
    with caplog.at_level(logging.ERROR, logger="serving"), running(app) as url, talking(url) as client:
        client.open(input="video")
        failed, code = refusal(client)
    assert (failed.problem.status, code) == (500, 4500)
    assert "secret" not in failed.problem.detail
    assert "secret" in caplog.text and failed.problem.request_id in caplog.text


def test_streams_and_pushes_are_observed(live: Live, tmp_path: Path) -> None:
    seen: list[tuple[str, str, int]] = []
    pushes: list[int] = []

    def observe(finished: Finished) -> None:
        seen.append((finished.route, finished.method, finished.status))

    def observe_push(applied: Applied, *, seconds: float) -> None:
        assert 0 < seconds < 60
        pushes.append(applied.sequence)

    with running(stream_app(live, tmp_path, observe=observe, observe_push=observe_push)) as url:
        with talking(url) as client:
            client.open()
            for numbers in (range(5), range(5, 10)):
                client.say(frames_of(numbers))
            client.end()
            client.hear_all()
        with talking(url) as client:
            client.say("{}")
            client.hear_all()
        wait_until(lambda: len(seen) == 2)
    assert seen == [("/v1/streams", "", 1000), ("/v1/streams", "", 4422)]
    assert pushes == [0, 1]
