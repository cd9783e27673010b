"""`vidseq serve`: a service on this machine until it is told to stop, with nothing left behind. Knows no deployments.

check the port -> check the model (in a child) -> start a Ray of its own -> ready -> wait for a signal -> stop it all
"""

import http.client
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ipaddress import ip_address
from pathlib import Path

from serving.children import none_left_over
from serving.keys import KEYS_VARIABLE, list_keys
from serving.sealing import load_keys, new_key
from serving.store import Lifetimes, open_store
from vidseq.config import Limits
from vidseq.errors import CheckpointError, InputError, OptionError

READY_TIMEOUT_SECONDS = 60.0
MAX_TEMP_NAME = 28
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)
REFUSALS: dict[int, type[InputError]] = {2: CheckpointError, 3: OptionError}  # exit statuses of serving.check
ANY_HOST = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # whoever listens on all addresses is asked at the first


def say(line: str) -> None:
    """Print it now: whoever reads a pipe waits for it."""
    print(line, flush=True)


def serve(
    model: str | Path,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    device: str = "cpu",
    num_replicas: int = 1,
    store: str | None = None,
    session_keys: Path | None = None,
    keys: Path | None = None,
    open_to_all: bool = False,
    require_sandbox: bool = False,
    min_share_seen: float = Limits().min_share_seen,
    announce: Callable[[str], None] = say,
) -> None:
    """Serve a model over HTTP; returns after SIGINT or SIGTERM, when every process it started is gone.

    What confines the decoders of videos on this machine is said on standard error; with `require_sandbox` it must be
    all that can.

    `announce` is called with one line once the service answers. To be called in the main thread of a process that has
    not imported Ray. Sessions are kept in `store` (see serving.store), sealed with the keys in the file `session_keys`;
    without them in a scratch file, with a key made for this occasion: they outlive a replica, but not the service.

    Whoever asks must show an API key of the file `keys` (see serving.keys). Without it the service is open, and listens
    on the loopback only, unless `open_to_all`. `min_share_seen` is that of vidseq.config.Limits.

    Raises:
        OptionError: the address cannot be listened on, or not without keys; the device, the store or a file of keys
            cannot be used; or the kernel does not offer the sandbox that is required.
        CheckpointError: `model` is not a folder with a model that can be used.
    """
    assert "ray" not in sys.modules, "Ray reads its environment when it is imported"
    refuse_taken(host, port)
    access = who_may(host, keys=keys, open_to_all=open_to_all)
    if num_replicas < 1:
        raise OptionError(f"--replicas: {num_replicas}; at least 1 is needed")
    folder = Path(model).resolve()
    with _signals_put_back(), _scratch_folder() as scratch, none_left_over():
        os.environ.update(_environment(scratch) | _session_environment(scratch, store=store, keys=session_keys))
        outcome = begin_check(folder, device=device, require_sandbox=require_sandbox)
        from serving import app  # reads the environment above, and takes a while as the child does

        print(outcome(), file=sys.stderr, flush=True)
        args = app.ServiceArgs(
            model=str(folder),
            device=device,
            keys=None if keys is None else keys.absolute(),
            open=keys is None,
            require_sandbox=require_sandbox,
            limits=Limits(min_share_seen=min_share_seen),
        )
        try:
            app.start(args, host=host, port=port, num_replicas=num_replicas, temp_dir=Path(scratch))
            url = await_ready(host, port, timeout_seconds=READY_TIMEOUT_SECONDS)
            announce(f"ready on {url} (docs at /docs), {access}")
            _wait_for_signal()
        finally:
            _ignore_signals()
            app.stop()


def who_may(host: str, *, keys: Path | None, open_to_all: bool) -> str:
    """For whom the service will be, in words for its log.

    Raises:
        OptionError: it would be for everybody, and nobody has said so; or two things were said at once; or `keys` is no
            file of keys.
    """
    if keys is not None:
        if open_to_all:
            raise OptionError(f"--open and --keys (or {KEYS_VARIABLE}) exclude each other: {keys}")
        num_live = sum(key.state(time.time()) == "live" for key in list_keys(keys))
        return f"for whoever shows a key of {keys} ({num_live} live now)"
    if open_to_all:
        return f"OPEN to everybody who reaches {host}: --open"
    if not _is_loopback(host):
        raise OptionError(
            f"without keys a service listens on the loopback only, and {host} is more: make one with"
            " `vidseq keys create` and give the file with --keys, or let everybody in with --open"
        )
    return "for everybody on this machine: no --keys"


def _is_loopback(host: str) -> bool:
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return all(ip_address(address[0]).is_loopback for *_, address in found)


def refuse_taken(host: str, port: int) -> None:
    """Before Ray has started: its proxy would share the port with another service of the same user.

    Raises:
        OptionError: the address cannot be listened on.
    """
    if not 1 <= port <= 65535:
        raise OptionError(f"the port is {port}; a number from 1 to 65535 is needed")
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections of before may linger
            probe.bind(address)
    except OSError as error:
        raise OptionError(f"cannot listen on port {port} of {host}: {error.strerror}") from None


def begin_check(folder: Path, *, device: str, require_sandbox: bool) -> Callable[[], str]:
    """Read the whole model in a child, as a replica will; call what is returned for the outcome.

    That is what confines the decoders of videos here, in words.

    Raises:
        CheckpointError: not a model that can be used.
        OptionError: not a device that can be used, or not the sandbox that is required.
    """
    child = subprocess.Popen(
        [sys.executable, "-P", "-m", "serving.check", folder, device, *["required"] * require_sandbox],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )

    def outcome() -> str:
        confinement, words = child.communicate()
        if child.returncode in REFUSALS:
            raise REFUSALS[child.returncode](words)
        assert child.returncode == 0, words
        return confinement.strip()

    return outcome


def await_ready(host: str, port: int, *, timeout_seconds: float) -> str:
    """The service's URL once /readyz answers 200."""
    deadline = time.monotonic() + timeout_seconds
    while (status := _get_status(ANY_HOST.get(host, host), port, "/readyz")) != 200:
        assert time.monotonic() < deadline, f"/readyz still answers {status} after {timeout_seconds:g} seconds"
        time.sleep(0.1)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _get_status(host: str, port: int, path: str) -> int | str:
    connection = http.client.HTTPConnection(host, port, timeout=10)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    except OSError as error:
        return str(error)
    finally:
        connection.close()


def _environment(scratch: str) -> dict[str, str]:
    """What all processes are told. Ray reads its part as it is imported."""
    return {
        "TMPDIR": scratch,  # torch makes a folder there as it is imported
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),  # else every process of this machine could run code here
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # on Linux, too, this means: the node's address is the loopback's
        "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": "serving.front:layers",
        "RAY_worker_niceness": "0",  # Ray's own is 15: everything else on the machine would come before the service
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_DISABLE_FAILURE_SIGNAL_HANDLER": "1",  # else a SIGTERM while starting prints a stack and aborts
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # else a warning about the future
        # glibc gives a CNN's activations back to the system after each batch and asks for them again: a quarter of the
        # encoder's time on a CPU went into page faults.
        "MALLOC_MMAP_THRESHOLD_": "1000000000",
        "MALLOC_TRIM_THRESHOLD_": "1000000000",
    }


def _session_environment(scratch: str, *, store: str | None, keys: Path | None) -> dict[str, str]:
    """Where replicas keep sessions, and with which keys. What is wrong with either is said before anything starts."""
    url = store or f"sqlite:///{scratch}/sessions.db"
    words = new_key() if keys is None else _read_keys(keys)
    open_store(url, lifetimes=Lifetimes(), keys=load_keys(words)).close()
    return {"VIDSEQ_SESSION_STORE": url, "VIDSEQ_SESSION_KEYS": words}


def _read_keys(path: Path) -> str:
    load_keys(path)  # says what is wrong with it
    return path.read_text()


def _scratch_folder() -> "tempfile.TemporaryDirectory[str]":
    """For Ray's logs and sockets. The name of a socket may have 107 bytes, of which Ray takes some 75."""
    folder = tempfile.gettempdir()
    return tempfile.TemporaryDirectory(prefix="vidseq-", dir=folder if len(folder) <= MAX_TEMP_NAME else "/tmp")


@contextmanager
def _signals_put_back() -> Iterator[None]:
    """A SIGTERM while starting unwinds as Ctrl-C does, so that what was begun is ended; handlers are put back."""
    before = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _wait_for_signal() -> None:
    told = threading.Event()
    for number in STOP_SIGNALS:
        signal.signal(number, lambda *_: told.set())  # Ray has put its own on SIGTERM
    told.wait()


def _ignore_signals() -> None:
    """From here on to stop is what is being done; to hurry it would leave something behind."""
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
