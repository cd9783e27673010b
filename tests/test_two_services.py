"""Two services on one machine: what listens and to whom it talks; and how one leaves while the other goes on."""

import itertools
import signal
import socket
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import httpx2
import pytest

from serving.sealing import new_key
from tests.balance import balanced
from tests.ports import Answered, asked_over_grpc, ray_methods, said_to_a_stranger
from tests.predictions import assert_same
from tests.running import STOP_SECONDS, Listener, Service, listeners, name_of, running_service, status
from tests.toy_models import toy_checkpoint
from tests.toy_streams import assert_same as assert_same_labels
from tests.toy_streams import labels, picture, pushed, raw, run
from tests.toy_videos import write_clip
from vidseq.checkpoint import load_checkpoint
from vidseq.classifier import Classifier
from vidseq.client import Client
from vidseq.client.blocking import Stream
from vidseq.config import Limits
from vidseq.engine import Engine
from vidseq.live import Live
from vidseq.messages import StreamOptions
from vidseq.schemas import Moment, Prediction

pytestmark = pytest.mark.cluster

RATE = 8


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy_checkpoint(tmp_path_factory.mktemp("models") / "toy")


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Options with which two services keep sessions in one place."""
    folder = tmp_path_factory.mktemp("sessions")
    (folder / "keys").write_text(new_key())
    return ["--store", f"sqlite:///{folder}/sessions.db", "--session-keys", f"{folder}/keys"]


@pytest.fixture(scope="module")
def service(model: Path, shared: list[str]) -> Iterator[Service]:
    with running_service(model, *shared) as service:
        yield service


@dataclass
class Departure:
    """What was seen of a second service that ran beside the first, and left while it was in use."""

    clip: Path
    answers: list[Prediction]  # of both at the same time
    stranger: Answered  # what the first says to the token of the second
    unready: int | None
    refused: tuple[int, str | None, str]
    uploaded: bytes
    labels: list[Moment]
    final: Prediction
    lasting: tuple[set[int], set[int]]  # processes of the first, before and after
    ready: int | None  # the first one, afterwards


@pytest.fixture(scope="module")
def departure(model: Path, shared: list[str], service: Service, tmp_path_factory: pytest.TempPathFactory) -> Departure:
    clip = write_clip(tmp_path_factory.mktemp("clips") / "clip.mp4")
    before = lasting(service)
    with ExitStack() as stack:
        leaving = stack.enter_context(running_service(model, *shared, "--drain-seconds", "120"))
        one, other = (stack.enter_context(Client(each.url)) for each in (service, leaving))
        pool = stack.enter_context(ThreadPoolExecutor(2))
        answers = list(pool.map(lambda client: client.classify(clip), [one, other]))
        stranger = gcs_says(service, token=token_of(leaving))
        client = stack.enter_context(Client(stack.enter_context(balanced([leaving.port, service.port]))))
        stream = stack.enter_context(client.stream())
        labels = streamed(stream, range(12))
        upload = half_sent(leaving.port, clip.read_bytes())
        leaving.process.terminate()
        unready = awaited(leaving.port, "/readyz", 503)
        for number in (signal.SIGINT, signal.SIGTERM):  # one is enough
            leaving.process.send_signal(number)
        refused = refusal(leaving.port, clip.read_bytes())
        uploaded = upload.finish()
        labels += streamed(stream, range(12, 24))
        leaving.process.wait(STOP_SECONDS)
        assert leaving.process.returncode == 0, leaving.said()
        final = stream.end()
        labels += list(stream)
    after, ready = lasting(service), status(service.port, "/readyz")
    return Departure(clip, answers, stranger, unready, refused, uploaded, labels, final, (before, after), ready)


def lasting(service: Service) -> set[int]:
    """The processes that stay for as long as the service does."""
    return {pid for pid in service.tree() if name_of(pid) in ("vidseq", "gcs_server", "raylet", "ray::ServeRepli")}


def streamed(stream: Stream, numbers: Iterable[int]) -> list[Moment]:
    """Push these pictures, and wait for as many labels."""
    num_pushed = 0
    for number in numbers:
        stream.push(picture(number), seconds=number / RATE)
        num_pushed += 1
    return list(itertools.islice(stream, num_pushed))


def whole_stream(model: Path, num_pictures: int) -> list[Moment]:
    """What one process says of the same pictures, uninterrupted."""
    frames = [raw(picture(number), number / RATE) for number in range(num_pictures)]
    checkpoint = load_checkpoint(model)
    with Engine(checkpoint.model) as engine, ThreadPoolExecutor(1) as decoders:
        live = Live(checkpoint, advance=engine.advance, decoders=decoders, limits=Limits())
        answers, session = run(pushed(live, [frames]))
        final = live.end(session, options=StreamOptions(), video=None, seen_until=session.pace.seen_until)
    return [*labels(answers), *final.labels]


def awaited(port: int, path: str, wanted: int) -> int | None:
    deadline = time.monotonic() + 30
    while (found := status(port, path)) != wanted and time.monotonic() < deadline:
        time.sleep(0.02)
    return found


class half_sent:
    """A clip of which the service has half: the rest is sent by `finish`, which returns the whole answer."""

    def __init__(self, port: int, clip: bytes) -> None:
        self._rest = clip[len(clip) // 2 :]
        self._line = socket.create_connection(("127.0.0.1", port), timeout=60)
        head = f"POST /v1/classify HTTP/1.1\r\nHost: here\r\nConnection: close\r\nContent-Length: {len(clip)}\r\n"
        self._line.sendall(head.encode() + b"Content-Type: video/mp4\r\n\r\n" + clip[: len(clip) // 2])

    def finish(self) -> bytes:
        with self._line:
            self._line.sendall(self._rest)
            return b"".join(iter(lambda: self._line.recv(2**16), b""))


def refusal(port: int, clip: bytes) -> tuple[int, str | None, str]:
    """Status, Retry-After and type with which a clip is refused, once it is."""
    deadline = time.monotonic() + 30
    while (answer := posted(port, clip)).status_code == 200 and time.monotonic() < deadline:
        time.sleep(0.05)
    return answer.status_code, answer.headers.get("retry-after"), answer.json().get("type", "")


def posted(port: int, clip: bytes) -> httpx2.Response:
    headers = {"Content-Type": "video/mp4"}
    return httpx2.post(f"http://127.0.0.1:{port}/v1/classify", content=clip, headers=headers, timeout=60)


def test_two_services_on_one_machine_both_answer(departure: Departure, model: Path) -> None:
    assert_same(departure.answers, [Classifier.load(model).classify(departure.clip)] * 2)


def test_neither_lets_the_token_of_the_other_in(departure: Departure) -> None:
    assert departure.stranger.num_refused > 50 and not departure.stranger.others


def test_the_one_that_stops_does_not_touch_the_other(departure: Departure) -> None:
    before, after = departure.lasting
    assert (before, departure.ready) == (after, 200)


def test_a_service_that_was_told_to_stop_is_unready_at_once_and_soon_sends_others_elsewhere(
    departure: Departure,
) -> None:
    assert departure.unready == 503
    assert departure.refused == (503, "1", "service/leaving")


def test_a_clip_of_which_half_was_there_is_still_labelled(departure: Departure) -> None:
    head, _, body = departure.uploaded.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 "), departure.uploaded
    assert_same([Prediction.model_validate_json(body)], departure.answers[:1])


def test_a_live_stream_goes_on_at_the_other_and_no_label_is_lost_or_doubled(departure: Departure, model: Path) -> None:
    assert_same_labels(departure.labels, whole_stream(model, 24))
    assert departure.final.sampled.num_frames == 24


def rays_own(service: Service) -> list[Listener]:
    """All but the service itself, which answers on its port whoever may ask."""
    return [listener for listener in listeners(service.tree()) if listener.port != service.port]


def test_beyond_the_loopback_only_the_replicas_grpc_listens_and_it_refuses(service: Service) -> None:
    beyond = [listener for listener in rays_own(service) if not listener.address.is_loopback]
    assert {listener.name for listener in beyond} <= {"ray::ServeRepli"}  # whose address Serve does not let one choose
    assert [said_to_a_stranger(listener) for listener in beyond] == ["refuses"] * 2


def test_every_port_refuses_whoever_has_no_token_but_for_pages_of_figures_on_the_loopback(service: Service) -> None:
    said = {listener: said_to_a_stranger(listener) for listener in rays_own(service)}
    assert len(said) >= 12
    assert set(said.values()) == {"refuses", "figures"}
    figures = [listener for listener, words in said.items() if words == "figures"]
    assert all(listener.address.is_loopback for listener in figures) and len(figures) == 3


def test_the_right_token_is_let_in_which_shows_that_the_question_is_a_question(service: Service) -> None:
    method = "/ray.rpc.NodeInfoGcsService/GetAllNodeInfo"
    assert method in ray_methods()
    assert gcs_says(service, token=token_of(service), methods=(method,)).others == {f"{method} OK"}


def gcs_says(service: Service, *, token: str, methods: tuple[str, ...] = ()) -> Answered:
    (gcs,) = [listener for listener in rays_own(service) if listener.name == "gcs_server"]
    return asked_over_grpc(gcs.host, gcs.port, token=token, methods=methods or ray_methods())


def token_of(service: Service) -> str:
    (gcs,) = [pid for pid in service.tree() if name_of(pid) == "gcs_server"]
    environment = Path(f"/proc/{gcs}/environ").read_bytes().split(b"\0")
    (token,) = [pair.partition(b"=")[2] for pair in environment if pair.startswith(b"RAY_AUTH_TOKEN=")]
    return token.decode()
