"""Both clients against real servers: the service itself, and a scripted one for what only a proxy would answer."""

import asyncio
import contextlib
import http.server
import inspect
import io
import os
import socket
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st
from web_server import MODEL, Held, count_bytes, raising, running, toy_app

from serving.labeller import Labeller
from tests.predictions import assert_same
from tests.toy_models import toy_checkpoint
from tests.toy_videos import write_clip
from vidseq.checkpoint import load_checkpoint, save_checkpoint
from vidseq.classifier import Classifier
from vidseq.client import AsyncClient, Client
from vidseq.client.answers import retry_after_seconds
from vidseq.client.retries import Retries
from vidseq.client.uploads import CHUNK_BYTES
from vidseq.config import Calibration, Limits
from vidseq.early import EarlyExit
from vidseq.errors import (
    BodyTooLarge,
    ConnectionFailed,
    InputError,
    NotAuthorized,
    NotFound,
    OptionError,
    Overloaded,
    RequestRejected,
    RequestTimeout,
    ServerFault,
    SourceNotFound,
    StatusError,
    TooManyFrames,
    UnexpectedAnswer,
    VideoRejected,
)
from vidseq.schemas import Models, Prediction

Ask = Callable[[Any], Any]
Through = Callable[..., Any]


def blocking(ask: Ask, *arguments: Any, **settings: Any) -> Any:
    with Client(*arguments, **settings) as client:
        return ask(client)


def awaiting(ask: Ask, *arguments: Any, **settings: Any) -> Any:
    async def main() -> Any:
        async with AsyncClient(*arguments, **settings) as client:
            return await ask(client)

    return asyncio.run(main())


@pytest.fixture(params=[blocking, awaiting])
def through(request: pytest.FixtureRequest) -> Through:
    """`through(ask, base_url, ...)`: what `ask(client)` gives, with each of the two clients."""
    through: Through = request.param
    return through


@pytest.fixture(scope="module")
def service() -> Iterator[str]:
    with running(toy_app(max_body_bytes=2_000_000)) as url:
        yield url


class Script:
    """A server that gives the answers it was told to, one after the other, and keeps what it was asked."""

    def __init__(self, *answers: tuple[int, dict[str, str], bytes]) -> None:
        self.answers = list(answers)
        self.paths: list[str] = []
        self.headers: list[dict[str, str]] = []
        self.bodies: list[bytes] = []
        self.url = ""

    def __enter__(self) -> "Script":
        script = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                script.paths.append(self.path)
                script.headers.append(dict(self.headers))
                script.bodies.append(b"".join(self.pieces()))
                status, headers, body = script.answers.pop(0)
                self.send_response(status)
                for name, value in ({"Content-Length": str(len(body))} | headers).items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_PATCH = do_DELETE = do_POST

            def pieces(self) -> Iterator[bytes]:
                yield self.rfile.read(int(self.headers.get("Content-Length", 0)))
                while self.headers.get("Transfer-Encoding") == "chunked":
                    num_bytes = int(self.rfile.readline(), 16)
                    yield self.rfile.read(num_bytes + 2)[:-2]
                    if num_bytes == 0:
                        return

            def log_message(self, format: str, *values: Any) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=[0.01])
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class Stub(io.RawIOBase):
    """A file that cannot be rewound, like a pipe or a socket."""

    def __init__(self, content: bytes) -> None:
        self._content = io.BytesIO(content)

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        return self._content.read(size)


def classify(*arguments: Any, **options: Any) -> Ask:
    return lambda client: client.classify(*arguments, **options)


def models(client: Any) -> Any:
    return client.models()


def label(prediction: Prediction) -> str:
    assert prediction.action is not None
    return prediction.action.label


def good_answer() -> tuple[int, dict[str, str], bytes]:
    stop = threading.Event()
    answer = count_bytes(io.BytesIO(b"video"), start_seconds=0.0, end_seconds=None, top_k=1, model=None, stop=stop)
    return 200, {"Content-Type": "application/json"}, answer.model_dump_json().encode()


PLAIN = {"Content-Type": "text/plain"}


# What is sent


THREE = Models(models=tuple(MODEL.model_copy(update={"name": name}) for name in "abc"))


@pytest.mark.parametrize(
    ("asked", "answered"),
    [((), ["a", "b", "c"]), (["c", "a"], ["c", "a"]), (("b",), ["b"])],
    ids=["all", "some", "one"],
)
def test_several_models_answer_together(through: Through, asked: Sequence[str], answered: list[str]) -> None:
    with running(toy_app(models=THREE)) as url:
        answers = through(lambda client: client.classify_each(b"video", asked, top_k=2, segments=False), url)
    assert [prediction.model.name for prediction in answers] == answered
    assert {(label(one), len(one.top), one.segments) for one in answers} == {("5 bytes", 2, ())}


def test_a_path_bytes_and_a_file_get_the_same_answer(through: Through, service: str, tmp_path: Path) -> None:
    content = os.urandom(600_000)
    clip = tmp_path / "clip.mp4"
    clip.write_bytes(content)
    with clip.open("rb") as file:
        sources = [clip, str(clip), content, file, io.BytesIO(content), Stub(content)]
        answers = [through(classify(source), service) for source in sources]
        assert not file.closed
    assert [label(answer) for answer in answers] == ["600000 bytes"] * 6


def test_a_file_is_read_from_where_it_stands(through: Through, service: str) -> None:
    file = io.BytesIO(b"0123456789")
    file.seek(4)
    assert label(through(classify(file), service)) == "6 bytes"


def test_options_are_sent_and_defaults_are_the_services_own(through: Through, service: str) -> None:
    asked = through(
        classify(b"video", start_seconds=1.0, end_seconds=2.5, top_k=2, frames=False, segments=False, model="toy"),
        service,
    )
    assert (asked.sampled.start_seconds, asked.sampled.end_seconds, len(asked.top)) == (1.0, 2.5, 2)
    assert (asked.frames, asked.segments) == ((), ())
    default = through(classify(b"video"), service)
    assert (len(default.top), len(default.frames), len(default.segments)) == (5, 1, 1)


def test_models_are_listed(through: Through, service: str) -> None:
    assert through(models, service) == (MODEL,)


def test_a_file_has_its_length_declared_and_a_pipe_is_sent_in_chunks(through: Through) -> None:
    with Script(good_answer(), good_answer()) as script:
        through(classify(io.BytesIO(b"video")), script.url)
        through(classify(Stub(b"video")), script.url)
    assert (script.headers[0]["Content-Length"], script.bodies[0]) == ("5", b"video")
    assert (script.headers[1]["Transfer-Encoding"], script.bodies[1]) == ("chunked", b"video")


def test_a_large_file_is_never_in_memory(through: Through, tmp_path: Path) -> None:
    clip = tmp_path / "sparse.mp4"
    with clip.open("wb") as file:
        file.truncate(64 * 2**20)
    with running(toy_app()) as url:
        tracemalloc.start()
        try:
            assert label(through(classify(clip), url)) == f"{64 * 2**20} bytes"
            peak_bytes = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert peak_bytes < 16 * 2**20  # client and server together


def test_progress_rises_to_the_total(through: Through, service: str) -> None:
    seen: list[tuple[int, int | None]] = []
    num_bytes = 2 * CHUNK_BYTES + 5
    through(classify(bytes(num_bytes), on_progress=lambda sent, total: seen.append((sent, total))), service)
    assert seen == [(CHUNK_BYTES, num_bytes), (2 * CHUNK_BYTES, num_bytes), (num_bytes, num_bytes)]


def test_progress_of_a_pipe_has_no_total(through: Through, service: str) -> None:
    seen: list[tuple[int, int | None]] = []
    through(classify(Stub(b"video"), on_progress=lambda sent, total: seen.append((sent, total))), service)
    assert seen == [(5, None)]


def test_an_error_of_the_progress_callback_ends_the_upload(through: Through, service: str) -> None:
    def give_up(sent_bytes: int, total_bytes: int | None) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        through(classify(b"video", on_progress=give_up), service)


@pytest.mark.parametrize("path", ["/nowhere/clip.mp4", "clip\0.mp4", os.sep, os.devnull])
def test_a_path_that_is_no_readable_file_is_told_before_anything_is_sent(through: Through, path: str) -> None:
    with pytest.raises(SourceNotFound):
        through(classify(path), "http://127.0.0.1:9")


@pytest.mark.parametrize("source", [io.StringIO("text"), 7, None, bytearray(b"video")])
def test_a_source_of_another_kind_is_refused(through: Through, source: Any) -> None:
    with pytest.raises(OptionError):
        through(classify(source), "http://127.0.0.1:9")


def test_a_file_that_shrinks_while_it_is_sent_is_told(through: Through, service: str, tmp_path: Path) -> None:
    clip = tmp_path / "clip.mp4"
    clip.write_bytes(bytes(2 * CHUNK_BYTES))

    def shrink(sent_bytes: int, total_bytes: int | None) -> None:
        os.truncate(clip, CHUNK_BYTES)

    with pytest.raises(InputError, match="changed while it was sent"):
        through(classify(clip, on_progress=shrink), service)


# Early exit


@contextlib.contextmanager
def serving(model: Path) -> Iterator[str]:
    """The URL of a real model."""
    labeller = Labeller(model, name=None, device="cpu", limits=Limits())
    try:
        with running(toy_app(labeller.classify)) as url:
            yield url
    finally:
        labeller.close()


def test_an_early_exit_over_http_is_the_one_in_process(through: Through, tmp_path: Path) -> None:
    toy, model = load_checkpoint(toy_checkpoint(tmp_path / "toy")), tmp_path / "sure after a second"
    calibration = Calibration(elapsed_seconds=(0.0, 1.0), temperatures=(100.0, 1e-4))
    config = toy.config.model_copy(update={"calibration": calibration})
    assert toy.baseline is not None
    save_checkpoint(model, config=config, model=toy.model, baseline=toy.baseline, documents={}, version="1")
    clip = write_clip(tmp_path / "clip.mp4", num_frames=40)
    expected = Classifier.load(model).classify(clip, early_exit=EarlyExit(score=0.9, hold_seconds=0.5))
    with serving(model) as url:
        found = through(classify(clip, early_exit=0.9, early_hold_seconds=0.5), url)
    assert found.early_exit == expected.early_exit and found.early_exit.seconds == 1.5
    assert found.video.complete and found.video.frames_decoded < 40
    # how far an engine has decoded ahead by then is a matter of time
    assert_same([found.model_copy(update={"video": expected.video})], [expected])


def test_a_model_without_calibration_refuses_to_exit_early_in_its_own_words(through: Through, tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.mp4")
    with (
        serving(toy_checkpoint(tmp_path / "toy")) as url,
        pytest.raises(RequestRejected, match="toy is not calibrated by elapsed time") as caught,
    ):
        through(classify(clip, early_exit=0.9), url)
    assert (caught.value.status, caught.value.type) == (422, OptionError.code)


def test_a_time_to_hold_without_an_early_exit_is_refused(through: Through, service: str) -> None:
    with pytest.raises(RequestRejected, match="early_exit, which is not given"):
        through(classify(b"video", early_hold_seconds=2.0), service)


# Errors in the service's words


def test_the_error_of_a_video_keeps_the_services_words_and_request_id(through: Through) -> None:
    with running(toy_app(raising(TooManyFrames(3, 2)))) as url, pytest.raises(VideoRejected) as caught:
        through(classify(b"video"), url)
    error = caught.value
    assert (error.status, error.type, error.detail) == (422, "video/too-many-frames", str(TooManyFrames(3, 2)))
    assert error.request_id is not None and error.request_id in str(error)


def test_each_refusal_of_the_service_has_its_type(through: Through, service: str) -> None:
    for ask, kind in (
        (classify(b""), VideoRejected),
        (classify(bytes(2_000_001)), BodyTooLarge),
        (classify(b"video", model="other"), NotFound),
        (classify(b"video", top_k=0), RequestRejected),
    ):
        with pytest.raises(StatusError) as caught:
            through(ask, service)
        assert type(caught.value) is kind
        assert caught.value.detail and caught.value.request_id


@pytest.mark.parametrize("server", ["httptools", "h11"])
def test_a_refusal_in_the_middle_of_an_upload_is_told(through: Through, server: str) -> None:
    with running(toy_app(max_body_bytes=1000), http=server) as url:
        for source in (bytes(30_000_000), Stub(bytes(30_000_000))):
            with pytest.raises(BodyTooLarge, match="at most 1,000 are allowed"):
                through(classify(source), url)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, RequestRejected),
        (401, NotAuthorized),
        (403, NotAuthorized),
        (404, NotFound),
        (408, RequestRejected),
        (413, BodyTooLarge),
        (429, Overloaded),
        (500, ServerFault),
        (502, ServerFault),
        (503, Overloaded),
        (504, ServerFault),
    ],
)
def test_a_plain_text_error_of_something_in_between_has_its_type_and_words(
    through: Through, status: int, kind: type[StatusError]
) -> None:
    answer = (status, PLAIN | {"X-Request-ID": "abc", "Retry-After": "7"}, b"the words\n of a proxy")
    with Script(answer) as script, pytest.raises(StatusError) as caught:
        through(models, script.url, max_retries=0)
    error = caught.value
    assert type(error) is kind
    assert (error.status, error.type, error.detail) == (status, "about:blank", "the words of a proxy")
    assert (error.request_id, error.retry_after_seconds) == ("abc", 7.0)


def test_an_html_page_is_told_without_its_tags(through: Through) -> None:
    page = b"<html><style>p {color: red}</style><h1>502</h1>\n<p>no <b>backend</b></p>" + b"x" * 100_000
    with Script((502, {"Content-Type": "text/html"}, page)) as script, pytest.raises(ServerFault) as caught:
        through(models, script.url, max_retries=0)
    assert caught.value.detail.startswith("502 no backend")
    assert len(caught.value.detail) <= 500


@pytest.mark.parametrize("body", [b"", b"<html>welcome</html>", b"[]", b'{"models": 3}', b'{"models": [{}]}', b"\xff"])
def test_an_answer_that_is_not_one_is_unexpected(through: Through, body: bytes) -> None:
    with Script((200, {"X-Request-ID": "abc"}, body)) as script, pytest.raises(UnexpectedAnswer) as caught:
        through(models, script.url)
    assert caught.value.request_id == "abc"


def test_fields_of_a_newer_service_are_ignored(through: Through) -> None:
    with Script((200, {}, b'{"models": [], "newer": 1}')) as script:
        assert through(models, script.url) == ()


def test_a_redirect_is_told_and_not_followed(through: Through) -> None:
    with Script() as other, Script((307, {"Location": other.url}, b"")) as script:
        with pytest.raises(UnexpectedAnswer) as caught:
            through(classify(b"video"), script.url, "secret")
        assert other.url in str(caught.value)
    assert other.paths == []


def test_a_damaged_encoding_is_unexpected(through: Through) -> None:
    with Script((200, {"Content-Encoding": "gzip"}, b"not gzip")) as script, pytest.raises(UnexpectedAnswer):
        through(models, script.url)


# Retries


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_a_status_that_may_pass_is_worth_a_pause(status: int) -> None:
    error = StatusError(status=status, type="about:blank", title="later", detail="")
    assert Retries(max_retries=1).pause_seconds(error, num_failed=1) is not None


def test_a_retry_sends_the_body_again_from_its_first_byte(through: Through) -> None:
    seen: list[int] = []
    with Script((503, PLAIN, b"later"), good_answer()) as script:
        through(classify(io.BytesIO(b"video"), on_progress=lambda sent, _: seen.append(sent)), script.url)
    assert script.bodies == [b"video", b"video"]
    assert seen == [5, 5]


@pytest.mark.parametrize("status", [400, 401, 404, 408, 413, 422, 500, 501])
def test_a_failure_that_would_come_again_is_told_at_once(through: Through, status: int) -> None:
    with Script((status, PLAIN, b"no")) as script, pytest.raises(StatusError):
        through(classify(b"video"), script.url)
    assert len(script.paths) == 1


def test_after_the_last_retry_the_last_error_is_told(through: Through) -> None:
    with Script((503, PLAIN, b"first"), (502, PLAIN, b"last")) as script, pytest.raises(ServerFault, match="last"):
        through(models, script.url, max_retries=1)


def test_retries_can_be_switched_off(through: Through) -> None:
    with Script((503, PLAIN, b"no")) as script, pytest.raises(Overloaded):
        through(models, script.url, max_retries=0)


def test_a_pipe_is_not_sent_twice(through: Through) -> None:
    with Script((503, PLAIN, b"no")) as script, pytest.raises(Overloaded):
        through(classify(Stub(b"video")), script.url)
    assert len(script.paths) == 1


def test_a_full_service_is_asked_again_when_it_said_so(through: Through) -> None:
    held = Held()
    with running(toy_app(held, max_concurrent=1, retry_after_seconds=1)) as url:
        first = threading.Thread(target=blocking, args=[classify(b"video"), url])
        first.start()
        assert held.entered.wait(10)
        threading.Timer(2.0, held.release.set).start()
        start = time.monotonic()
        assert label(through(classify(b"second"), url)) == "6 bytes"
        first.join()
    assert time.monotonic() - start >= 1.0


def test_a_service_that_is_not_there_is_a_failed_connection(through: Through) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(ConnectionFailed, match=f"127.0.0.1:{port}"):
        through(models, f"http://127.0.0.1:{port}", max_retries=1)


@contextlib.contextmanager
def cutting(*answers: bytes) -> Iterator[str]:
    """A server that reads a little, sends one of `answers`, and cuts the connection."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            for answer in answers:
                connection, _ = listener.accept()
                with connection:
                    connection.recv(64 * 1024)
                    connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        thread.join(10)


@pytest.mark.parametrize("cut", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{", b"not HTTP at all\r\n\r\n"])
def test_a_connection_that_is_cut_is_tried_again(through: Through, cut: bytes) -> None:
    _, _, body = good_answer()
    whole = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
    with cutting(cut, whole) as url:
        assert label(through(classify(b"video"), url)) == "5 bytes"


def test_a_connection_that_is_cut_every_time_is_a_failed_connection(through: Through) -> None:
    with cutting(b"") as url, pytest.raises(ConnectionFailed):
        through(classify(b"video"), url, max_retries=0)


def test_an_answer_that_does_not_come_in_time_is_not_waited_for_again(through: Through) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(RequestTimeout):
            through(models, url, timeout_seconds=0.1)
        silent.settimeout(0.0)
        silent.accept()[0].close()
        with pytest.raises(BlockingIOError):  # nobody knocked a second time
            silent.accept()


@given(num_failed=st.integers(1, 10_000))
def test_pauses_double_with_jitter_up_to_their_cap(num_failed: int) -> None:
    retries = Retries(max_retries=10_000)
    seconds = retries.pause_seconds(ConnectionFailed("cut"), num_failed=num_failed)
    longest_seconds = (0.5, 1.0, 2.0, 4.0, 8.0)[min(num_failed, 5) - 1]
    assert seconds is not None and longest_seconds / 2 <= seconds <= longest_seconds


@pytest.mark.parametrize(("asked_seconds", "waited_seconds"), [(2.0, 2.0), (30.0, 30.0), (86_400.0, 30.0)])
def test_retry_after_is_honoured_up_to_a_cap(asked_seconds: float, waited_seconds: float) -> None:
    busy = Overloaded(status=429, type="service/busy", title="full", detail="", retry_after_seconds=asked_seconds)
    assert Retries(max_retries=1).pause_seconds(busy, num_failed=1) == waited_seconds


def test_pauses_end_after_the_last_retry() -> None:
    assert Retries(max_retries=2).pause_seconds(ConnectionFailed("cut"), num_failed=3) is None


def test_no_try_begins_after_the_total_time() -> None:
    retries = Retries(max_retries=100, max_total_seconds=60.0)
    assert retries.pause_seconds(ConnectionFailed("cut"), num_failed=50, elapsed_seconds=52.0) is not None
    assert retries.pause_seconds(ConnectionFailed("cut"), num_failed=50, elapsed_seconds=57.0) is None


@pytest.mark.parametrize("header", [None, "", "soon", "-1", "1.5", "1" * 400, "Mon, 99 Foo 2026"])
def test_a_retry_after_that_cannot_be_read_is_none(header: str | None) -> None:
    assert retry_after_seconds(header) is None


def test_a_retry_after_may_be_a_date() -> None:
    in_a_minute = format_datetime(datetime.now(UTC) + timedelta(seconds=60), usegmt=True)
    seconds = retry_after_seconds(in_a_minute)
    assert seconds is not None and 55 < seconds <= 60
    assert retry_after_seconds("Mon, 01 Jan 2001 00:00:00 GMT") == 0.0


# Settings


def test_the_key_is_sent_as_a_bearer_and_shown_nowhere(through: Through) -> None:
    shown: list[str] = []

    def ask(client: Any) -> Any:
        shown.append(repr(client))
        return client.models()

    with Script((200, {}, b'{"models": []}')) as script:
        through(ask, script.url, "s3cret")
    assert script.headers[0]["Authorization"] == "Bearer s3cret"
    assert script.url in shown[0] and "s3cret" not in shown[0]


def test_settings_come_from_the_environment(through: Through, monkeypatch: pytest.MonkeyPatch) -> None:
    with Script((200, {}, b'{"models": []}')) as script:
        monkeypatch.setenv("VIDSEQ_BASE_URL", script.url + "/behind/a/prefix/")
        monkeypatch.setenv("VIDSEQ_API_KEY", "s3cret")
        through(models)
    assert script.paths == ["/behind/a/prefix/v1/models"]
    assert script.headers[0]["Authorization"] == "Bearer s3cret"


def test_without_a_key_none_is_sent(through: Through, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VIDSEQ_API_KEY", raising=False)
    with Script((200, {}, b'{"models": []}')) as script:
        through(models, script.url)
    assert "Authorization" not in script.headers[0]


def test_the_default_service_is_on_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VIDSEQ_BASE_URL", raising=False)
    with Client() as client:
        assert str(client.base_url) == "http://127.0.0.1:8000"


@pytest.mark.parametrize(
    "settings",
    [
        {"base_url": "127.0.0.1:8000"},
        {"base_url": "ftp://127.0.0.1"},
        {"base_url": "http://"},
        {"base_url": "http://127.0.0.1:port"},
        {"base_url": "http://user:s3cret@127.0.0.1"},
        {"api_key": "s3cret\r\nX-Evil: 1"},
        {"api_key": "s3cret\N{SNOWMAN}"},
        {"timeout_seconds": 0.0},
        {"timeout_seconds": float("nan")},
        {"max_retries": -1},
    ],
)
@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_a_wrong_setting_is_told_at_once_and_no_secret_with_it(kind: Any, settings: dict[str, Any]) -> None:
    with pytest.raises(OptionError) as caught:
        kind(**settings)
    assert "s3cret" not in str(caught.value)


def test_a_transport_can_be_put_in_for_special_networks() -> None:
    transport = httpx2.MockTransport(lambda request: httpx2.Response(200, json={"models": []}))
    with Client("http://service.invalid", transport=transport) as client:
        assert client.models() == ()


def test_both_clients_have_one_surface() -> None:
    def surface(kind: type) -> dict[str, list[inspect.Parameter]]:
        methods = inspect.getmembers(kind, inspect.isfunction)
        public = {name: method for name, method in methods if not name.startswith("_")}
        return {name: list(inspect.signature(method).parameters.values()) for name, method in public.items()}

    assert surface(Client) == surface(AsyncClient)
    asks = {"classify", "classify_each", "models", "stream", "classify_stream", "usage", "forget"}
    assert set(surface(Client)) == {*asks, "close"}


def test_many_calls_can_go_through_one_async_client(service: str) -> None:
    async def main() -> list[Prediction]:
        async with AsyncClient(service) as client:
            return await asyncio.gather(*(client.classify(bytes(size)) for size in range(1, 9)))

    assert [label(prediction) for prediction in asyncio.run(main())] == [f"{size} bytes" for size in range(1, 9)]
