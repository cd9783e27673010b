"""Messages as they are sent: to the host that the URL names, in turn, over real sockets."""

import asyncio
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, closing, contextmanager, suppress
from ipaddress import ip_address
from pathlib import Path

import pytest

from serving.database.core import Database
from serving.jobs.addresses import Address
from serving.jobs.deliveries import Postman
from serving.jobs.settings import JobSettings, WebhookSettings
from tests.certificates import make_certificates
from tests.hook_server import listening
from tests.toy_jobs import OWNER, Kept, webhook

SECONDS = 20.0
SILENT_SECONDS = 3.0


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[Kept]:
    webhooks = WebhookSettings(allow_private=True, timeout_seconds=SILENT_SECONDS, pauses_seconds=(60.0,))
    with closing(Database(f"sqlite://{tmp_path}/vidseq.db")) as database:
        yield Kept(database, tmp_path / "uploads", JobSettings(poll_seconds=0.02, webhooks=webhooks))


def due(kept: Kept, url: str, *, owner: str = OWNER) -> str:
    """A message for this URL; the id of its job."""
    job = kept.job(owner=owner, webhook=webhook(url))
    kept.jobs.cancel(owner, job.id)
    return job.id


@asynccontextmanager
async def sending(postman: Postman) -> AsyncIterator[None]:
    task = asyncio.create_task(postman.run())
    try:
        async with asyncio.timeout(SECONDS):
            yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def until(holds: Callable[[], object]) -> None:
    while not holds():
        await asyncio.sleep(0.01)


@contextmanager
def asked_for_names(folder: Path) -> Iterator[tuple[int, list[str | None]]]:
    """A port that speaks TLS once, and the names that it is called by."""
    files, names = make_certificates(folder), list[str | None]()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files["RAY_TLS_SERVER_CERT"], files["RAY_TLS_SERVER_KEY"])
    context.sni_callback = lambda _socket, name, _context: names.append(name)

    def serve() -> None:
        connection, _ = listener.accept()
        with connection, suppress(OSError), context.wrap_socket(connection, server_side=True):
            pass  # it is not let in: nobody here knows who has signed its certificate

    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(SECONDS)
        thread = threading.Thread(target=serve)
        thread.start()
        yield listener.getsockname()[1], names
        thread.join(SECONDS)


def test_a_host_is_looked_up_and_greeted_as_the_url_spells_it(kept: Kept, tmp_path: Path) -> None:
    """IDNA 2003 makes strasse.de of strasse with a sharp s, which is somebody else."""
    asked: list[str] = []

    def look_up(host: str, port: int, *, allow_private: bool) -> Address:
        asked.append(host)
        return ip_address("127.0.0.1")

    async def work(port: int, names: list[str | None]) -> None:
        due(kept, f"https://xn--strae-oqa.de:{port}/hook")
        async with sending(Postman(kept.outbox, look_up=look_up)):
            await until(lambda: names)

    with asked_for_names(tmp_path) as (port, names):
        asyncio.run(work(port, names))
    assert asked == names == ["xn--strae-oqa.de"]


def test_an_owner_whose_receiver_never_answers_holds_up_nobody_elses(kept: Kept) -> None:
    """Its messages came first, and would take ten times as long."""

    async def work() -> None:
        for _ in range(10 * kept.settings.webhooks.max_at_once):
            due(kept, f"http://127.0.0.1:{silent.getsockname()[1]}", owner="silent")
        async with sending(Postman(kept.outbox)):
            await asyncio.sleep(SILENT_SECONDS / 4)  # all places are taken
            job_id = due(kept, hook.url)
            before = asyncio.get_running_loop().time()
            await until(lambda: hook.received)
            assert asyncio.get_running_loop().time() - before < 4 * SILENT_SECONDS
            await until(lambda: kept.jobs.deliveries(OWNER, job_id)[0].state == "delivered")

    with socket.create_server(("127.0.0.1", 0), backlog=128) as silent, listening() as hook:
        asyncio.run(work())
