"""Every error a caller can cause or meet, as one tree. Knows nothing of HTTP, torch or video.

    VidseqError
    ├── InputError                     what was asked for cannot be done; asking again will not help
    │   ├── OptionError                a setting is out of its range
    │   ├── SourceNotFound             no such file
    │   ├── SourceLost                 a camera that was there is gone
    │   ├── ModelNotFound              no model of that name here
    │   ├── VideoError                 the bytes are not a video that can be labelled
    │   │   ├── EmptyVideo             zero bytes
    │   │   ├── UnsupportedContainer   not MP4/MOV, Matroska/WebM, AVI or MPEG-TS
    │   │   ├── UnsupportedCodec       the container is fine, what is inside is not allowed
    │   │   ├── NoVideoStream          audio only, or nothing
    │   │   ├── UndecodableVideo       opens, but gives no frame
    │   │   │   └── DecoderCrashed     the process that decodes it ended before the video did
    │   │   ├── OutOfMemory            decoding it takes more memory than is allowed
    │   │   ├── TooSlow                decoding it takes longer than is allowed
    │   │   ├── UndecodablePicture     one picture that is no JPEG, PNG or WebP, or a damaged one
    │   │   ├── NothingSampled         frames, but none in the interval asked for
    │   │   ├── TruncatedVideo         too little of its declared time could be decoded
    │   │   └── LimitExceeded          with .value and .limit
    │   │       ├── TooManyBytes  TooManyFrames  TooManySeconds  TooManyPixels  TooManyDecodedBytes
    │   ├── DatasetError               all mistakes of a folder of clips at once, with file and line
    │   ├── CheckpointError            damaged, foreign, or of another version
    │   ├── StateError                 a state that does not belong to this model
    │   │   └── OfflineOnly            a bidirectional model was asked to stream
    │   └── SessionError               a live session cannot go on like this
    │       ├── SessionNotFound  SessionExpired  SessionEnded  TooManySessions
    │       ├── SequenceConflict       another push is due: its number is .expected
    │       ├── PushMismatch           a number that was used before, with other content
    │       ├── ModelReplaced          the session began with another model
    │       ├── StreamRefused          time, size or rate did what the stream's own rules refuse
    │       └── TokenError             a resume token that was changed, has expired or is another caller's
    ├── TrainingStopped                training met its end: loss without a number, no memory, no room on the disk
    ├── SandboxError                   no process to decode in can be had, or not one as confined as is required
    ├── DeadlinePassed                 a live frame waited for longer than it is worth
    └── ServiceError                   what the client SDK meets; keeps the server's words and the request id
        ├── ConnectionFailed  RequestTimeout        no answer came
        ├── RequestRejected                         4xx: the caller's; with .type, .detail
        │   ├── NotAuthorized  NotFound  BodyTooLarge  VideoRejected
        ├── Overloaded                              429 and 503, with .retry_after_seconds
        ├── ServerFault                             other 5xx
        └── UnexpectedAnswer                        not a vidseq service, or an incompatible one

Anything else that is raised is our own mistake.
"""

from collections.abc import Callable, Sequence
from functools import partial


class VidseqError(Exception):
    """The root: `code` is stable and machine-readable, the message is one sentence for a person."""

    code = "error"


class InputError(VidseqError):
    code = "input/invalid"


class OptionError(InputError):
    code = "option/invalid"


class SourceNotFound(InputError):
    code = "source/not-found"


class SourceLost(InputError):
    code = "source/lost"


class ModelNotFound(InputError):
    code = "model/not-found"


class VideoError(InputError):
    code = "video/invalid"


class EmptyVideo(VideoError):
    code = "video/empty"


class UnsupportedContainer(VideoError):
    code = "video/unsupported-container"


class UnsupportedCodec(VideoError):
    code = "video/unsupported-codec"


class NoVideoStream(VideoError):
    code = "video/no-video-stream"


class UndecodableVideo(VideoError):
    code = "video/undecodable"


class DecoderCrashed(UndecodableVideo):
    code = "video/decoder-crashed"


class OutOfMemory(VideoError):
    code = "video/out-of-memory"


class TooSlow(VideoError):
    code = "video/too-slow"


class UndecodablePicture(VideoError):
    code = "video/undecodable-picture"


class NothingSampled(VideoError):
    code = "video/nothing-sampled"


class TruncatedVideo(VideoError):
    """Of the `declared_seconds` where it was looked only `seen_seconds` could be decoded: a share below `min_share`."""

    code = "video/truncated"

    def __init__(self, *, seen_seconds: float, declared_seconds: float, min_share: float) -> None:
        super().__init__(
            f"{seen_seconds:,.2f} s could be decoded where the video declares {declared_seconds:,.2f} s: that is "
            f"{seen_seconds / declared_seconds:.1%}, and below {min_share:.1%} (min_share_seen) no label is given; "
            "the file is cut short or damaged, or declares a time that it does not have"
        )
        self.seen_seconds = seen_seconds
        self.declared_seconds = declared_seconds
        self.min_share = min_share

    def __reduce__(self) -> tuple[Callable[..., "TruncatedVideo"], tuple[()]]:
        given = {name: getattr(self, name) for name in ("seen_seconds", "declared_seconds", "min_share")}
        return partial(TruncatedVideo, **given), ()


class LimitExceeded(VideoError):
    """A limit was met. `value` is what was seen when it was, `limit` what is allowed, both in `unit`."""

    code = "video/limit"
    unit = ""

    def __init__(self, value: float, limit: float) -> None:
        super().__init__(f"the video has {value:,.10g} {self.unit}; at most {limit:,.10g} are allowed")
        self.value = value
        self.limit = limit

    def __reduce__(self) -> tuple[type, tuple[float, float]]:  # errors cross processes in Ray jobs
        return type(self), (self.value, self.limit)


class TooManyBytes(LimitExceeded):
    code = "video/too-many-bytes"
    unit = "bytes"


class TooManyFrames(LimitExceeded):
    code = "video/too-many-frames"
    unit = "frames"


class TooManySeconds(LimitExceeded):
    code = "video/too-many-seconds"
    unit = "seconds"


class TooManyPixels(LimitExceeded):
    code = "video/too-many-pixels"
    unit = "pixels a frame"


class TooManyDecodedBytes(LimitExceeded):
    code = "video/too-many-decoded-bytes"
    unit = "decoded bytes"


_TOLD = 50  # a message that is read by a person; `problems` has them all


class DatasetError(InputError):
    """All mistakes found in a folder of clips; each problem reads `file:line: what is wrong`."""

    code = "dataset/invalid"

    def __init__(self, problems: Sequence[str]) -> None:
        count = "one mistake" if len(problems) == 1 else f"{len(problems)} mistakes"
        told = [f"  {problem}" for problem in problems[:_TOLD]]
        more = [f"  and {len(problems) - _TOLD} more"] if len(problems) > _TOLD else []
        super().__init__("\n".join([f"{count} in the clips:", *told, *more]))
        self.problems = tuple(problems)

    def __reduce__(self) -> tuple[type, tuple[tuple[str, ...]]]:
        return type(self), (self.problems,)


class CheckpointError(InputError):
    code = "checkpoint/invalid"


class StateError(InputError):
    code = "state/mismatch"


class OfflineOnly(StateError):
    code = "state/offline-only"


class SessionError(InputError):
    code = "session/invalid"


class SessionNotFound(SessionError):
    code = "session/not-found"


class SessionExpired(SessionError):
    code = "session/expired"


class SessionEnded(SessionError):
    code = "session/ended"


class TooManySessions(SessionError):
    code = "session/too-many"


class SequenceConflict(SessionError):
    """Another push is due: the one whose number is `expected`."""

    code = "session/sequence"

    def __init__(self, expected: int) -> None:
        super().__init__(f"the session expects push {expected} next")
        self.expected = expected

    def __reduce__(self) -> tuple[type, tuple[int]]:
        return type(self), (self.expected,)


class PushMismatch(SessionError):
    code = "session/push-mismatch"


class StreamRefused(SessionError):
    code = "session/refused"


class ModelReplaced(SessionError):
    code = "session/model-replaced"


class TokenError(SessionError):
    code = "session/token"


class WebhookRefused(VidseqError):
    """A message that says it is of a service, and does not prove it."""

    code = "webhook/refused"


class JobUnfinished(VidseqError):
    """Somebody has waited for a job as long as he would; it goes on."""

    code = "job/unfinished"


class TrainingStopped(VidseqError):
    """Training cannot go on like this; what it has learnt so far is kept, and the message says where."""

    code = "training/stopped"


class SandboxError(VidseqError):
    """Not the video's fault: this machine gives no process to decode it in, or not one as confined as is required."""

    code = "sandbox/unavailable"


class DeadlinePassed(VidseqError):
    """What was asked for was not begun in time; nothing of it was computed."""

    code = "stream/late"


class ServiceError(VidseqError):
    """Something between the SDK and the service went wrong."""

    code = "service/error"

    def __init__(self, message: str, *, request_id: str | None = None) -> None:
        super().__init__(message if request_id is None else f"{message} (request {request_id})")
        self.request_id = request_id


class ConnectionFailed(ServiceError):
    code = "service/connection-failed"


class RequestTimeout(ServiceError):
    code = "service/timeout"


class UnexpectedAnswer(ServiceError):
    code = "service/unexpected-answer"


class StatusError(ServiceError):
    """The service answered with an error: `status`, and `type`, `title`, `detail` in its own words."""

    code = "service/status"

    def __init__(
        self,
        *,
        status: int,
        type: str,
        title: str,
        detail: str,
        request_id: str | None = None,
        retry_after_seconds: float | None = None,
    ) -> None:
        super().__init__(f"{status} {title}: {detail}" if detail else f"{status} {title}", request_id=request_id)
        self.status = status
        self.type = type
        self.title = title
        self.detail = detail
        self.retry_after_seconds = retry_after_seconds


class RequestRejected(StatusError):
    code = "service/rejected"


class NotAuthorized(RequestRejected):
    """No key was sent, or none that is good (status 401), or it is not for this (403); `type` says which it was."""

    code = "service/not-authorized"


class NotFound(RequestRejected):
    code = "service/not-found"


class BodyTooLarge(RequestRejected):
    code = "service/body-too-large"


class VideoRejected(RequestRejected):
    """The service could not read the video; `type` is the `code` of the VideoError it met."""

    code = "service/video-rejected"


class Overloaded(StatusError):
    code = "service/overloaded"


class ServerFault(StatusError):
    code = "service/fault"
