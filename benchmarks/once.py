"""Requests with idempotency keys while replicas die: answered, answered twice and differently, wrong; the longest wait.

    python -m benchmarks.once [--requests 1000] [--replicas 3] [--kills 10] [--postgres]

A real `vidseq serve`, the SDK as it comes, so many requests at a time, and SIGKILL to one replica whenever all of them
run, each time while requests are being executed. Then every key is asked again: what is answered must be what was
answered before, to the last digit of its timings, and nothing may be executed. The model is a toy with random weights;
what it says of each clip is compared with the same model in this process. Executions are counted in the database.
"""

import argparse
import asyncio
import os
import random
import signal
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch
from sqlalchemy import select

from benchmarks.kill import all_run
from serving.database.core import Database
from serving.database.tables import idempotent_answers
from serving.sealing import new_key
from tests.postgres_server import running_postgres
from tests.running import Service, running_service
from tests.toy_models import toy_checkpoint
from tests.toy_videos import write_clip
from vidseq.classifier import Classifier
from vidseq.client import AsyncClient
from vidseq.errors import ServiceError
from vidseq.schemas import Prediction

NUM_CLIPS = 8
AT_A_TIME = 12
TOLERANCE = 1e-4


@dataclass
class Asked:
    """One request: its key, its clip, what was answered first, how long that took, and what was answered again."""

    clip: Path
    key: str = field(default_factory=lambda: str(uuid.uuid4()))
    answer: Prediction | None = None
    waited_seconds: float = 0.0
    again: Prediction | None = None


@dataclass(frozen=True)
class Outcome:
    num_requests: int
    num_killed: int
    num_answered: int
    num_executions: int
    num_visible_twice: int
    num_wrong: int
    longest_wait_seconds: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--replicas", type=int, default=3)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--postgres", action="store_true", help="keep answers in a PostgreSQL that is started for it")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder, database_in(Path(folder), postgres=options.postgres) as url:
        found = measured(
            Path(folder), url, num_requests=options.requests, num_replicas=options.replicas, num_kills=options.kills
        )
    print(f"\n{found.num_requests:,} requests, {AT_A_TIME} at a time, {options.replicas} replicas, ", end="")
    print(f"{'PostgreSQL' if options.postgres else 'SQLite'}\n")
    print("| replicas killed | answered | executions begun | executed twice and visible | wrong | longest wait |")
    print("|---|---|---|---|---|---|")
    print(
        f"| {found.num_killed} | {found.num_answered:,} | {found.num_executions:,} | {found.num_visible_twice} | ",
        end="",
    )
    print(f"{found.num_wrong} | {found.longest_wait_seconds:.1f} s |")


@contextmanager
def database_in(folder: Path, *, postgres: bool) -> Iterator[str]:
    if postgres:
        with running_postgres() as url:
            yield url
    else:
        yield f"sqlite://{folder}/vidseq.db"


def measured(folder: Path, url: str, *, num_requests: int, num_replicas: int, num_kills: int) -> Outcome:
    model = toy_checkpoint(folder / "model")
    clips = [clip_of(folder / f"{number}.mp4", number) for number in range(NUM_CLIPS)]
    asked = [Asked(clips[number % NUM_CLIPS]) for number in range(num_requests)]
    (folder / "keys").write_text(new_key())
    options = ("--replicas", str(num_replicas), "--database", url, "--session-keys", str(folder / "keys"))
    with running_service(model, *options) as service:
        num_killed = asyncio.run(_ask_and_kill(service, asked, num_replicas=num_replicas, num_kills=num_kills))
        num_executions = _num_executions(url)
        asyncio.run(_ask_again(service, asked))
        assert _num_executions(url) == num_executions, "what was answered was executed again"
    expected = expected_of(model, clips)
    answered = [one for one in asked if one.answer is not None]
    return Outcome(
        num_requests=num_requests,
        num_killed=num_killed,
        num_answered=len(answered),
        num_executions=num_executions,
        num_visible_twice=sum(one.again != one.answer for one in answered),
        num_wrong=sum(differ(one.answer, expected[one.clip]) for one in answered if one.answer is not None),
        longest_wait_seconds=max(one.waited_seconds for one in asked),
    )


def clip_of(path: Path, number: int) -> Path:
    times = [index / 10 for index in range(20 + 5 * number)]
    return write_clip(path, seconds=times, first_number=100 * number)


async def _ask_and_kill(service: Service, asked: list[Asked], *, num_replicas: int, num_kills: int) -> int:
    """In as many parts as there are kills: each begins when all replicas run, and loses one of them in its middle."""
    chance = random.Random(0)
    print("| kill | requests answered | all back after s |\n|---|---|---|")
    async with AsyncClient(service.url) as client:
        for kill in range(num_kills):
            part = asked[len(asked) * kill // num_kills : len(asked) * (kill + 1) // num_kills]
            replicas = sorted(await all_run(service, num_replicas))
            waiting = asyncio.Semaphore(AT_A_TIME)
            asking = [asyncio.create_task(_ask(client, one, waiting)) for one in part]
            enough = int(len(part) * chance.uniform(0.2, 0.6))
            while sum(task.done() for task in asking) < enough:
                await asyncio.sleep(0.01)
            os.kill(chance.choice(replicas), signal.SIGKILL)
            killed_at = time.monotonic()
            await asyncio.gather(*asking)
            await asyncio.sleep(0.5)
            await all_run(service, num_replicas)
            print(f"| {kill + 1} | {len(part)} | {time.monotonic() - killed_at:.1f} |", flush=True)
    return num_kills


async def _ask(client: AsyncClient, one: Asked, waiting: asyncio.Semaphore) -> None:
    async with waiting:
        begun = time.monotonic()
        try:
            one.answer = await client.classify(one.clip, idempotency_key=one.key)
        except ServiceError as error:
            print(f"not answered: {error}", flush=True)
        one.waited_seconds = time.monotonic() - begun


async def _ask_again(service: Service, asked: list[Asked]) -> None:
    waiting = asyncio.Semaphore(AT_A_TIME)

    async def ask(client: AsyncClient, one: Asked) -> None:
        async with waiting:
            one.again = await client.classify(one.clip, idempotency_key=one.key)

    async with AsyncClient(service.url) as client:
        await asyncio.gather(*(ask(client, one) for one in asked))


def _num_executions(url: str) -> int:
    """How often an execution was begun, by all replicas, those that have died included."""
    with closing(Database(url)) as database, database.reading() as connection:
        return sum(connection.execute(select(idempotent_answers.c.attempts)).scalars())


def expected_of(model: Path, clips: list[Path]) -> dict[Path, Prediction]:
    classifier = Classifier.load(model)
    expected = {clip: classifier.classify(clip) for clip in clips}
    pairs = [(one, other) for one in clips for other in clips if one != other]
    assert all(differ(expected[one], expected[other]) for one, other in pairs), "an answer to one fits another"
    return expected


def differ(one: Prediction, other: Prediction) -> bool:
    if [frame.seconds for frame in one.frames] != [frame.seconds for frame in other.frames]:
        return True
    pairs = [(one.action, other.action), *((a, b) for a, b in zip(one.frames, other.frames, strict=True))]
    return any(a is None or b is None or a.label != b.label or abs(a.score - b.score) > TOLERANCE for a, b in pairs)


if __name__ == "__main__":
    main()
