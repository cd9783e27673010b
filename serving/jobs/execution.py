"""An item of a job, labelled in the process that has the model. Knows neither Ray, nor the queue.

Items wait here for their turn, so that whoever counts what a replica has to do (Serve's autoscaling) counts them, too;
their chunks ride in the same batches as those of requests.
"""

import asyncio
import functools
import logging
import threading
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from serving.admission import Workers
from serving.classify_options import ClassifyOptions
from serving.database.errors import DatabaseDown
from serving.finished import Facts
from serving.jobs.queue import Crash, Later, Outcome, Result
from serving.once import door
from serving.sealing import Vault
from serving.uploads.errors import StorageDown, UploadNotFound
from serving.uploads.uploads import Uploads
from serving.usage.used import Charge, Used
from serving.whole import Whole
from vidseq.errors import ModelNotFound, SandboxError, VidseqError
from vidseq.schemas import Predictions

logger = logging.getLogger(__name__)

LATER_SECONDS = 5.0
FINAL = (*door.FINAL, ModelNotFound, UploadNotFound)  # nobody is there who could ask otherwise


@dataclass(frozen=True)
class Item:
    """What has to be known of an item to label it; a few bytes."""

    job_id: str
    position: int
    owner: str
    upload_id: str
    options: dict[str, Any]

    @property
    def name(self) -> str:
        """For logs."""
        return f"{self.job_id}/{self.position}"


class Execution:
    """Labels items, `at_once` at a time. A result is Predictions, or a Problem that will not pass."""

    def __init__(
        self,
        uploads: Uploads,
        whole: Whole,
        vault: Vault,
        *,
        charge: Charge,
        at_once: int,
    ) -> None:
        self._uploads = uploads
        self._whole = whole
        self._vault = vault
        self._charge = charge
        self._turns = asyncio.Semaphore(at_once)
        self._workers = Workers(at_once)

    async def label(self, item: Item) -> Outcome:
        """Whoever stops waiting stops the work."""
        async with self._turns:
            labelled = functools.partial(self._labelled, item)
            try:
                answer = await door.final_answer(labelled, request_id=item.name, final=FINAL)
                # Small and closed before it leaves this process: of a long film it has megabytes.
                return await asyncio.to_thread(
                    Result.of, answer, self._vault, job_id=item.job_id, position=item.position
                )
            except (DatabaseDown, SandboxError, StorageDown) as error:
                logger.warning("item %s: %s", item.name, error)
                return Later(LATER_SECONDS)
            except VidseqError as error:
                return Crash(str(error))

    async def _labelled(self, item: Item) -> bytes:
        options = ClassifyOptions.model_validate(item.options)
        charge: Callable[[Used], None] = functools.partial(self._charge, item.owner)

        def label(stop: threading.Event) -> bytes:
            with self._uploads.opened(item.owner, item.upload_id) as video:
                predictions = self._whole.label(video, options, options.models, facts=Facts(), charge=charge, stop=stop)
            return Predictions(predictions=predictions).model_dump_json().encode()

        never: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        return await self._workers.run(label, holding=ExitStack(), gone=never, timeout_seconds=None)
