"""What the tests of the web and of the client share: a real server on a free port, and callables to put behind it."""

import atexit
import contextlib
import functools
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, BinaryIO

import uvicorn

from serving.chores import Chores
from serving.database.core import Database
from serving.finished import Observer
from serving.jobs.jobs import Jobs
from serving.keyring import KeyRing
from serving.once.kept import Kept, OnceSettings
from serving.once.once import Once
from serving.parts import Classify, ClassifyEach, Decode, Frames, PushObserver, Sessions, unobserved
from serving.rates import Rates
from serving.sealing import Vault, load_keys, new_key
from serving.service_routes import Parts
from serving.uploads.uploads import Uploads
from serving.usage.ledger import Ledger
from serving.web import create_app
from serving.web_settings import WebSettings
from vidseq.early import EarlyExit
from vidseq.schemas import (
    EarlyExited,
    FrameLabel,
    ModelInfo,
    Models,
    Prediction,
    Sampled,
    Scored,
    Segment,
    Timings,
    VideoReport,
)

MODEL = ModelInfo(name="toy", version="1", sha256="0" * 64, action_labels=("walk",), frame_labels=("step",))
TOY_MODELS = Models(models=(MODEL,))


def count_bytes(
    video: BinaryIO,
    *,
    start_seconds: float,
    end_seconds: float | None,
    top_k: int,
    model: str | None,
    early_exit: EarlyExit | None = None,
    stop: threading.Event,
) -> Prediction:
    """Reads the video to its end, in pieces; the answer tells how long it was and which options came."""
    num_bytes = sum(map(len, iter(lambda: video.read(64 * 1024), b"")))
    return predicted(
        num_bytes, start_seconds=start_seconds, end_seconds=end_seconds, top_k=top_k, model=model, early_exit=early_exit
    )


def predicted(
    num_bytes: int,
    *,
    start_seconds: float = 0.0,
    end_seconds: float | None = None,
    top_k: int = 5,
    model: str | None = None,
    early_exit: EarlyExit | None = None,
) -> Prediction:
    return Prediction(
        action=Scored(label=f"{num_bytes} bytes", score=1.0),
        top=(Scored(label="walk", score=0.5),) * top_k,
        frames=(FrameLabel(seconds=0.0, label="step", score=0.5),),
        segments=(Segment(start_seconds=0.0, end_seconds=1.0, label="step", score=0.5),),
        sampled=Sampled(
            num_frames=1, frames_per_second=8.0, start_seconds=start_seconds, end_seconds=end_seconds or 9.0
        ),
        video=VideoReport(
            width=4,
            height=4,
            codec="h264",
            container="mp4",
            duration_seconds=1.0,
            frames_declared=1,
            frames_decoded=1,
            complete=True,
        ),
        model=MODEL.model_copy(update={"name": model or MODEL.name}),
        timings=Timings(decode_ms=1.0, encode_ms=1.0, recur_ms=1.0, queued_ms=0.0, total_ms=3.0),
        early_exit=early_exit and EarlyExited(seconds=early_exit.hold_seconds, score=early_exit.score),
    )


def count_each(video: BinaryIO, *, models: Sequence[str], **options: Any) -> list[Prediction]:
    """What `count_bytes` says for each."""
    answers = []
    for name in models:
        answers.append(count_bytes(video, model=name, **options))
        video.seek(0)
    return answers


def raising(error: Exception) -> Classify:
    def classify(video: BinaryIO, **options: Any) -> Prediction:
        raise error

    return classify


class Held:
    """A callable that answers when `release` is set; `entered` and `stopped` tell what happened to it."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.release = threading.Event()
        self.stopped = threading.Event()

    def __call__(self, video: BinaryIO, *, stop: threading.Event, **options: Any) -> Prediction:
        self.entered.set()
        while not self.release.wait(0.01):
            if stop.is_set():
                self.stopped.set()
        return count_bytes(video, stop=stop, **options)


def undecoded(video: Any, **options: Any) -> Frames:
    """For an application without streams."""
    raise AssertionError("nothing here asks for a decoder")


@functools.cache
def kept_anywhere() -> Once:
    """For all tests that do not look at what is kept."""
    folder = tempfile.mkdtemp(prefix="vidseq-once-")
    atexit.register(shutil.rmtree, folder)
    return Once(Kept(Database(f"sqlite://{folder}/vidseq.db"), Vault(load_keys(new_key())), OnceSettings()))


def toy_app(
    classify: Classify = count_bytes,
    *,
    classify_each: ClassifyEach = count_each,
    models: Models = TOY_MODELS,
    ready: Callable[[], str | None] = lambda: None,
    sessions: Sessions | None = None,
    decode: Decode = undecoded,
    once: Once | None = None,
    uploads: Uploads | None = None,
    jobs: Jobs | None = None,
    ledger: Ledger | None = None,
    chores: Chores | None = None,
    keys: KeyRing | None = None,
    counted: Rates | None = None,
    observe: Observer | None = None,
    observe_push: PushObserver = unobserved,
    **settings: Any,
) -> Any:
    parts = Parts(
        classify=classify,
        models=lambda: models,
        decode=decode,
        classify_each=classify_each,
        sessions=sessions,
        once=once or kept_anywhere(),
        uploads=uploads,
        jobs=jobs,
        ledger=ledger,
        chores=chores,
        observe_push=observe_push,
    )
    return create_app(
        parts,
        ready=ready,
        metrics=lambda: b"videos_total 1\n",
        keys=keys,
        rates=counted,
        settings=WebSettings(**{"docs": True} | settings),
        observe=observe,
    )


@contextlib.contextmanager
def running(app: Any, *, http: str = "httptools", **options: Any) -> Iterator[str]:
    """The base URL of `app` on a real uvicorn, in a thread. `options` are those of uvicorn.Config."""
    config = uvicorn.Config(
        app, host="127.0.0.1", port=0, http=http, log_config=None, timeout_graceful_shutdown=2, **options
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        wait_until(lambda: server.started)
        port = server.servers[0].sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(20)
    assert not thread.is_alive()


def wait_until(holds: Callable[[], bool], *, seconds: float = 10.0) -> None:
    """Returns when `holds()`; a test that waits for ever fails instead."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.005)
