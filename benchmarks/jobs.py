"""Jobs while their workers die: lost, doubled, wrong, and what their webhooks were told.

    python -m benchmarks.jobs [--jobs 1000] [--replicas 2] [--kills 10] [--postgres]

A real `vidseq serve`, jobs made through the SDK, each with a webhook on this machine, and SIGKILL to one process
whenever all of them run: a replica that labels, or the one that dispatches and sends. The webhook's server refuses one
message in ten. At the end every job must have one result, that of the same model in this process, and every webhook
have been told at least once, with a right signature. Executions are counted in the database.
"""

import argparse
import asyncio
import os
import random
import signal
import tempfile
import time
from collections import Counter
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path

import torch
from sqlalchemy import func, select

from benchmarks.kill import all_run
from benchmarks.once import clip_of, database_in, differ, expected_of
from serving.database.core import Database
from serving.database.tables import job_items
from serving.sealing import new_key
from tests.hook_server import Hook, listening
from tests.running import Service, descendants, running_service
from tests.toy_models import toy_checkpoint
from vidseq.client import AsyncClient, AsyncJob, Webhook
from vidseq.errors import ServiceError
from vidseq.jobs import JobEvent
from vidseq.schemas import Prediction
from vidseq.webhooks import check, new_secret

NUM_CLIPS = 8
AT_A_TIME = 8
PATIENCE_SECONDS = 600.0
SECRET = new_secret()


@dataclass
class Wanted:
    """One job: its clip, and what came of it."""

    clip: Path
    job_id: str = ""
    results: list[Prediction] = field(default_factory=list)


@dataclass(frozen=True)
class Outcome:
    num_jobs: int
    num_killed: int
    num_acknowledged: int
    num_lost: int
    num_doubled: int
    num_wrong: int
    num_executions: int
    num_untold: int
    num_messages: int
    num_unsigned: int
    seconds: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=1000)
    parser.add_argument("--replicas", type=int, default=2)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--postgres", action="store_true", help="keep jobs in a PostgreSQL that is started for it")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder, database_in(Path(folder), postgres=options.postgres) as url:
        found = measured(
            Path(folder), url, num_jobs=options.jobs, num_replicas=options.replicas, num_kills=options.kills
        )
    print(f"\n{found.num_jobs:,} jobs, {options.replicas} replicas, ", end="")
    print(f"{'PostgreSQL' if options.postgres else 'SQLite'}, {found.seconds:.0f} s\n")
    print("| processes killed | acknowledged | lost | doubled | wrong | executions begun | ", end="")
    print("webhooks not told | messages | not signed right |\n|---|---|---|---|---|---|---|---|---|")
    print(f"| {found.num_killed} | {found.num_acknowledged:,} | {found.num_lost} | {found.num_doubled} | ", end="")
    print(f"{found.num_wrong} | {found.num_executions:,} | {found.num_untold} | {found.num_messages:,} | ", end="")
    print(f"{found.num_unsigned} |")


def measured(folder: Path, url: str, *, num_jobs: int, num_replicas: int, num_kills: int) -> Outcome:
    model = toy_checkpoint(folder / "model")
    clips = [clip_of(folder / f"{number}.mp4", number) for number in range(NUM_CLIPS)]
    wanted = [Wanted(clips[number % NUM_CLIPS]) for number in range(num_jobs)]
    (folder / "keys").write_text(new_key())
    options = ["--replicas", str(num_replicas), "--database", url, "--session-keys", str(folder / "keys")]
    options += ["--uploads", str(folder / "uploads"), "--private-webhooks"]
    chance = random.Random(0)
    refusals = [500 if chance.random() < 0.1 else 204 for _ in range(num_jobs)]
    begun = time.monotonic()
    with listening(*refusals) as hook, running_service(model, *options) as service:
        asyncio.run(_make_and_kill(service, hook, wanted, num_replicas=num_replicas, num_kills=num_kills))
        seconds = time.monotonic() - begun
        num_executions = _num_executions(url)
    expected = expected_of(model, clips)
    told = _told(hook)
    return Outcome(
        num_jobs=num_jobs,
        num_killed=num_kills,
        num_acknowledged=sum(bool(one.job_id) for one in wanted),
        num_lost=sum(not one.results for one in wanted if one.job_id),
        num_doubled=sum(len(one.results) > 1 for one in wanted),
        num_wrong=sum(differ(result, expected[one.clip]) for one in wanted for result in one.results),
        num_executions=num_executions,
        num_untold=sum(not told[one.job_id] for one in wanted if one.job_id),
        num_messages=len(hook.received),
        num_unsigned=sum(not _signed(sent, body) for sent, body in hook.received),
        seconds=seconds,
    )


async def _make_and_kill(
    service: Service, hook: Hook, wanted: list[Wanted], *, num_replicas: int, num_kills: int
) -> None:
    """In as many parts as there are kills: each begins when all processes run, and loses one of them in its middle."""
    chance = random.Random(1)
    webhook = Webhook(hook.url, SECRET)
    print("| kill | of | jobs ended | all back after s |\n|---|---|---|---|")
    async with AsyncClient(service.url) as client:
        uploads = {clip: await client.uploads.create(clip) for clip in {one.clip for one in wanted}}
        for kill in range(num_kills):
            part = wanted[len(wanted) * kill // num_kills : len(wanted) * (kill + 1) // num_kills]
            replicas = sorted(await all_run(service, num_replicas))
            making = asyncio.Semaphore(AT_A_TIME)

            async def one_job(one: Wanted, making: asyncio.Semaphore = making) -> AsyncJob:
                async with making:
                    job = await client.jobs.create([uploads[one.clip]], webhook=webhook)
                one.job_id = job.id
                return await _ended(client, job)

            working = [asyncio.create_task(one_job(one)) for one in part]
            enough = int(len(part) * chance.uniform(0.2, 0.6))
            while sum(task.done() for task in working) < enough:
                await asyncio.sleep(0.01)
            kind, pid = chance.choice([("replica", replicas[0]), ("dispatcher", _dispatcher(service))])
            os.kill(pid, signal.SIGKILL)
            killed_at = time.monotonic()
            await asyncio.gather(*working)
            await all_run(service, num_replicas)
            print(f"| {kill + 1} | {kind} | {len(part)} | {time.monotonic() - killed_at:.1f} |", flush=True)
        for one in wanted:
            async for result in client.jobs.results(one.job_id):
                one.results += result.predictions
        await _all_told(hook, wanted)


async def _ended(client: AsyncClient, job: AsyncJob) -> AsyncJob:
    """Waited for with patience: while the service is away nobody answers."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            return await client.jobs.wait(job)
        except ServiceError:
            if time.monotonic() > deadline:
                raise
        await asyncio.sleep(0.5)


async def _all_told(hook: Hook, wanted: list[Wanted]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    ids = {one.job_id for one in wanted}
    while not ids <= set(_told(hook)) and time.monotonic() < deadline:
        await asyncio.sleep(0.5)


def _told(hook: Hook) -> Counter[str]:
    """How often the server of the webhook has heard of each job, whatever it answered."""
    return Counter(JobEvent.model_validate_json(body).data.id for _, body in list(hook.received))


def _signed(sent: dict[str, str], body: bytes) -> bool:
    check(body, sent, secret=SECRET, tolerance_seconds=1e9)
    return True


def _dispatcher(service: Service) -> int:
    for pid in descendants(service.process.pid):
        with suppress(FileNotFoundError, ProcessLookupError):  # a decoder that has ended
            if Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"ray::ServeReplica:control"):
                return pid
    raise AssertionError("no process dispatches")


def _num_executions(url: str) -> int:
    with closing(Database(url)) as database, database.reading() as connection:
        return int(connection.execute(select(func.sum(job_items.c.attempts))).scalar_one())


if __name__ == "__main__":
    main()
