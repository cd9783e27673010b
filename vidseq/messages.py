"""What a client and a service say to each other while a video still comes. Knows nothing of sockets or models.

    client     Open     push     push   ...   End        a push is a chunk of frames, or some bytes of a video
    service    Ready    Applied  Applied ...  Final      or Failed, at any time; then nothing follows

One Applied answers each push of frames, in order; others may stand between them. docs/streaming.md draws it.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, Self

from pydantic import Field, TypeAdapter, ValidationError, model_validator

from vidseq.config import MAX_SECONDS, Config, PositiveInt, PositiveSeconds, Seconds, StreamRules, first_mistake
from vidseq.errors import OptionError
from vidseq.schemas import Answer, ModelInfo, Moment, Prediction, Problem, Scored, Segment

FRAMES_TYPE = "application/vnd.vidseq.frames"  # of a body of frames, packed as below
SUBPROTOCOL = "vidseq.v1"  # of a WebSocket that speaks these messages; a client need not offer it
MAX_HEADER_BYTES = 512
MAX_PUSH_FRAMES = 256

Effect = Literal["carry_on", "decay", "reset", "dropped", "waiting"]


class Notice(Answer):
    """Something happened to the stream that its labels alone do not show. `detail` is a sentence for a person.

    `kind` is gap, backward, size, rate (see StreamRules), undecodable (a picture that is none), late (waited beyond the
    deadline), dropped (the client was faster than the service), index-at-end (labels follow when all bytes are here).
    """

    kind: Literal["gap", "backward", "size", "rate", "undecodable", "late", "dropped", "index-at-end"]
    effect: Effect
    seconds: float | None
    num_frames: int
    detail: str


class SegmentChange(Answer):
    """A segment as it opens and closes. While it is open it is provisional: `segment` is what it is so far."""

    change: Literal["opened", "closed"]
    segment: Segment


class Applied(Answer):
    """What one push has brought. `sequence` is its number; `resume_token` holds the stream's memory after it."""

    type: Literal["applied"] = "applied"
    sequence: int
    labels: tuple[Moment, ...] = ()
    segments: tuple[SegmentChange, ...] = ()
    notices: tuple[Notice, ...] = ()
    resume_token: str | None = None


class Ready(Answer):
    """The stream is open. `next_sequence` is the number of the push expected, `last_seconds` the last time seen.

    `window_pushes` is how many pushes may be on their way before one of them is answered, and `window_bytes` how many
    bytes they may hold together; of a video, how many bytes may be sent beyond those that Received tells of.
    """

    type: Literal["ready"] = "ready"
    session: str | None
    model: ModelInfo
    next_sequence: int
    last_seconds: float | None
    frames_per_second: float | None
    lookahead_seconds: float
    window_pushes: int
    window_bytes: int
    max_push_bytes: int
    resume_token: str | None = None


class Received(Answer):
    """So many bytes of the video, counted from its start on this connection, have gone on to the decoder."""

    type: Literal["received"] = "received"
    num_bytes: int


class Noticed(Answer):
    """What is to be told between pushes."""

    type: Literal["noticed"] = "noticed"
    notices: tuple[Notice, ...]


class Final(Answer):
    """The end: labels and segments that were still waiting, and the Prediction.

    Its `frames` and `segments` are empty: they have been told one by one.
    """

    type: Literal["final"] = "final"
    labels: tuple[Moment, ...] = ()
    segments: tuple[SegmentChange, ...] = ()
    notices: tuple[Notice, ...] = ()
    prediction: Prediction


class Failed(Answer):
    """The stream cannot go on; a session that was kept can be resumed unless the problem says otherwise."""

    type: Literal["failed"] = "failed"
    problem: Problem


class Standing(Answer):
    """Where a session stands. `action` and `actions` are those so far, as in a Prediction."""

    session: str
    model: ModelInfo
    next_sequence: int
    last_seconds: float | None
    num_frames: int
    action: Scored | None
    actions: tuple[Scored, ...] = ()
    ended: bool
    created_seconds: float
    expires_seconds: float


class Resume(Config):
    """Go on with a session, or with a token. `received` is the number of the first push whose answer is missing."""

    session: Annotated[str, Field(max_length=64)] | None = None
    token: Annotated[str, Field(max_length=256 * 1024)] | None = None
    received: Annotated[int, Field(ge=0)] = 0

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.session is None) == (self.token is None):
            raise ValueError("name a session or a token, and not both")
        return self


class StreamOptions(Config):
    """How a stream is read; it stays so for its whole life.

    `when_full` says what happens when frames come faster than they can be labelled: block (the client waits),
    drop_oldest, or thin (every second frame that waits). `deadline_seconds` drops frames that waited longer. `start`
    and `end` bound what is looked at, in the stream's own seconds.
    """

    rules: StreamRules = StreamRules()
    when_full: Literal["block", "drop_oldest", "thin"] = "block"
    deadline_seconds: PositiveSeconds | None = None
    top_k: Annotated[int, Field(ge=1, le=100)] = 5
    start: Seconds = 0.0
    end: Seconds | None = None

    @model_validator(mode="after")
    def _interval(self) -> Self:
        if self.end is not None and self.end <= self.start:
            raise ValueError(f"end {self.end} is not after start {self.start}")
        return self


class Open(Config):
    """The first message. `keep` says who holds the stream's memory: the service under a session's name, or the client.

    With `keep` client each Applied carries a `resume_token`, and the service remembers nothing.
    """

    type: Literal["open"] = "open"
    input: Literal["frames", "video"] = "frames"
    model: Annotated[str, Field(max_length=200)] | None = None
    keep: Literal["service", "client"] = "service"
    options: StreamOptions = StreamOptions()
    resume: Resume | None = None


class End(Config):
    """No more will come: answer with Final. A connection closed without it leaves its session to be resumed."""

    type: Literal["end"] = "end"


ServiceMessage = Ready | Applied | Noticed | Received | Final | Failed
_FROM_SERVICE: TypeAdapter[ServiceMessage] = TypeAdapter(Annotated[ServiceMessage, Field(discriminator="type")])
_FROM_CLIENT: TypeAdapter[Open | End] = TypeAdapter(Annotated[Open | End, Field(discriminator="type")])


def read_service_message(text: str | bytes) -> ServiceMessage:
    """Raises pydantic's ValidationError: it is not a message of this protocol."""
    return _FROM_SERVICE.validate_json(text)


def read_client_message(text: str | bytes) -> Open | End:
    """Raises OptionError."""
    try:
        return _FROM_CLIENT.validate_json(text)
    except ValidationError as error:
        raise OptionError("the message is wrong: " + ": ".join(filter(None, first_mistake(error)))) from None


class FrameHeader(Config):
    """What stands before the bytes of one picture. `width` and `height` are needed for rgb alone, top row first."""

    seconds: Annotated[float, Field(ge=-MAX_SECONDS, le=MAX_SECONDS, allow_inf_nan=False)]
    format: Literal["jpeg", "png", "webp", "rgb"]
    bytes: PositiveInt
    width: PositiveInt | None = None
    height: PositiveInt | None = None

    @model_validator(mode="after")
    def _raw(self) -> Self:
        if self.format == "rgb" and (self.width is None or self.height is None):
            raise ValueError("raw rgb needs width and height")
        if self.format == "rgb" and self.width is not None and self.width * (self.height or 0) * 3 != self.bytes:
            raise ValueError(f"{self.width} x {self.height} pixels of rgb are not {self.bytes} bytes")
        return self


@dataclass(frozen=True, eq=False)
class Encoded:
    """One picture on its way, and when it was taken, in seconds of the stream's own time."""

    header: FrameHeader
    data: bytes | memoryview

    @property
    def seconds(self) -> float:
        return self.header.seconds


def pack_frames(frames: Iterable[Encoded]) -> bytes:
    """One push: of each frame its header as a line of JSON, then its bytes."""
    parts: list[bytes | memoryview] = []
    for frame in frames:
        parts += [frame.header.model_dump_json(exclude_none=True).encode(), b"\n", frame.data]
    return b"".join(parts)


def unpack_frames(push: bytes) -> Sequence[Encoded]:
    """The frames of one push, at least one.

    Raises:
        OptionError: it is not one, or holds more than MAX_PUSH_FRAMES.
    """
    view, frames, start = memoryview(push), list[Encoded](), 0
    while start < len(push):
        end = push.find(b"\n", start, start + MAX_HEADER_BYTES)
        if end < 0:
            raise OptionError(f"frame {len(frames)}: no header line of at most {MAX_HEADER_BYTES} bytes")
        header = _read_header(push[start:end], len(frames))
        start = end + 1 + header.bytes
        if start > len(push):
            raise OptionError(
                f"frame {len(frames)}: {header.bytes:,} bytes were announced, {start - len(push):,} are missing"
            )
        frames.append(Encoded(header, view[end + 1 : start]))
        if len(frames) > MAX_PUSH_FRAMES:
            raise OptionError(f"more than {MAX_PUSH_FRAMES} frames in one push")
    if not frames:
        raise OptionError("a push holds at least one frame")
    return frames


def _read_header(line: bytes, index: int) -> FrameHeader:
    try:
        return FrameHeader.model_validate_json(line)
    except ValidationError as error:
        mistake = ": ".join(filter(None, first_mistake(error)))
        raise OptionError(f"frame {index}: its header line is wrong: {mistake}") from None
