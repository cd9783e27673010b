"""A real HAProxy before several services, for tests: whoever is unready is asked no more."""

import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.require import need
from tests.running import free_port, status

CONFIG = """
defaults
    mode http
    timeout connect 5s
    timeout client 60s
    timeout server 60s
    timeout tunnel 1h
    timeout check 5s
    option redispatch
    retries 3
frontend all
    bind 127.0.0.1:{port}
    default_backend services
backend services
    option httpchk GET /readyz
{servers}
"""
START_SECONDS = 20.0


@contextmanager
def balanced(ports: Sequence[int]) -> Iterator[str]:
    """The URL of a proxy that asks the first of the services on these ports, the next where that one is unready."""
    port = free_port()
    servers = [
        f"    server s{number} 127.0.0.1:{own} check inter 200ms fall 1 rise 1{' backup' * (number > 0)}"
        for number, own in enumerate(ports)
    ]
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "haproxy.cfg"
        config.write_text(CONFIG.format(port=port, servers="\n".join(servers)))
        process = subprocess.Popen([need("haproxy"), "-db", "-f", config], stderr=subprocess.DEVNULL)
        try:
            deadline = time.monotonic() + START_SECONDS
            while status(port, "/livez") != 200:
                assert process.poll() is None and time.monotonic() < deadline, "HAProxy does not answer"
                time.sleep(0.05)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.kill()
            process.wait()
