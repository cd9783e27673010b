"""The answers: one Prediction for core, HTTP, SDK, batch rows and `--json`. Knows nothing of how they are made.

Unknown fields are ignored on reading, so that a newer service can serve an older client.
"""

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

ALL_MODELS = "all"  # in place of a model's name: each that is loaded


class Answer(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class Scored(Answer):
    """A label and its probability, 0 to 1."""

    label: str
    score: float


class FrameLabel(Answer):
    """The label of one sampled frame; `seconds` is the frame's own timestamp in the video."""

    seconds: float
    label: str
    score: float


class Segment(Answer):
    """A stretch of one label: [start_seconds, end_seconds); `score` is its mean frame score."""

    start_seconds: float
    end_seconds: float
    label: str
    score: float


class Sampled(Answer):
    """What was looked at: how many frames, from when to when (their own timestamps), at which rate.

    `frames_per_second` is None where every frame was taken.
    """

    num_frames: int
    frames_per_second: float | None
    start_seconds: float
    end_seconds: float


class EarlyExited(Answer):
    """Looking ended at `seconds`, the last frame of the answer, because the action's score was sure enough by then."""

    seconds: float
    score: float


class VideoReport(Answer):
    """What was found in the file. Declared values are header fields and may lie.

    `complete` is False when less than 95 % of the declared time could be decoded. Where looking was to end earlier (at
    a given time, or by early exit), it is True. Where it is False, there was still enough for a label: a file of which
    less than `min_share_seen` (see vidseq.config.Limits) could be decoded gets an error and no Prediction.
    """

    width: int
    height: int
    codec: str
    container: str
    duration_seconds: float | None
    frames_declared: int | None
    frames_decoded: int
    complete: bool
    warnings: tuple[str, ...] = ()


class ModelInfo(Answer):
    """Which model answered: `sha256` is the hash of its manifest; `several` of its actions may be true of one clip."""

    name: str
    version: str
    sha256: str
    action_labels: tuple[str, ...] = ()
    several: bool = False
    frame_labels: tuple[str, ...] = ()


class Timings(Answer):
    """Milliseconds of wall time; `queued_ms` is spent waiting for a place in a batch."""

    decode_ms: float
    encode_ms: float
    recur_ms: float
    queued_ms: float
    total_ms: float


class Prediction(Answer):
    """Everything vidseq says of one video. `early_exit` is None unless it was asked for and came before the end.

    `actions` are those that are said, the surest first: each whose score reaches its threshold where a model says
    several, else at most one. `action` is the first of them. Where there is none, the action is unknown (or none of the
    model's is true), and `top` still ranks the candidates; a model without actions leaves all three empty.
    """

    action: Scored | None
    actions: tuple[Scored, ...] = ()
    top: tuple[Scored, ...] = ()
    frames: tuple[FrameLabel, ...] = ()
    segments: tuple[Segment, ...] = ()
    sampled: Sampled
    video: VideoReport
    model: ModelInfo
    timings: Timings
    early_exit: EarlyExited | None = None


class Predictions(Answer):
    """What several models say of one video, in the order in which they were asked for.

    All of them looked at the same frames: each `timings` tells the decoding and encoding that they shared.
    """

    predictions: tuple[Prediction, ...]


class Moment(Answer):
    """What is said of one sampled frame, as soon as its label is final. `action` is the action so far: provisional.

    `actions` are all of them where a model says several, and are left out where it says one.
    """

    seconds: float
    frame: Scored | None
    action: Scored | None
    actions: tuple[Scored, ...] = Field(default=(), exclude_if=lambda actions: not actions)


class Models(Answer):
    """The answer of GET /v1/models."""

    models: tuple[ModelInfo, ...]


class UsageDay(Answer):
    """What one key has used on one day (UTC). `key` is its id, "" where a service asks for none.

    `failed` are those of the requests that were refused or broke; a stream is one request, each push over HTTP is one.
    `compute_seconds` are those of decoding, of the CNN and of the recurrence, of each batch the share of its frames.
    """

    day: str
    key: str
    requests: int
    failed: int
    received_bytes: int
    frames_decoded: int
    frames_labelled: int
    compute_seconds: float


class UsagePage(Answer):
    """Days of keys, in order; `next` is what to ask for `after` this page, None on the last."""

    days: tuple[UsageDay, ...]
    next: str | None = None


class Upload(Answer):
    """A file that comes in pieces: `offset` of its `num_bytes` bytes are here.

    It can be used once it is `complete`; `sha256` (64 hexadecimal digits) is what was declared before, and was found
    then. At `expires_at` it is deleted, unless bytes have come since, or somebody needs it for longer.
    """

    id: str
    num_bytes: int
    offset: int
    complete: bool
    expires_at: AwareDatetime
    sha256: str | None = None


class Forgotten(Answer):
    """How much of an owner's was deleted: live sessions, answers that were kept to be given again, uploads
    and jobs.
    """

    sessions: int
    answers: int
    uploads: int = 0
    jobs: int = 0


class Problem(Answer):
    """An error over HTTP, application/problem+json (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: str
    request_id: str
    retryable: bool
    expected_sequence: int | None = None
