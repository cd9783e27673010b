"""A real PostgreSQL in a process of its own, for tests: on the loopback, with a password, in a folder of its own."""

import os
import pwd
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg

from tests.require import need
from tests.running import free_port

USER = "vidseq"
PASSWORD = "correct-horse"
START_SECONDS = 60.0
# A test's server has nothing to lose when power fails.
SETTINGS = ("fsync=off", "full_page_writes=off", "shared_buffers=16MB", "listen_addresses=127.0.0.1")


@contextmanager
def running_postgres() -> Iterator[str]:
    """The URL of a PostgreSQL with an empty database, with its password."""
    port = free_port()
    # Directly under /tmp: the name of its socket may have 107 bytes, and it may not run as root, to whom others belong.
    with tempfile.TemporaryDirectory(prefix="pg-", dir="/tmp") as folder, tempfile.TemporaryFile() as output:
        data, secret = Path(folder, "data"), Path(folder, "password")
        secret.write_text(PASSWORD)
        data.mkdir(mode=0o700)
        for path in (Path(folder), data, secret):
            shutil.chown(path, _account())
        access = [f"--pwfile={secret}", f"--username={USER}", "--auth=scram-sha-256"]
        subprocess.run(
            [*_as_account(), need("initdb"), "--no-sync", "--encoding=UTF8", *access, data],
            cwd=folder,
            check=True,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        settings = [word for setting in (*SETTINGS, f"unix_socket_directories={folder}") for word in ("-c", setting)]
        process = subprocess.Popen(
            [*_as_account(), need("postgres"), "-D", data, "-p", str(port), *settings],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        try:
            url = f"postgresql://{USER}:{PASSWORD}@127.0.0.1:{port}/postgres"
            _await_answer(url, process)
            yield url
        finally:
            process.send_signal(3)  # SIGQUIT: at once, its children too
            process.wait()


@contextmanager
def empty_database(url: str, name: str) -> Iterator[str]:
    """The URL of a database of its own in a running PostgreSQL; connections that are left are cut."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"')
        try:
            yield url.rpartition("/")[0] + "/" + name
        finally:
            connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


def _account() -> str:
    """Who runs it: root may not."""
    return pwd.getpwuid(os.getuid()).pw_name if os.getuid() else "postgres"


def _as_account() -> list[str]:
    if os.getuid():
        return []
    account = _account()
    return [need("setpriv"), f"--reuid={account}", f"--regid={account}", "--clear-groups", "--"]


def _await_answer(url: str, process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + START_SECONDS
    while not _answers(url):
        assert process.poll() is None, "PostgreSQL ended as it started"
        assert time.monotonic() < deadline, "PostgreSQL does not answer"
        time.sleep(0.05)


def _answers(url: str) -> bool:
    try:
        psycopg.connect(url, connect_timeout=5).close()
    except psycopg.OperationalError:
        return False
    return True
