"""`Sandbox`: decoders in child processes of one small server, which is started when it is needed. Knows no videos.

    with Sandbox() as sandbox:
        print(sandbox.prove(limits).in_words())
        with Reader("clip.mp4", picture=picture, sandbox=sandbox) as reader: ...

Threads may share it. It belongs to one process: a fork of that process starts a server of its own.
"""

import os
import select
import socket
import subprocess
import sys
import threading
import weakref
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Self, TypeVar

from vidseq import memory
from vidseq.config import Limits, Picture
from vidseq.errors import SandboxError, VidseqError
from vidseq.sandbox import canary
from vidseq.sandbox.boxed import BoxedDecoder
from vidseq.sandbox.confine import ALL, Layer, in_words
from vidseq.sandbox.picture_box import BoxedPictures
from vidseq.sandbox.protocol import READY, Job

START_SECONDS = 60.0  # it imports OpenCV, on a disk that may be cold and a machine that may be busy
STOP_SECONDS = 5.0
_HAND_OVER_SECONDS = 10.0
_CANARY_PICTURE = Picture(size=16)
_ENVIRONMENT = {  # all of it
    "OPENBLAS_NUM_THREADS": "1",  # a process that forks has no others
    "OMP_NUM_THREADS": "1",
    "OPENCV_FFMPEG_LOGLEVEL": "16",  # errors
    **memory.ENVIRONMENT,
}

_Child = TypeVar("_Child", BoxedDecoder, BoxedPictures)


@dataclass(frozen=True)
class Confinement:
    """Under some limits: what the kernel granted, and why the canary clip could not be decoded (None: it could)."""

    layers: Layer
    failure: str | None

    @property
    def missing(self) -> Layer:
        return ALL & ~self.layers

    def in_words(self) -> str:
        """One line for a log."""
        if self.failure is not None:
            return f"videos cannot be decoded here: {self.failure}"
        confined = f"each video is decoded in a process of its own, confined by {in_words(self.layers)}"
        return f"{confined}; this kernel does not offer {in_words(self.missing)}" if self.missing else confined


class Sandbox:
    """Where clips are decoded. `required`: decode nothing unless the kernel grants every layer."""

    def __init__(self, *, required: bool = False) -> None:
        self._required = required
        self._lock = threading.Lock()
        self._server: _Server | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def server_pid(self) -> int | None:
        """Of the server that runs, if one does."""
        server = self._server
        return None if server is None else server.pid

    def decoder(self, fd: int, *, arriving: bool, picture: Picture, limits: Limits) -> BoxedDecoder:
        """Of the open file, see BoxedDecoder. Raises SandboxError and whatever that raises."""
        return self._checked(BoxedDecoder(fd, arriving=arriving, picture=picture, limits=limits, begin=self._begin))

    def pictures(self, limits: Limits) -> BoxedPictures:
        """A child for pictures that come one by one. Raises SandboxError and whatever BoxedPictures raises."""
        return self._checked(BoxedPictures(limits, begin=self._begin))

    def prove(self, limits: Limits) -> Confinement:
        """Decodes the canary clip under these very limits."""
        layers = Layer(0)
        try:
            with canary.CLIP.open("rb") as clip:
                decoder = BoxedDecoder(
                    clip.fileno(), arriving=False, picture=_CANARY_PICTURE, limits=limits, begin=self._begin
                )
            try:
                layers = decoder.layers
                pictures = []
                while grabbed := decoder.grab(_CANARY_PICTURE, None):
                    pictures.append((decoder.picture(_CANARY_PICTURE, None), grabbed[-1]))
            finally:
                decoder.close()
        except VidseqError as error:
            return Confinement(layers, str(error))
        wrong = canary.what_is_wrong(pictures)
        return Confinement(layers, wrong and f"of the canary clip, {wrong}")

    def close(self) -> None:
        """Ends the server and every decoder. It starts again where it is asked for one."""
        with self._lock:
            if self._server is not None:
                self._server.stop()
                self._server = None

    def _checked(self, child: _Child) -> _Child:
        missing = ALL & ~child.layers
        if self._required and missing:
            child.close()
            raise SandboxError(f"this kernel does not offer {in_words(missing)}, and the whole sandbox is required")
        return child

    def _begin(self, job: Job, fds: Sequence[int]) -> None:
        """To the server that runs; to a new one, once, if it turns out to be gone."""
        for attempt in range(2):
            server = self._running()
            try:
                socket.send_fds(server.control, [job.pack()], fds)
                return
            except OSError as error:
                self._give_up(server)
                if attempt:
                    raise SandboxError(f"the decoders' server cannot be reached: {error.strerror or error}") from None

    def _running(self) -> "_Server":
        with self._lock:
            if self._server is None or self._server.owner != os.getpid():
                self._server = _Server()
                weakref.finalize(self, self._server.stop)
            return self._server

    def _give_up(self, server: "_Server") -> None:
        with self._lock:
            if self._server is server:
                self._server = None
        server.stop()


class _Server:
    """A running fork server. Nothing of this process is its own but a socket: no environment, no other descriptor."""

    def __init__(self) -> None:
        """Raises SandboxError."""
        self.owner = os.getpid()
        self.control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs, open(os.memfd_create("vidseq-sandbox-words", os.MFD_CLOEXEC), "rb") as words:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-m", "vidseq.sandbox", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                env=_ENVIRONMENT,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=words,
                cwd="/",
                start_new_session=True,  # Ctrl-C in a terminal is for its caller, who ends it
            )
            theirs.close()
            self.control.settimeout(_HAND_OVER_SECONDS)
            if not self._is_ready():
                self.stop()
                words.seek(0)
                last = words.read().decode("utf-8", "replace").strip().rpartition("\n")[2]
                raise SandboxError(f"the decoders' server does not start: {last or 'it says nothing'}")

    @property
    def pid(self) -> int:
        return self._process.pid

    def stop(self) -> None:
        """It ends when nobody holds the other end of its socket, and its children with it."""
        if self.owner != os.getpid():  # a fork of its owner: not its parent
            self.control.close()
            return
        self.control.close()
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _is_ready(self) -> bool:
        answered = select.poll()
        answered.register(self.control, select.POLLIN)
        with suppress(ConnectionResetError):
            return bool(answered.poll(1000 * START_SECONDS)) and self.control.recv(len(READY)) == READY
        return False
