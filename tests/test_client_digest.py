"""The SDK sends the digest of what it knows, so that a video that is damaged on its way is not labelled."""

import contextlib
import io
import os
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.test_client import PLAIN, Script, Through, awaiting, blocking, classify, good_answer, label
from tests.test_digest import digest
from tests.web_server import running, toy_app
from vidseq.client import Source
from vidseq.errors import RequestRejected

BODY = os.urandom(700_000)
BIT_AT = 500_000  # bytes after the first of a connection: far behind the headers


@pytest.fixture(params=[blocking, awaiting])
def through(request: pytest.FixtureRequest) -> Through:
    """`through(ask, base_url, ...)`: what `ask(client)` gives, with each of the two clients."""
    through: Through = request.param
    return through


class Pipe(io.BytesIO):
    """Bytes that can be read once."""

    def seekable(self) -> bool:
        return False


def a_path(folder: Path) -> Path:
    (folder / "clip.mp4").write_bytes(BODY)
    return folder / "clip.mp4"


def a_file_that_stands_somewhere(folder: Path) -> io.BytesIO:
    file = io.BytesIO(b"before" + BODY)
    file.seek(6)
    return file


@pytest.mark.parametrize("source_in", [a_path, lambda folder: BODY, a_file_that_stands_somewhere])
def test_the_digest_of_a_path_bytes_or_a_file_goes_with_them(
    through: Through, tmp_path: Path, source_in: Callable[[Path], Source]
) -> None:
    with Script(good_answer()) as script:
        through(classify(source_in(tmp_path)), script.url)
    assert script.bodies == [BODY]
    assert script.headers[0]["Content-Digest"] == digest(BODY)


def test_what_can_be_read_once_goes_without(through: Through) -> None:
    with Script(good_answer()) as script:
        through(classify(Pipe(BODY)), script.url)
    assert script.bodies[0] == BODY and "Content-Digest" not in script.headers[0]


def test_a_retry_keeps_it_and_progress_counts_what_is_sent_only(through: Through, tmp_path: Path) -> None:
    told: list[int] = []
    with Script((503, PLAIN, b"full"), good_answer()) as script:
        through(classify(a_path(tmp_path), on_progress=lambda sent, total: told.append(sent)), script.url)
    assert [headers["Content-Digest"] for headers in script.headers] == [digest(BODY)] * 2
    assert told.count(len(BODY)) == 2 and told[: len(told) // 2] == told[len(told) // 2 :]


@contextlib.contextmanager
def flipping(url: str, *, times: int) -> Iterator[str]:
    """A proxy that flips one bit of the body on each of the first connections, and closes a connection that ends."""
    address = urlsplit(url)
    assert address.hostname and address.port
    listener = socket.create_server(("127.0.0.1", 0))

    def relay(source: socket.socket, target: socket.socket, at: int) -> None:
        num_bytes = 0
        with contextlib.suppress(OSError):
            while piece := bytearray(source.recv(65536)):
                if num_bytes <= at < num_bytes + len(piece):
                    piece[at - num_bytes] ^= 1
                num_bytes += len(piece)
                target.sendall(piece)
            target.shutdown(socket.SHUT_WR)

    def serve() -> None:
        with contextlib.suppress(OSError), contextlib.ExitStack() as sockets:
            for number in range(100):
                near = sockets.enter_context(listener.accept()[0])
                far = sockets.enter_context(socket.create_connection((address.hostname, address.port)))
                at = BIT_AT if number < times else -1
                threading.Thread(target=relay, args=[near, far, at], daemon=True).start()
                threading.Thread(target=relay, args=[far, near, -1], daemon=True).start()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(10)
        listener.close()


@pytest.fixture(scope="module")
def service() -> Iterator[str]:
    with running(toy_app()) as url:
        yield url


def test_a_bit_that_flips_on_the_way_is_noticed(through: Through, service: str) -> None:
    with flipping(service, times=1) as url, pytest.raises(RequestRejected) as caught:
        through(classify(BODY), url, max_retries=0)
    assert (caught.value.status, caught.value.type) == (400, "body/digest_mismatch")


def test_a_video_that_was_damaged_once_is_sent_again_and_labelled(through: Through, service: str) -> None:
    with flipping(service, times=1) as url:
        assert label(through(classify(BODY), url)) == f"{len(BODY)} bytes"


def test_without_a_digest_nobody_would_have_noticed(through: Through, service: str) -> None:
    """The proxy does what it says: a pipe, whose bytes are not known before, is answered as if nothing had happened."""
    with flipping(service, times=1) as url:
        assert label(through(classify(Pipe(BODY)), url)) == f"{len(BODY)} bytes"
