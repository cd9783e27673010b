"""A real Redis in a process of its own, for tests: on the loopback, with a password, nothing on disk."""

import select
import socket
import socketserver
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import redis

from tests.require import need
from tests.running import free_port

PASSWORD = "correct-horse"
START_SECONDS = 20.0


@contextmanager
def running_redis() -> Iterator[str]:
    """The URL of an empty Redis, with its password."""
    port = free_port()
    with tempfile.TemporaryFile() as output, tempfile.TemporaryDirectory() as folder:
        process = subprocess.Popen(
            [need("redis-server"), "-"], cwd=folder, stdin=subprocess.PIPE, stdout=output, stderr=subprocess.STDOUT
        )
        try:
            assert process.stdin is not None
            with process.stdin as config:
                config.write(f'port {port}\nbind 127.0.0.1\nsave ""\nappendonly no\nrequirepass {PASSWORD}\n'.encode())
            url = f"redis://:{PASSWORD}@127.0.0.1:{port}/0"
            await_answer(url, process)
            yield url
        finally:
            process.kill()  # it has nothing to save
            process.wait()


def await_answer(url: str, process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + START_SECONDS
    with redis.Redis.from_url(url) as client:
        while not answers(client):
            assert process.poll() is None, "Redis ended as it started"
            assert time.monotonic() < deadline, "Redis does not answer"
            time.sleep(0.02)


def answers(client: redis.Redis) -> bool:
    try:
        return bool(client.ping())
    except redis.ConnectionError:
        return False


@contextmanager
def losing_one_answer(url: str) -> Iterator[str]:
    """The same Redis through a wire that is cut once: after a script has run, before its answer is heard."""
    upstream = ("127.0.0.1", int(url.rpartition(":")[2].partition("/")[0]))
    losing = threading.Event()
    lost = threading.Event()

    class Wire(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with socket.create_connection(upstream) as server:
                other = {self.request: server, server: self.request}
                while True:
                    for end in select.select(list(other), [], [])[0]:
                        data = end.recv(2**16)
                        if b"EVALSHA" in data:
                            losing.set()
                        if not data or (end is server and losing.is_set() and not lost.is_set()):
                            lost.set()
                            return
                        other[end].sendall(data)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Wire) as proxy:
        proxy.daemon_threads = True
        threading.Thread(target=proxy.serve_forever, args=(0.05,)).start()
        try:
            yield url.replace(f":{upstream[1]}/", f":{proxy.server_address[1]}/")
        finally:
            proxy.shutdown()
    assert lost.is_set(), "nothing was lost"
