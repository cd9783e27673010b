"""A request, when it is over: one value for figures, logs and accounts. Knows no routes, and nothing that is secret.

Whoever answers a request writes what he alone knows into its `Facts` (`request.state.facts`); the envelope makes a
`Finished` of them and of what it has seen itself. Names of files, keys, queries and pixels have no place in either.
"""

from dataclasses import dataclass
from typing import Protocol

from serving.parts import PushObserver
from vidseq.messages import Applied


@dataclass
class Facts:
    """What is known of a request while it is answered. `problem` is the type of the problem that was told; `replayed`
    says that the answer had been given before."""

    model: str = ""
    frames_decoded: int = 0
    problem: str = ""
    replayed: bool = False

    def counting(self, observe: PushObserver) -> PushObserver:
        """The same observer; the frames of each push count here, too."""

        def observed(applied: Applied, *, seconds: float) -> None:
            self.frames_decoded += len(applied.labels)
            observe(applied, seconds=seconds)

        return observed


@dataclass(frozen=True, kw_only=True)
class Finished:
    """A request that is over.

    `route` is the path as it was declared (`/v1/classify`), `method` one that HTTP knows; "" for anything else. Both
    are safe as a metric's tags: no client can make up new ones. The status of a WebSocket is the code with which it was
    closed, or that of an HTTP answer in its place; its method is "". `key_id` is "" where no key was shown, or none is
    needed. `bytes_received` are those of the body, or of a WebSocket's messages. `frames_decoded` are a video's, up to
    where it was looked at; of a stream, those that were labelled.
    """

    request_id: str
    route: str
    method: str
    status: int
    seconds: float
    key_id: str
    bytes_received: int
    frames_decoded: int
    model: str
    problem: str
    replayed: bool = False


class Observer(Protocol):
    """Told of every request when it is over: the seam for counters, logs and accounts."""

    def __call__(self, finished: Finished) -> None: ...
