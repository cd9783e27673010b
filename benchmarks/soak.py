"""Good and hostile traffic mixed for half an hour: what grows, and what is left of it.

    python -m benchmarks.soak [--minutes 30] [--warm-up 5]

A real `vidseq serve` with keys and two replicas. Good clients send clips through the SDK and stream pictures; hostile
ones, with a good key of their own, send broken videos and playlists, stop in the middle of an upload, show keys that
are none, leave streams without a word (a key may have a thousand), and say nonsense on them. All pause between two
requests, so that the service is busy and not full. What belongs to the service is counted every ten seconds: memory
(proportional set sizes, so shared memory too, once), descriptors, processes, and files in its scratch folder and in
/dev/shm. The start line is drawn after the warm-up, the end after everybody has gone; the slope is a straight line
through the readings between, which were taken under load.
"""

import argparse
import contextlib
import functools
import os
import random
import socket
import statistics
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import httpx2
import numpy as np
from websockets.exceptions import ConnectionClosed, WebSocketException
from websockets.sync.client import connect as connect_socket

from benchmarks.memory import save_model
from benchmarks.over_http import resident_bytes
from serving.keys import create_key
from tests.running import Service, running_service
from tests.toy_videos import write_clip
from vidseq.client import Client
from vidseq.errors import VidseqError
from vidseq.schemas import Prediction

READING_SECONDS = 10.0
QUIET_SECONDS = 30.0  # for what nobody waits for any more to end
PLAYLISTS = {
    "hls": b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n",
    "concat": b"ffconcat version 1.0\nfile /etc/passwd\n",
    "sdp": b"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n",
}


@dataclass(frozen=True)
class Reading:
    """What the service has at a moment."""

    seconds: float
    megabytes: float
    descriptors: int
    processes: int
    files: int


@dataclass
class Traffic:
    """Whom the clients ask, and what became of it. `answers` counts (client, outcome)."""

    service: Service
    key: str
    hostile_key: str
    clips: Sequence[bytes]
    stop: threading.Event = field(default_factory=threading.Event)
    answers: Counter[tuple[str, str]] = field(default_factory=Counter)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def keep(self, name: str, ask: "Ask", seed: int, pause_seconds: float) -> None:
        """One client, until told to stop."""
        chance = random.Random(seed)
        while not self.stop.wait(chance.uniform(0.5, 1.5) * pause_seconds):
            try:
                outcome = ask(self, chance)
            except (OSError, EOFError, httpx2.HTTPError, VidseqError, WebSocketException) as error:
                outcome = f"FAILED {type(error).__name__}: {error}"
            with self.lock:
                self.answers[name, outcome] += 1

    @property
    def address(self) -> tuple[str, int]:
        return ("127.0.0.1", self.service.port)

    def head(self, *, key: str | None = None, length: int = 1_000_000) -> bytes:
        lines = ["POST /v1/classify HTTP/1.1", "Host: x", "Content-Type: video/mp4", f"Content-Length: {length}"]
        return "\r\n".join([*lines, f"Authorization: Bearer {key or self.hostile_key}", "", ""]).encode()


Ask = Callable[[Traffic, random.Random], str]


# Good clients ------------------------------------------------------------------------------------


def label(traffic: Traffic, chance: random.Random) -> str:
    """A clip, and the answer that it always gets."""
    clip = chance.choice(traffic.clips)
    with Client(traffic.service.url, api_key=traffic.key) as client:
        prediction = client.classify(clip)
    return "right" if _told(prediction) == expected(traffic, clip) else "WRONG"


@functools.cache
def _first_told() -> dict[bytes, object]:
    return {}


def expected(traffic: Traffic, clip: bytes) -> object:
    """What the service said of it when nobody else was there."""
    if clip not in (told := _first_told()):
        with Client(traffic.service.url, api_key=traffic.key) as client:
            told[clip] = _told(client.classify(clip))
    return told[clip]


def _told(prediction: Prediction) -> object:
    return [(frame.seconds, frame.label, round(frame.score, 3)) for frame in prediction.frames]


def stream(traffic: Traffic, chance: random.Random) -> str:
    """A stream of forty pictures, pushed four at a time, to its end."""
    pictures = np.random.default_rng(chance.getrandbits(32)).integers(0, 256, (40, 32, 32, 3), dtype=np.uint8)
    with Client(traffic.service.url, api_key=traffic.key) as client, client.stream() as session:
        for start in range(0, len(pictures), 4):
            numbers = range(start, start + 4)
            session.push_many([(number / 8, pictures[number]) for number in numbers])
        prediction = session.end()
    return "right" if prediction.sampled.num_frames == len(pictures) else "WRONG"


# Hostile clients ---------------------------------------------------------------------------------


def broken(traffic: Traffic, chance: random.Random) -> str:
    """A clip with bytes changed, or cut; a playlist; noise."""
    clip = bytearray(chance.choice(traffic.clips))
    match chance.randrange(4):
        case 0:
            for _ in range(chance.randrange(1, 200)):
                clip[chance.randrange(len(clip))] = chance.randrange(256)
        case 1:
            del clip[chance.randrange(len(clip)) :]
        case 2:
            clip = bytearray(chance.choice(list(PLAYLISTS.values())))
        case _:
            clip = bytearray(chance.randbytes(chance.randrange(1, 100_000)))
    headers = {"Content-Type": "video/mp4", "Authorization": f"Bearer {traffic.hostile_key}"}
    answer = httpx2.post(f"{traffic.service.url}/v1/classify", content=bytes(clip), headers=headers, timeout=90)
    return f"{answer.status_code}"


def half_open(traffic: Traffic, chance: random.Random) -> str:
    """Headers, some of the body, and then nothing for a while."""
    with socket.create_connection(traffic.address) as connection:
        connection.sendall(traffic.head() + chance.randbytes(chance.randrange(200_000)))
        traffic.stop.wait(chance.uniform(0, 20))
    return "left"


def too_much(traffic: Traffic, chance: random.Random) -> str:
    """A declared length over all limits."""
    return _status(traffic, traffic.head(length=2**40))


def keyless(traffic: Traffic, chance: random.Random) -> str:
    """A key that is none, and a body after it all the same."""
    return _status(traffic, traffic.head(key=f"vsk_{chance.getrandbits(48):012x}_{'A' * 43}") + b"x" * 500_000)


def _status(traffic: Traffic, request: bytes) -> str:
    with socket.create_connection(traffic.address, timeout=60) as connection:
        with contextlib.suppress(OSError):  # it may have hung up: what it said is still to be read
            connection.sendall(request)
        words = connection.recv(100).split()
    return words[1].decode() if len(words) > 1 else "hung up"


def babble(traffic: Traffic, chance: random.Random) -> str:
    """Nonsense on a stream; or a stream that is left without a word."""
    url = f"ws://127.0.0.1:{traffic.service.port}/v1/streams"
    with connect_socket(url, additional_headers={"Authorization": f"Bearer {traffic.hostile_key}"}) as connection:
        said = chance.choice(['{"type": "open"}', "nonsense", '{"type": "open", "input": "video"}', "[" * 10_000])
        connection.send(said)
        if chance.random() < 0.5:
            connection.socket.shutdown(socket.SHUT_RDWR)
            return "left"
        try:
            connection.send(chance.randbytes(chance.randrange(1, 50_000)))
            connection.recv(timeout=30)
        except ConnectionClosed as closed:
            return f"{closed.rcvd.code if closed.rcvd else 'hung up'}"
    return "answered"


CLIENTS: dict[str, tuple[Ask, int, float]] = {  # how many, and their pauses in seconds
    "label": (label, 2, 0.5),
    "stream": (stream, 1, 1.0),
    "broken": (broken, 2, 0.5),
    "half open": (half_open, 8, 0.5),
    "too much": (too_much, 1, 0.5),
    "no key": (keyless, 1, 0.5),
    "babble": (babble, 2, 0.5),
}


# What is counted ---------------------------------------------------------------------------------


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30.0, help="under load, after the warm-up")
    parser.add_argument("--warm-up", type=float, default=5.0, help="minutes under load before the start line")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        save_model(folder / "model", size=32)
        keys = [
            create_key(folder / "keys.db", name=name, scopes=["classify", "stream"], lifetime_seconds=None)
            for name in ("good", "hostile")
        ]
        clips = [write_clip(folder / f"{n}.mp4", num_frames=20 + 10 * n).read_bytes() for n in range(4)]
        with running_service(folder / "model", "--keys", str(folder / "keys.db"), "--replicas", "2") as service:
            soak(Traffic(service, *keys, clips), minutes=options.minutes, warm_up_minutes=options.warm_up)


def soak(traffic: Traffic, *, minutes: float, warm_up_minutes: float) -> None:
    for clip in traffic.clips:
        expected(traffic, clip)
    with_load(traffic, minutes=warm_up_minutes)
    start = quiet(traffic.service)
    traffic.answers.clear()
    readings = with_load(traffic, minutes=minutes)
    end = quiet(traffic.service)
    print_answers(traffic)
    print_growth(start, readings, end)


def with_load(traffic: Traffic, *, minutes: float) -> list[Reading]:
    """Every client at work for so long, and what was read meanwhile."""
    traffic.stop.clear()
    threads = [
        threading.Thread(
            target=traffic.keep, args=(name, ask), kwargs={"seed": 100 * kind + number, "pause_seconds": pause}
        )
        for kind, (name, (ask, count, pause)) in enumerate(CLIENTS.items())
        for number in range(count)
    ]
    for thread in threads:
        thread.start()
    readings = []
    until = time.monotonic() + 60 * minutes
    try:
        while time.monotonic() < until:
            time.sleep(min(READING_SECONDS, max(0.0, until - time.monotonic())))
            readings.append(read(traffic.service))
    finally:
        traffic.stop.set()
    for thread in threads:
        thread.join()
    return readings


def quiet(service: Service) -> Reading:
    """The median of what is read once everybody has gone."""
    time.sleep(QUIET_SECONDS)
    readings = []
    for _ in range(5):
        readings.append(read(service))
        time.sleep(1)
    return Reading(
        readings[0].seconds,
        statistics.median(reading.megabytes for reading in readings),
        int(statistics.median(reading.descriptors for reading in readings)),
        int(statistics.median(reading.processes for reading in readings)),
        int(statistics.median(reading.files for reading in readings)),
    )


def read(service: Service) -> Reading:
    while True:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # a decoder has ended meanwhile: once more
            tree = service.tree()
            descriptors = sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in tree)
            files = sum(1 for folder in (service.scratch, Path("/dev/shm")) for _ in folder.rglob("*"))
            return Reading(time.monotonic(), resident_bytes(service) / 2**20, descriptors, len(tree), files)


def print_answers(traffic: Traffic) -> None:
    print("| client | outcomes |\n|---|---|")
    for name in CLIENTS:
        outcomes = sorted((outcome, count) for (client, outcome), count in traffic.answers.items() if client == name)
        print(f"| {name} | {', '.join(f'{outcome}: {count:,}' for outcome, count in outcomes)} |")


def print_growth(start: Reading, readings: Sequence[Reading], end: Reading) -> None:
    seconds = [reading.seconds for reading in readings]
    print("\n| | start line | under load, most | end | slope an hour under load |\n|---|---|---|---|---|")
    for name in ("megabytes", "descriptors", "processes", "files"):
        values = [getattr(reading, name) for reading in readings]
        slope = 3600 * statistics.linear_regression(seconds, values).slope
        first, last = getattr(start, name), getattr(end, name)
        print(f"| {name} | {first:,.0f} | {max(values):,.0f} | {last:,.0f} | {slope:+,.1f} |")


if __name__ == "__main__":
    main()
