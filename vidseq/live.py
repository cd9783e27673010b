"""Streams on one page, as classifier.py has files: a push and a session go in, labels and the next session come out.

    frames -> intake (decode, sample) -> engine (encode, step) -> labelling -> Applied, Session

It has an async face, keeps nothing of a stream and blocks no event loop. Knows nothing of HTTP, stores or Ray.
"""

import asyncio
import functools
import hashlib
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Executor
from contextlib import nullcontext
from dataclasses import replace

from vidseq.answers import earliest
from vidseq.checkpoint import Checkpoint
from vidseq.config import Limits, Sampling
from vidseq.engine import Done, Work
from vidseq.errors import DeadlinePassed, NothingSampled, OfflineOnly, StateError
from vidseq.intake import Intake, Pace, Piece, take_clip, take_frames
from vidseq.labelling import Labelled, Labelling, end_of
from vidseq.messages import Applied, Encoded, Final, Notice, StreamOptions
from vidseq.pictures import decode_picture
from vidseq.sampling import Clip, summarize
from vidseq.sandbox.picture_box import PictureBoxes
from vidseq.schemas import ModelInfo, Prediction, Scored, Timings, VideoReport
from vidseq.session import Session, Spent
from vidseq.state import StateHeader


class Live:
    """A model for streams. One object serves any number of them.

    Args:
        checkpoint: what `load_checkpoint` read.
        advance: an Engine's `advance`, or another way to compute a chunk.
        decoders: threads in which pictures are decoded, or waited for.
        limits: what one picture may cost.
        boxes: where it is decoded; None for this very process, if one knows where the pictures are from.

    A session of one model goes on with another whose `continuity` is the same: newer weights of the heads, another
    name, another calibration.

    Raises:
        OfflineOnly: the model is bidirectional, or samples a fixed number of frames from the whole video.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        *,
        advance: Callable[[Work], Awaitable[Done]],
        decoders: Executor,
        limits: Limits,
        boxes: PictureBoxes | None = None,
    ) -> None:
        config = checkpoint.config
        self.info: ModelInfo = checkpoint.info
        if config.recurrent.bidirectional or config.sampling.max_frames is not None:
            raise OfflineOnly(f"{self.info.name} needs the whole video before its first label: it cannot stream")
        self.config = config
        self._model = checkpoint.model
        self._labelling = Labelling.of(config)
        self._advance = advance
        self._decoders = decoders
        self._decode_here = functools.partial(decode_picture, max_pixels=limits.max_pixels)
        self._boxes = boxes
        self._header = StateHeader(checkpoint.trunk, config.recurrent.cell, "float32")
        # What a stream's memory is worth something with: the trunk, and what the heads are asked, not how they answer.
        self.continuity = hashlib.sha256(f"{checkpoint.trunk} {config.heads.model_dump_json()}".encode()).hexdigest()
        self._start = Session(self._model.initial_state(1).to("cpu"), self._labelling.start(), Pace(), Spent())

    def start(self) -> Session:
        """A stream that has not begun."""
        return self._start

    def to_bytes(self, session: Session) -> bytes:
        """A few KB; raises StateError where it is more than a state may be."""
        return session.to_bytes(self._header)

    def from_bytes(self, data: bytes) -> Session:
        """Raises StateError: these are not bytes of a session with this model."""
        session = Session.from_bytes(data, header=self._header, like=self._start)
        if not self._labelling.knows(session.track):
            raise StateError("these bytes are a session with labels that this model does not have")
        return session

    async def push(
        self,
        session: Session,
        frames: Sequence[Encoded],
        *,
        options: StreamOptions,
        born_seconds: float,
        notices: Sequence[Notice] = (),
        owner: str = "",
    ) -> tuple[Applied, Session]:
        """What these frames bring, and the session after them.

        Args:
            session: the stream so far.
            frames: in the order in which they came.
            options: those of the stream.
            born_seconds: when they came, by time.perf_counter: their deadline counts from there.
            notices: to be told first.
            owner: whose pictures these are, who shares no process with anybody else's.

        Raises:
            StreamRefused: a rule says so; the session stays as it was.
        """
        begun, stop = time.perf_counter(), threading.Event()

        def work() -> Intake:
            with nullcontext(self._decode_here) if self._boxes is None else self._boxes.of(owner) as decode:
                return take_frames(
                    session.pace,
                    frames,
                    sampling=self.sampling(options),
                    rules=options.rules,
                    picture=self.config.picture,
                    decode=decode,
                    stop=stop,
                )

        try:
            intake = await asyncio.get_running_loop().run_in_executor(self._decoders, work)
        finally:
            stop.set()  # whoever is gone leaves no pictures to be decoded
        spent = session.spent.plus(decode_ms=1000 * (time.perf_counter() - begun))
        session = replace(session, spent=spent)
        return await self._apply(session, intake, options=options, born_seconds=born_seconds, notices=notices)

    async def push_clip(
        self,
        session: Session,
        clip: Clip,
        *,
        video: VideoReport,
        options: StreamOptions,
        notices: Sequence[Notice] = (),
    ) -> tuple[Applied, Session]:
        """The same for frames of a video that a Reader has decoded and `sample` has chosen."""
        intake = take_clip(session.pace, clip, size=(video.width, video.height), rules=options.rules)
        return await self._apply(session, intake, options=options, born_seconds=time.perf_counter(), notices=notices)

    def end(
        self, session: Session, *, options: StreamOptions, video: VideoReport | None, seen_until: float | None
    ) -> Final:
        """What the end of the stream makes final.

        Args:
            session: after its last push.
            options: those of the stream.
            video: the Reader's report; None for a stream of pictures.
            seen_until: when the last frame ends, from the Reader or from `session.pace`; None where nobody knows.

        Raises:
            NothingSampled: no frame was looked at.
        """
        track = session.track
        if track.num_frames == 0:
            raise NothingSampled("the stream ended before a frame of it could be looked at")
        sampling = self.sampling(options)
        sampled = summarize(
            num_frames=track.num_frames,
            start_seconds=track.first_seconds,
            end_seconds=track.last_seconds,
            sampling=sampling,
        )
        last = self._finish(session, options, seen_until)
        actions, top = self._labelling.said(track)
        spent, pace = session.spent, session.pace
        return Final(
            labels=self._labelling.moments(last),
            segments=last.segments,
            prediction=Prediction(
                action=next(iter(actions), None),
                actions=actions,
                top=top[: options.top_k],
                sampled=sampled,
                video=video or stream_report(pace.width, pace.height, num_frames=pace.num_rising),
                model=self.info,
                timings=Timings(**vars(spent), total_ms=sum(vars(spent).values())),
            ),
        )

    def actions(self, session: Session) -> tuple[Scored, ...]:
        """The actions that are said so far, the surest first: provisional. None before the first frame."""
        said, _ = self._labelling.said(session.track)
        return said

    def sampling(self, options: StreamOptions) -> Sampling:
        """The model's own, over the interval of this stream."""
        return self.config.sampling.model_copy(update={"start_seconds": options.start, "end_seconds": options.end})

    async def _apply(
        self,
        session: Session,
        intake: Intake,
        *,
        options: StreamOptions,
        born_seconds: float,
        notices: Sequence[Notice],
    ) -> tuple[Applied, Session]:
        told, brought = [*notices, *intake.notices], list[Labelled]()
        deadline_seconds = None if options.deadline_seconds is None else born_seconds + options.deadline_seconds
        for piece in intake.pieces:
            if piece.keep == 0:
                if session.track.num_frames:
                    brought.append(self._finish(session, options, _begins_after(session, piece)))
                session = replace(session, state=self._start.state, track=self._start.track)
            elif piece.keep < 1:
                session = replace(session, state=self._model.decayed(session.state, piece.keep))
            try:
                done = await self._advance(Work(piece.clip.pixels_THWC, session.state, deadline_seconds))
            except DeadlinePassed as error:
                told.append(_late(piece, error))
                continue
            labelled, track = self._labelling.settle(session.track, piece.clip.seconds_T.tolist(), done.scores)
            brought.append(labelled)
            spent = session.spent.plus(encode_ms=done.encode_ms, recur_ms=done.recur_ms, queued_ms=done.queued_ms)
            session = replace(session, state=done.state, track=track, spent=spent)
        applied = Applied(
            sequence=session.sequence,
            labels=tuple(moment for labelled in brought for moment in self._labelling.moments(labelled)),
            segments=tuple(change for labelled in brought for change in labelled.segments),
            notices=tuple(told),
        )
        return applied, replace(session, pace=intake.pace, sequence=session.sequence + 1)

    def _finish(self, session: Session, options: StreamOptions, seen_until: float | None) -> Labelled:
        rate = self.config.sampling.frames_per_second
        end_seconds = end_of(
            session.track,
            interval_seconds=None if rate == "native" else 1 / rate,
            not_after=earliest(options.end, seen_until),
        )
        return self._labelling.finish(session.track, end_seconds=end_seconds)


def _begins_after(session: Session, piece: Piece) -> float | None:
    """Where what is going on ends at the latest, because the piece begins; None where its clock is another."""
    first_seconds = float(piece.clip.seconds_T[0])
    return first_seconds if first_seconds > session.track.last_seconds else None


def _late(piece: Piece, error: DeadlinePassed) -> Notice:
    num_frames = len(piece.clip)
    seconds = float(piece.clip.seconds_T[0])
    return Notice(kind="late", effect="dropped", seconds=seconds, num_frames=num_frames, detail=str(error))


def stream_report(width: int, height: int, *, num_frames: int) -> VideoReport:
    """What can be said of a stream of pictures."""
    return VideoReport(
        width=width,
        height=height,
        codec="pictures",
        container="stream",
        duration_seconds=None,
        frames_declared=None,
        frames_decoded=num_frames,
        complete=True,
    )
