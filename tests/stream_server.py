"""A real server with a real toy model that streams, and clients that speak the protocol of vidseq.messages by hand."""

import functools
import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from serving import decoding
from serving.sealing import Tokens
from serving.sessions import Sessions, SessionSettings
from serving.store import open_store
from serving.usage.used import Charge, uncharged
from tests.web_server import toy_app
from vidseq.config import Limits
from vidseq.live import Live
from vidseq.messages import (
    Applied,
    End,
    Failed,
    Final,
    Noticed,
    Open,
    Ready,
    Received,
    ServiceMessage,
    read_service_message,
)

KEYS = (hashlib.sha256(b"a key for tests").digest(),)


def stream_app(live: Live, folder: Path, *, sessions: dict[str, Any] | None = None, **options: Any) -> Any:
    """`sessions` are fields of SessionSettings, `options` those of toy_app."""
    decode = functools.partial(decoding.decode, picture=live.config.picture, limits=Limits())
    charge = options.get("ledger") or uncharged
    kept = kept_sessions(live, folder, charge=charge, **sessions or {})
    return toy_app(**{"sessions": kept, "decode": decode} | options)


def kept_sessions(live: Live, folder: Path, *, charge: Charge = uncharged, **settings: Any) -> Sessions:
    """Sessions in a file in `folder`; `settings` are fields of SessionSettings."""
    kept = SessionSettings.model_validate(settings)
    store = open_store(f"sqlite:///{folder}/sessions.db", lifetimes=kept.lifetimes, keys=KEYS)
    return Sessions(live, store=store, tokens=Tokens(KEYS), settings=kept, charge=charge)


class Client:
    """One WebSocket. What the service closed is told by `code` once everything has been heard."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection

    def open(self, **asked: Any) -> Ready:
        self.say(Open.model_validate(asked).model_dump_json())
        ready = self.hear()
        assert isinstance(ready, Ready), ready
        return ready

    def say(self, data: str | bytes) -> None:
        self.connection.send(data)

    def end(self) -> None:
        self.say(End().model_dump_json())

    def hear(self) -> ServiceMessage:
        return read_service_message(self.connection.recv(timeout=20))

    def hear_all(self) -> list[ServiceMessage]:
        """Every message until the service closes."""
        heard = []
        while True:
            try:
                heard.append(self.hear())
            except ConnectionClosed:
                return heard

    @property
    def code(self) -> int | None:
        return self.connection.protocol.close_code


@contextmanager
def talking(url: str, **options: Any) -> Iterator[Client]:
    """`options` are those of websockets' connect."""
    with connect(url.replace("http", "ws") + "/v1/streams", **options) as connection:
        yield Client(connection)


def refusal(client: Client) -> tuple[Failed, int | None]:
    """What the service says in place of labels, and its closing code."""
    *_, failed = client.hear_all()
    assert isinstance(failed, Failed), failed
    return failed, client.code


def said(messages: Sequence[ServiceMessage]) -> tuple[list[Applied], Final]:
    """The answers and the end of a stream that went well."""
    *before, final = messages
    assert isinstance(final, Final), final
    assert all(isinstance(message, Applied | Noticed | Received) for message in before), before
    return [message for message in before if isinstance(message, Applied)], final
