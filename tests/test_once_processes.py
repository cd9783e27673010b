"""Two processes of the web and one database: one of them is killed, or stopped for a while, while it executes."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx2
import pytest

from serving.sealing import new_key
from tests.once_server import serve_at
from tests.running import free_port
from tests.test_once import ask
from tests.web_server import wait_until

SPAWN = multiprocessing.get_context("spawn")
PATIENCE_SECONDS = 120.0  # 3 on an idle machine

Server = tuple[int, httpx2.Client]


@contextmanager
def two_servers(folder: Path) -> Iterator[tuple[Server, Server]]:
    """The process ids and clients of one that waits at the gate `folder/shut`, and of one that waits for nothing."""
    (folder / "open").touch()
    url, keys = f"sqlite://{folder}/vidseq.db", new_key()
    ports = [free_port(), free_port()]
    gates = [folder / "shut", folder / "open"]
    children = [
        SPAWN.Process(target=serve_at, args=(port, url, keys, gate)) for port, gate in zip(ports, gates, strict=True)
    ]
    for child in children:
        child.start()
    clients = [httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE_SECONDS) for port in ports]
    try:
        for client in clients:
            wait_until(lambda client=client: answers(client), seconds=PATIENCE_SECONDS)
        first, second = [(child.pid or 0, client) for child, client in zip(children, clients, strict=True)]
        yield first, second
    finally:
        for child, client in zip(children, clients, strict=True):
            client.close()
            child.kill()
            child.join()


def answers(client: httpx2.Client) -> bool:
    with suppress(httpx2.ConnectError):
        return client.get("/livez").status_code == 200
    return False


def asked_beside(asking: Callable[[], httpx2.Response]) -> tuple[threading.Thread, list[httpx2.Response]]:
    heard: list[httpx2.Response] = []

    def listen() -> None:
        with suppress(httpx2.HTTPError):  # of one who is killed
            heard.append(asking())

    thread = threading.Thread(target=listen)
    thread.start()
    return thread, heard


@pytest.mark.slow
def test_what_a_killed_process_was_executing_is_executed_by_another_after_its_lease(tmp_path: Path) -> None:
    with two_servers(tmp_path) as ((pid, first), (_, second)):
        asking, heard = asked_beside(lambda: ask(first, "a"))
        wait_until((tmp_path / "shut.entered").exists, seconds=PATIENCE_SECONDS)
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: ask(second, "a").status_code == 200, seconds=PATIENCE_SECONDS)
        assert ask(second, "a").headers["Idempotency-Replayed"] == "true"
        asking.join()
    assert heard == []


@pytest.mark.slow
def test_a_process_that_was_stopped_for_longer_than_its_lease_gives_the_answer_of_another(tmp_path: Path) -> None:
    with two_servers(tmp_path) as ((pid, first), (_, second)):
        asking, heard = asked_beside(lambda: ask(first, "a"))
        wait_until((tmp_path / "shut.entered").exists, seconds=PATIENCE_SECONDS)
        os.kill(pid, signal.SIGSTOP)
        wait_until(lambda: ask(second, "a").status_code == 200, seconds=PATIENCE_SECONDS)
        (tmp_path / "shut").touch()
        os.kill(pid, signal.SIGCONT)
        asking.join()
        assert heard[0].headers["Idempotency-Replayed"] == "true"
        assert heard[0].content == ask(second, "a").content
