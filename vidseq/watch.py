"""A camera, an RTSP stream or a file labelled as it plays, for a person who looks on. Knows nothing of services.

    reader thread: pictures  --the newest-->  event loop: sample -> Live  -->  a line that changes, JSON, a picture

A camera does not wait: of pictures that come faster than they are labelled the newest is kept, and the others are
counted. A file waits.
"""

import asyncio
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Self

import numpy as np
from rich.console import Console
from rich.live import Live as Display
from rich.markup import escape

from vidseq.camera import Camera, CameraFrame
from vidseq.checkpoint import load_checkpoint
from vidseq.config import Limits
from vidseq.drawing import Annotated
from vidseq.engine import Engine
from vidseq.labelling import closed
from vidseq.live import Live, stream_report
from vidseq.messages import Applied, Final, Notice, StreamOptions
from vidseq.sampling import Clip, advance
from vidseq.schemas import ModelInfo, Moment
from vidseq.timeline import in_words

OPTIONS = StreamOptions()


def watch(
    model: Path,
    source: str,
    *,
    device: str,
    json: bool,
    annotate: Path | None,
    window: bool,
    console: Console,
    trusted_keys: Sequence[Path] | None = None,
) -> None:
    """Until the source ends, the window is closed, or Ctrl-C: labels on `console`, one message a line with `json`.

    Raises:
        CheckpointError, OfflineOnly: not a model, or not one signed by one of `trusted_keys`; or it cannot stream.
        SourceNotFound, SourceLost, OptionError, VideoError: as vidseq.camera.
    """
    checkpoint = load_checkpoint(model, trusted_keys=trusted_keys)
    with ExitStack() as stack:
        camera = stack.enter_context(Camera(source, picture=checkpoint.config.picture))
        places = ([] if annotate is None else [annotate]) + ([None] if window else [])
        rate = camera.frames_per_second
        drawn = [stack.enter_context(Annotated(place, frames_per_second=rate)) for place in places]
        engine = stack.enter_context(Engine(checkpoint.model.to(device)))
        decoders = stack.enter_context(ThreadPoolExecutor(1))
        live = Live(checkpoint, advance=engine.advance, decoders=decoders, limits=Limits())
        tell = _Json(console).tell if json else stack.enter_context(_Line(console, checkpoint.info)).tell
        asyncio.run(_follow(live, camera, tell, drawn))


async def _follow(
    live: Live, camera: Camera, tell: Callable[[Applied | Final], None], drawn: Sequence[Annotated]
) -> None:
    """Labels each sampled picture and draws every one."""
    session, sampling = live.start(), live.sampling(OPTIONS)
    report, clock, num_frames, num_missed, words = None, None, 0, 0, list[str]()
    try:
        # Ctrl-C cancels the task: it is how one stops to look on.
        with suppress(asyncio.CancelledError), _Newest(camera.frames(), waits=camera.file is not None) as newest:
            while (taken := await asyncio.to_thread(newest.take)) is not None:
                frame, missed = taken
                num_frames, num_missed = num_frames + 1, num_missed + missed
                report = stream_report(*frame.pixels_HWC.shape[1::-1], num_frames=num_frames)
                sampled, clock = advance(clock, frame.seconds, sampling)
                if sampled:
                    clip = Clip(frame.fitted.pixels_HWC[None], np.array([frame.seconds]), clock=clock)
                    notices, num_missed = _missed(frame, num_missed), 0
                    applied, session = await live.push_clip(
                        session, clip, video=report, options=OPTIONS, notices=notices
                    )
                    words = _words(applied.labels[-1], live.info) if applied.labels else words
                    tell(applied)
                going_on = [annotated.draw(frame.pixels_HWC, words) for annotated in drawn]
                if not all(going_on):
                    break
    finally:  # what was seen has an end all the same, also when a camera is lost
        if session.track.num_frames:
            file = camera.file
            video, seen_until = (report, None) if file is None else (file.report(), file.seen_until)
            final = live.end(session, options=OPTIONS, video=video, seen_until=seen_until)
            tell(final.model_copy(update={"notices": _missed(frame, num_missed)}))


class _Newest:
    """A thread that reads, and the one place where it leaves what it has read; use it as a context manager."""

    def __init__(self, frames: Iterator[CameraFrame], *, waits: bool) -> None:
        self._frames = frames
        self._waits = waits
        self._changed = threading.Condition()
        self._place: CameraFrame | None = None
        self._num_missed = 0
        self._error: Exception | None = None
        self._ended = False
        self._thread = threading.Thread(target=self._read, name="vidseq-camera", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._ended = True
            self._changed.notify_all()
        self._thread.join()

    def take(self) -> tuple[CameraFrame, int] | None:
        """The newest picture, and how many were left out before it; None when there are no more. Waits for it.

        Raises what the camera raised.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._place is not None or self._ended)
            frame, num_missed = self._place, self._num_missed
            self._place, self._num_missed = None, 0
            self._changed.notify_all()
            if frame is None:
                if self._error is not None:
                    raise self._error
                return None
            return frame, num_missed

    def _read(self) -> None:
        try:
            for frame in self._frames:
                with self._changed:
                    if self._waits:
                        self._changed.wait_for(lambda: self._place is None or self._ended)
                    self._num_missed += self._place is not None
                    self._place = frame
                    self._changed.notify_all()
                    if self._ended:
                        return
        except Exception as error:  # it is the caller's, and is raised where it waits
            self._error = error
        finally:
            with self._changed:
                self._ended = True
                self._changed.notify_all()


def _missed(frame: CameraFrame, num_frames: int) -> tuple[Notice, ...]:
    if num_frames == 0:
        return ()
    detail = f"{num_frames} pictures came faster than they could be labelled"
    return (Notice(kind="dropped", effect="dropped", seconds=frame.seconds, num_frames=num_frames, detail=detail),)


class _Json:
    """Each message as a line of JSON."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def tell(self, message: Applied | Final) -> None:
        self._console.file.write(message.model_dump_json() + "\n")
        self._console.file.flush()


class _Line:
    """What is said now, as a line that changes; above it the segments that have closed, and notices."""

    def __init__(self, console: Console, info: ModelInfo) -> None:
        self._console = console
        self._info = info
        self._display = Display(console=console, transient=True)
        self._num_dropped = 0

    def __enter__(self) -> Self:
        self._display.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._display.stop()

    def tell(self, message: Applied | Final) -> None:
        for notice in message.notices:
            if notice.effect == "dropped":  # counted: a camera drops some all the time
                self._num_dropped += notice.num_frames
            else:
                self._console.print(f"[yellow]{notice.kind}[/yellow] {escape(notice.detail)}")
        for segment in closed(message.segments):
            times = f"{segment.start_seconds:8.2f} to {segment.end_seconds:8.2f} s"
            self._console.print(f"{times}  {escape(segment.label)} {segment.score:.2f}")
        if isinstance(message, Final):
            if self._info.action_labels:
                said = in_words(message.prediction.actions, several=self._info.several)
                self._console.print(f"{_actions(self._info)}  {escape(said)}")
        elif message.labels:
            dropped = [f"{self._num_dropped:,} dropped"] if self._num_dropped else []
            self._display.update(escape("   ".join([*_words(message.labels[-1], self._info), *dropped])))


def _words(moment: Moment, info: ModelInfo) -> list[str]:
    """The time, the frame's label, and the action so far."""
    words = [f"{moment.seconds:8.2f} s"]
    if moment.frame is not None:
        words.append(f"{moment.frame.label} {moment.frame.score:.2f}")
    if info.action_labels:
        actions = moment.actions or (() if moment.action is None else (moment.action,))
        words.append(f"{_actions(info)} {in_words(actions, several=info.several)}")
    return words


def _actions(info: ModelInfo) -> str:
    return "actions" if info.several else "action"
