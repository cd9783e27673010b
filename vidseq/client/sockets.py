"""One WebSocket to the service: messages out and in, every failure an error of our tree. Knows nothing of streams."""

import contextlib
import ssl
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field

import httpx2
from pydantic import ValidationError
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidMessage, InvalidStatus, WebSocketException
from websockets.frames import CloseCode
from websockets.http11 import Response

from vidseq.client.answers import problem_error, status_error
from vidseq.errors import ConnectionFailed, ServiceError, UnexpectedAnswer
from vidseq.messages import Applied, End, Failed, Final, Noticed, Open, Ready, Received, read_service_message

MAX_MESSAGE_BYTES = 16 * 2**20  # of the service; an answer has some hundred bytes a label, and a resume token
PING_SECONDS = 20.0
PONG_SECONDS = 60.0  # a ping waits behind all that is on its way, and an uplink may be slow
CLOSE_SECONDS = 2.0  # for a polite end; whoever cuts a line does not answer

Told = Ready | Applied | Noticed | Received | Final


@dataclass(frozen=True)
class Address:
    """Where the service is, what it is told of us, and how long a connection may take."""

    url: httpx2.URL
    headers: dict[str, str] = field(repr=False)  # one of them is a secret
    tls: ssl.SSLContext = field(repr=False)  # whom HTTP trusts, WebSockets trust too
    connect_seconds: float


class Socket:
    """An open connection."""

    def __init__(self, connection: ClientConnection, url: httpx2.URL) -> None:
        self._connection = connection
        self._url = url

    async def send(self, message: Open | End | bytes) -> None:
        """Raises ConnectionFailed."""
        with _typed_errors(self._url):
            await self._connection.send(
                message if isinstance(message, bytes) else message.model_dump_json(exclude_none=True)
            )

    async def receive(self) -> Told:
        """The next message.

        Raises:
            StatusError: the service said that it failed, in its own words.
            ConnectionFailed: the connection was lost. UnexpectedAnswer: what came is not of this protocol.
        """
        with _typed_errors(self._url):
            data = await self._connection.recv()
        try:
            message = read_service_message(data)
        except ValidationError as error:
            raise UnexpectedAnswer(
                f"{self._url} sent something that is no message of a stream: {data[:100]!r}"
            ) from error
        if isinstance(message, Failed):
            raise problem_error(message.problem)
        return message


@contextlib.asynccontextmanager
async def opened(address: Address) -> AsyncIterator[Socket]:
    """A connection, closed at the end. No proxy, no redirect, no compression: images do not get smaller."""
    with _typed_errors(address.url):
        connection = await _Connect(
            str(address.url),
            ssl=address.tls if address.url.scheme == "wss" else None,
            additional_headers=address.headers,
            user_agent_header=None,  # it is among the others
            compression=None,
            proxy=None,
            open_timeout=address.connect_seconds,
            ping_interval=PING_SECONDS,
            ping_timeout=PONG_SECONDS,
            close_timeout=CLOSE_SECONDS,
            max_size=MAX_MESSAGE_BYTES,
        )
    try:
        yield Socket(connection, address.url)
        await connection.close()
    finally:
        connection.transport.abort()  # after an error there is nobody to be polite to


class _Connect(connect):
    """Follows no redirect: the key and the pictures stay with the address that was given."""

    def process_redirect(self, exc: Exception) -> Exception:
        return exc


@contextlib.contextmanager
def _typed_errors(url: httpx2.URL) -> Iterator[None]:
    """What the WebSocket library raises, as errors of our tree."""
    try:
        yield
    except InvalidStatus as error:
        raise _refused(url, error.response) from error
    except ConnectionClosed as error:
        raise _closed(url, error) from error
    except (OSError, InvalidMessage) as error:
        raise ConnectionFailed(f"no answer from {url}: {str(error) or type(error).__name__}") from error
    except WebSocketException as error:
        raise UnexpectedAnswer(f"{url} does not speak WebSocket as expected: {error}") from error


def _refused(url: httpx2.URL, response: Response) -> ServiceError:
    """An HTTP answer in place of a WebSocket."""
    told = {name: response.headers[name] for name in ("Retry-After", "X-Request-ID") if name in response.headers}
    answer = httpx2.Response(response.status_code, headers=told, content=bytes(response.body))
    if answer.is_error:
        return status_error(answer)
    words = response.headers.get("Location", "")
    return UnexpectedAnswer(f"{url} answered {response.status_code} where a WebSocket was asked for: {words!r}")


def _closed(url: httpx2.URL, error: ConnectionClosed) -> ServiceError:
    """The connection was lost, unless it was us who could not stand what came."""
    ours = error.sent if not error.rcvd_then_sent else None
    if ours is not None and ours.code in (CloseCode.PROTOCOL_ERROR, CloseCode.INVALID_DATA, CloseCode.MESSAGE_TOO_BIG):
        return UnexpectedAnswer(f"{url} sent something that is no message of a stream: {ours.reason}")
    return ConnectionFailed(f"the connection to {url} was lost: {error}")
