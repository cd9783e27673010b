"""Messages to webhooks: leased, sent, sent again. Knows HTTP as a client does, and not why a job has ended.

Of several owners, one message each is sent before the second of any: receivers that never answer hold up those of
another owner for no longer than one sending may take.

At least once: a message whose sender has died is sent again when its lease has run out, under the same id. No redirect
is followed, no cookie kept, and of an answer nothing is read but its status.
"""

import asyncio
import logging
import os
import random
import time
from collections import Counter
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any

import httpx2
from sqlalchemy import ColumnElement, Row, case, func, literal, select, update

from serving.database.core import Database
from serving.database.errors import DatabaseDown
from serving.database.tables import deliveries, jobs
from serving.jobs.addresses import Address, address_of, refuse_unsafe
from serving.jobs.errors import WebhookNotAllowed
from serving.jobs.jobs import begun, secret_name, told
from serving.jobs.settings import JobSettings
from serving.sealing import SealBroken, Vault
from serving.threads import Threads
from vidseq import __version__
from vidseq.jobs import JobEvent
from vidseq.webhooks import headers

logger = logging.getLogger(__name__)

_rows = deliveries.c
JITTER = 0.2


@dataclass(frozen=True)
class Message:
    """What is sent. `attempts` counts this one, too."""

    id: str
    owner: str
    url: str
    secret: str | None  # None: no key of ours opens it
    body: bytes
    attempts: int
    token: bytes


@dataclass(frozen=True)
class Sent:
    """What came of a sending: the status of an answer, or why there was none."""

    status: int | None
    reason: str | None

    @property
    def taken(self) -> bool:
        return self.status is not None and 200 <= self.status < 300


class Outbox:
    """Thread-safe. Every method raises DatabaseDown."""

    def __init__(self, database: Database, vault: Vault, settings: JobSettings) -> None:
        self.settings = settings
        self._database = database
        self._vault = vault

    def lease(self, most: int, *, going_on: Collection[str] = ()) -> list[Message]:
        """Up to so many that are due, now the caller's until their sending must have ended.

        `going_on` are the owners of those that he is sending already, each as often as he sends one of theirs.
        """
        message = (_rows.id.label("message_id"), _rows.attempts)
        if not (ids := self._in_turn(most, Counter(going_on))):
            return []
        which = select(jobs, begun, *message).join(deliveries, jobs.c.id == _rows.job_id)
        with self._database.writing() as connection:
            now = self._database.now(connection)
            due = which.where(_rows.id.in_(ids), _rows.due_at <= now).order_by(_rows.due_at)
            rows = connection.execute(due.with_for_update(of=deliveries, skip_locked=True)).all()
            messages = [self._message(row) for row in rows]
            for sending in messages:
                until = now + 3 * self.settings.webhooks.timeout_seconds
                taken = {"attempts": sending.attempts, "claim": sending.token, "due_at": until}
                connection.execute(update(deliveries).where(_rows.id == sending.id).values(taken))
        return messages

    def _in_turn(self, most: int, num_going_on: Counter[str]) -> list[str]:
        """The ids of so many that are due: nobody has one more while another waits who has fewer.

        Read, which holds up nobody, and not locked: another may take them.
        """
        has: ColumnElement[int] = case(num_going_on, value=jobs.c.owner, else_=0) if num_going_on else literal(0)
        number = func.row_number().over(partition_by=jobs.c.owner, order_by=_rows.due_at)
        with self._database.reading() as connection:
            due = _rows.due_at <= self._database.now(connection)
            turns = select(_rows.id, _rows.due_at, (has + number).label("turn")).join(jobs, jobs.c.id == _rows.job_id)
            each = turns.where(due).subquery()
            return list(
                connection.execute(select(each.c.id).order_by(each.c.turn, each.c.due_at).limit(most)).scalars()
            )

    def _message(self, row: Row[Any]) -> Message:
        ended_at = datetime.fromtimestamp(row.finished_at, UTC)
        event = JobEvent.model_validate({"type": f"job.{row.end_state}", "timestamp": ended_at, "data": told(row)})
        return Message(
            id=row.message_id,
            owner=row.owner,
            url=row.webhook_url,
            secret=self._secret(row),
            body=event.model_dump_json().encode(),
            attempts=row.attempts + 1,
            token=os.urandom(16),
        )

    def _secret(self, row: Row[Any]) -> str | None:
        try:
            return self._vault.open(row.webhook_secret, name=secret_name(row.id)).decode()
        except SealBroken as error:
            logger.error("the webhook of job %s: %s", row.id, error)
            return None

    def settle(self, message: Message, sent: Sent) -> None:
        """It was delivered, or is due again after a pause that grows, or is given up."""
        pauses = self.settings.webhooks.pauses_seconds
        with self._database.writing() as connection:
            now = self._database.now(connection)
            due_at = None
            if not sent.taken and message.attempts <= len(pauses):
                due_at = now + pauses[message.attempts - 1] * random.uniform(1 - JITTER, 1 + JITTER)
            settled = {
                "claim": None,
                "due_at": due_at,
                "status": sent.status,
                "reason": sent.reason,
                "delivered_at": now if sent.taken else None,
            }
            held = (_rows.id == message.id) & (_rows.claim == message.token)
            connection.execute(update(deliveries).where(held).values(settled))


class Postman:
    """For one event loop: `run` ends when it is cancelled. `look_up` is `address_of`."""

    def __init__(self, outbox: Outbox, *, look_up: Callable[..., Address] = address_of) -> None:
        self._outbox = outbox
        self._look_up = look_up
        self._settings = outbox.settings.webhooks
        self._going_on: dict[asyncio.Task[None], Message] = {}
        self._threads = Threads(2, "messages")
        self._lookups = Threads(self._settings.max_at_once, "names")

    async def run(self) -> None:
        client = httpx2.AsyncClient(timeout=self._settings.timeout_seconds, follow_redirects=False, trust_env=False)
        async with client, asyncio.TaskGroup() as sending:
            while True:
                room = self._settings.max_at_once - len(self._going_on)
                messages: list[Message] = []
                if room > 0:
                    owners = [message.owner for message in self._going_on.values()]
                    with suppress(DatabaseDown):  # which is in the log
                        messages = await self._threads.call(partial(self._outbox.lease, room, going_on=owners))
                for message in messages:
                    task = sending.create_task(self._deliver(client, message))
                    self._going_on[task] = message
                    task.add_done_callback(self._going_on.pop)
                if not messages:
                    await asyncio.sleep(self._outbox.settings.poll_seconds)

    async def _deliver(self, client: httpx2.AsyncClient, message: Message) -> None:
        sent = await self._sent(client, message)
        if not sent.taken:
            logger.info("message %s, attempt %s: %s", message.id, message.attempts, sent.reason or sent.status)
        with suppress(DatabaseDown):  # then it is sent once more
            await self._threads.call(partial(self._outbox.settle, message, sent))

    async def _sent(self, client: httpx2.AsyncClient, message: Message) -> Sent:
        """Raises nothing: one message that cannot be sent is no reason not to send the others."""
        seconds = self._settings.timeout_seconds
        try:
            async with asyncio.timeout(seconds):
                return Sent(await self._send(client, message), None)
        except WebhookNotAllowed as error:
            return Sent(None, str(error))
        except TimeoutError:
            return Sent(None, f"no answer within {seconds:g} seconds")
        except (httpx2.HTTPError, httpx2.InvalidURL, OSError, ValueError) as error:  # a host may be no name at all
            return Sent(None, f"{type(error).__name__}: {error}"[:300])
        except Exception:
            logger.exception("message %s", message.id)
            return Sent(None, "something went wrong here, of which the service's log knows more")

    async def _send(self, client: httpx2.AsyncClient, message: Message) -> int:
        """The status of the answer."""
        if message.secret is None:
            raise WebhookNotAllowed("the secret of this webhook cannot be opened any more")
        allow_private = self._settings.allow_private
        refuse_unsafe(message.url, allow_private=allow_private)
        url = httpx2.URL(message.url)
        port = url.port or {"http": 80, "https": 443}[url.scheme]
        # As it is spelled in the URL. `url.host` is decoded (xn--strae-oqa.de to straße.de, by IDNA 2008), and sockets
        # and TLS would encode it by IDNA 2003: to the name of somebody else (strasse.de).
        host = url.raw_host.decode("ascii")
        # Who asks a name server that is silent waits in a thread; of these there are as many as messages at once.
        address = await self._lookups.call(partial(self._look_up, host, port, allow_private=allow_private))
        request = client.build_request(
            "POST",
            url.copy_with(host=str(address)),
            content=message.body,
            headers={
                "Host": url.netloc.decode(),
                "Content-Type": "application/json",
                "User-Agent": f"vidseq/{__version__}",
                **headers(message.id, message.body, secret=message.secret, timestamp=int(time.time())),
            },
            extensions={"sni_hostname": host},
        )
        response = await client.send(request, stream=True)
        await response.aclose()
        return response.status_code
