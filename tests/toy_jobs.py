"""Jobs of tests: everything that keeps them, over one database and one folder, and answers to put into them."""

import asyncio
import base64
import threading
import zlib
from collections.abc import Awaitable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from serving.database.core import Database
from serving.jobs.asked import JobAsked
from serving.jobs.background import Background
from serving.jobs.deliveries import Outbox
from serving.jobs.execution import Execution, Item
from serving.jobs.jobs import Jobs
from serving.jobs.queue import Leased, Outcome, Queue, Result, sealed_name
from serving.jobs.settings import JobSettings
from serving.once.kept import Answer
from serving.parts import Classify
from serving.sealing import Vault, load_keys, new_key
from serving.uploads.uploads import Uploads
from serving.usage.used import uncharged
from serving.whole import Whole
from tests.web_server import count_bytes, predicted
from vidseq.jobs import Job
from vidseq.schemas import Predictions, Problem
from vidseq.webhooks import new_secret

OWNER = "0123456789ab"
SECRET = new_secret()
ANSWER = Answer(200, Predictions(predictions=(predicted(7),)).model_dump_json().encode())
PROBLEM = Problem(
    type="video/unsupported", title="No", status=422, detail="It is none.", request_id="r", retryable=False
)
REFUSED = Answer(422, PROBLEM.model_dump_json(exclude_none=True).encode())


@dataclass
class Kept:
    """What one process of a service has."""

    database: Database
    folder: Path
    settings: JobSettings = field(default_factory=JobSettings)
    vault: Vault = field(default_factory=lambda: Vault(load_keys(new_key())))

    def __post_init__(self) -> None:
        self.uploads = Uploads(self.database, self.folder)
        self.uploads.prepare()
        self.jobs = Jobs(self.database, self.vault, self.uploads, self.settings)
        self.queue = Queue(self.database, self.settings)
        self.outbox = Outbox(self.database, self.vault, self.settings)

    def upload(self, content: bytes = b"a video", *, owner: str = OWNER) -> str:
        return self.uploads.add(owner, [content]).id

    def job(self, num_items: int = 1, *, owner: str = OWNER, key: bytes | None = None, **asked: Any) -> Job:
        """Of so many uploads of its own."""
        items = [{"upload": self.upload(f"video {n}".encode(), owner=owner)} for n in range(num_items)]
        return self.jobs.create(owner, asked_for(items, **asked), key_sha256=key).job

    def end(self, item: Leased, answer: Answer = ANSWER) -> bool:
        return self.queue.finish(item, self.result(item, answer))

    def result(self, item: Leased, answer: Answer = ANSWER) -> Result:
        return Result.of(answer, self.vault, job_id=item.job_id, position=item.position)

    def body(self, item: Item, result: Outcome) -> bytes:
        """What was sealed."""
        assert isinstance(result, Result), result
        return zlib.decompress(self.vault.open(result.sealed, name=sealed_name(item.job_id, item.position)))

    def now(self, job: Job, *, owner: str = OWNER) -> Job:
        return self.jobs.get(owner, job.id)


@contextmanager
def worked_at(kept: Kept, classify: Classify = count_bytes) -> Iterator[None]:
    """Items are labelled and messages sent meanwhile, in a loop of their own, as Control does."""
    execution = Execution(
        kept.uploads, Whole(classify, None), kept.vault, charge=uncharged, at_once=kept.settings.items_at_once
    )

    def execute(leased: Leased) -> Awaitable[Outcome]:
        return execution.label(Item(leased.job_id, leased.position, leased.owner, leased.upload_id, leased.options))

    ending = threading.Event()

    async def work() -> None:
        background = Background(kept.database, kept.vault, execute, kept.settings)
        background.begin()
        await asyncio.to_thread(ending.wait)
        await background.end()

    thread = threading.Thread(target=asyncio.run, args=(work(),))
    thread.start()
    try:
        yield
    finally:
        ending.set()
        thread.join(30)
    assert not thread.is_alive()


def asked_for(items: list[dict[str, Any]], **asked: Any) -> JobAsked:
    return JobAsked.model_validate({"items": items} | asked)


def inline(content: bytes, **item: Any) -> dict[str, Any]:
    return {"clip": base64.b64encode(content).decode()} | item


def webhook(url: str) -> dict[str, Any]:
    return {"url": url, "secret": SECRET}
