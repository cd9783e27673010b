"""What accounts and forgetting cost: CPU of a request with and without them, of a write of accounts, of a deletion.

    python -m benchmarks.owners [--requests 1000]

Requests go through the whole application in this process, without a socket: what is compared is the same but for the
ledger, in turns. Deletions are timed at the client's side; a real Redis and a real PostgreSQL do their part elsewhere.
"""

import argparse
import asyncio
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from serving.database.core import Database
from serving.once.kept import Answer, Claim, Kept, OnceSettings
from serving.once.question import Question
from serving.sealing import Vault, load_keys, new_key
from serving.store import Lifetimes, open_store
from serving.usage.ledger import Ledger
from serving.usage.table import UsageTable
from serving.usage.used import Used
from tests.postgres_server import running_postgres
from tests.redis_server import running_redis
from tests.stores import new
from tests.web_server import toy_app

ROUNDS, NUM_KEYS, NUM_SESSIONS, NUM_ANSWERS = 7, 100, 1_000, 1_000
OWNER = "0123456789ab"
PIECE, NUM_PIECES = bytes(2**16), 16


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=1000, help="of each kind and round")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        print("| | CPU-us |\n|---|---|")
        requests(folder, asked.requests)
        print("\n| | CPU-ms | ms |\n|---|---|---|")
        with running_postgres() as postgres, running_redis() as redis:
            for kind, url in (("SQLite", f"sqlite://{folder}/vidseq.db"), ("PostgreSQL", postgres)):
                with closing(Database(url)) as database:
                    accounts(database, kind)
                    answers(database, kind)
            for kind, url in (("SQLite", f"sqlite://{folder}/sessions.db"), ("Redis", redis)):
                sessions(url, kind)


def requests(folder: Path, num_requests: int) -> None:
    with closing(Database(f"sqlite://{folder}/usage.db")) as database:
        ledger = Ledger(UsageTable(database), by_key=True)
        kinds: dict[str, Ledger | None] = {"a request": None, "with accounts": ledger}
        spent: dict[str, list[float]] = {name: [] for name in kinds}
        for _ in range(ROUNDS):
            for name, charged in kinds.items():
                spent[name].append(asyncio.run(ask(toy_app(ledger=charged), num_requests)))
        for name, seconds in spent.items():
            print(f"| {name} (1 MB in 16 pieces), median of {ROUNDS} rounds | {1e6 * statistics.median(seconds):.0f} |")
        begun = cpu_seconds()
        for _ in range(100_000):
            ledger(OWNER, Used(received_bytes=65_536))
        print(f"| one charge | {1e6 * (cpu_seconds() - begun) / 100_000:.1f} |")


async def ask(app: Any, num_requests: int) -> float:
    """CPU-seconds a request, one after the other, as a server would hand them over; the first fifty do not count."""
    headers = [(b"content-type", b"application/octet-stream"), (b"content-length", str(2**20).encode())]
    scope = {"type": "http", "method": "POST", "path": "/v1/classify", "raw_path": b"/v1/classify", "root_path": ""}
    async with app.router.lifespan_context(app):
        for _ in range(50):
            await one_request(app, scope | {"query_string": b"", "headers": headers})
        begun = cpu_seconds()
        for _ in range(num_requests):
            await one_request(app, scope | {"query_string": b"", "headers": headers})
        return (cpu_seconds() - begun) / num_requests


async def one_request(app: Any, scope: dict[str, Any]) -> None:
    pieces = [PIECE] * NUM_PIECES

    async def receive() -> dict[str, Any]:
        if not pieces:
            await asyncio.sleep(3600)  # the client waits for its answer
        return {"type": "http.request", "body": pieces.pop(), "more_body": bool(pieces)}

    async def send(message: dict[str, Any]) -> None:
        assert message.get("status", 200) == 200, message

    await app(scope, receive, send)


def accounts(database: Database, kind: str) -> None:
    ledger = Ledger(UsageTable(database), by_key=True)
    ledger("nobody", Used(requests=1))
    ledger.flush()  # makes the tables
    for number in range(NUM_KEYS):
        ledger(f"{number:012x}", Used(requests=1, received_bytes=1))
    told(f"{kind}: accounts of {NUM_KEYS} keys written", ledger.flush)


def answers(database: Database, kind: str) -> None:
    kept = Kept(database, Vault(load_keys(new_key())), OnceSettings())
    for number in range(NUM_ANSWERS):
        claim = kept.claim(Question(OWNER, number.to_bytes(32), b"a" * 32, "0" * 64))
        assert isinstance(claim, Claim)
        kept.keep(claim, Answer(200, bytes(range(256)) * 4))
    told(f"{kind}: {NUM_ANSWERS:,} kept answers forgotten", lambda: kept.forget(OWNER))


def sessions(url: str, kind: str) -> None:
    with closing(open_store(url, lifetimes=Lifetimes(), keys=load_keys(new_key()))) as store:
        for number in range(NUM_SESSIONS):
            store.create(new(f"s{number}", owner=OWNER))
        told(f"{kind}: {NUM_SESSIONS:,} sessions of 20 KB forgotten", lambda: store.forget_all(OWNER))


def told(name: str, work: Callable[[], int]) -> None:
    begun, begun_cpu = time.perf_counter(), cpu_seconds()
    assert work() in (NUM_KEYS, NUM_SESSIONS, NUM_ANSWERS)
    spent, waited = cpu_seconds() - begun_cpu, time.perf_counter() - begun
    print(f"| {name} | {1000 * spent:.0f} | {1000 * waited:.0f} |")


def cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    main()
