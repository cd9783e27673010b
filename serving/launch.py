"""`vidseq serve`: a service on this machine until it is told to stop, with nothing left behind. Knows no deployments.

check the port -> check the model (in a child) -> start a Ray of its own -> ready -> wait for a signal
    SIGHUP           -> every replica loads the folder's model -> all take it, or none does
    SIGTERM, SIGINT  -> unready -> finish what goes on -> stop it all
"""

import http.client
import os
import queue
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import closing
from ipaddress import ip_address
from pathlib import Path

from serving import request_log
from serving.aftermath import cleaned_up
from serving.children import none_left_over
from serving.current import Current, Lineup
from serving.database.core import Database
from serving.database.errors import DatabaseDown
from serving.database.urls import DATABASE
from serving.keys import KEYS_VARIABLE, list_keys
from serving.local_ray import ENVIRONMENT
from serving.port import held
from serving.sealing import load_keys, new_key
from serving.stopping import STOP_SIGNALS, handling, ignore_signals, unwind
from serving.store import Lifetimes, open_store
from serving.uploads.places import UPLOADS, open_folder, uploads_folder
from serving.uploads.table import UploadSettings
from vidseq.config import Limits
from vidseq.errors import CheckpointError, InputError, OptionError

READY_TIMEOUT_SECONDS = 60.0
DRAIN_SECONDS = 30.0
NOTICE_SECONDS = 1.0  # in which whoever asks /readyz may see that it is red, before somebody is sent away
MAX_TEMP_NAME = 28
REFUSALS: dict[int, type[InputError]] = {2: CheckpointError, 3: OptionError}  # exit statuses of serving.check
ANY_HOST = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # whoever listens on all addresses is asked at the first


def say(line: str) -> None:
    """Print it now: whoever reads a pipe waits for it."""
    print(line, flush=True)


def say_aside(line: str) -> None:
    """Where standard output is for lines of JSON."""
    print(line, file=sys.stderr, flush=True)


def serve(
    model: str | Path,
    *,
    also: Sequence[Path] = (),
    host: str = "127.0.0.1",
    port: int = 8000,
    device: str = "cpu",
    num_replicas: int = 1,
    store: str | None = None,
    database: str | None = None,
    uploads: Path | None = None,
    private_webhooks: bool = False,
    session_keys: Path | None = None,
    keys: Path | None = None,
    open_to_all: bool = False,
    require_sandbox: bool = False,
    require_signature: Sequence[Path] | None = None,
    min_share_seen: float = Limits().min_share_seen,
    docs: bool | None = None,
    allowed_origins: Collection[str] = (),
    log: request_log.Form = "text",
    drain_seconds: float = DRAIN_SECONDS,
    announce: Callable[[str], None] = say,
) -> None:
    """Serve a model over HTTP; returns after SIGINT or SIGTERM, when every process it started is gone.

    Beside it those of `also`, each a model or a folder of models, that see videos as it does: one pass of the backbone
    for all of them.

    Requests that are being answered then get up to `drain_seconds` to end; open streams are told to go elsewhere. After
    SIGHUP what is in the folder `model` then, which may be a link that was switched, takes the place of the model that
    answers, if every replica can use it; else that one goes on, and why is said on standard error. Where models have
    only come to or gone from `also`, they are added or removed.

    What confines the decoders of videos on this machine is said on standard error; with `require_sandbox` it must be
    all that can.

    `announce` is called with one line once the service answers. To be called in the main thread of a process that has
    not imported Ray. Sessions are kept in `store` (see serving.store), sealed with the keys in the file `session_keys`;
    without them in a scratch file, with a key made for this occasion: they outlive a replica, but not the service. The
    same holds for what is kept in `database` (see serving.database), as the answers to requests with a key, and for
    uploads, whose bytes lie in the folder `uploads`, or else beside the file of a SQLite.
    With `private_webhooks` those who make jobs may have messages sent to private addresses, and over http.

    Whoever asks must show an API key of the file `keys` (see serving.keys). Without it the service is open, and listens
    on the loopback only, unless `open_to_all`. `min_share_seen` is that of vidseq.config.Limits, `allowed_origins` that
    of serving.web_settings. `docs`, the page of the API, is shown on the loopback where nothing is said. A model is
    served only if one of the public keys `require_signature` has signed it; None asks for no signature. A line for each
    request that is over is printed in the form `log`.

    Raises:
        OptionError: the address cannot be listened on, or not without keys; the device, the store, the database,
            a file of keys or an origin cannot be used; or the kernel does not offer the sandbox that is required.
        CheckpointError: `model` is not a folder with a model that can be used, and that is signed where it must be.
        RayNotStarted: this machine is too busy.
    """
    assert "ray" not in sys.modules, "Ray reads its environment when it is imported"
    access = who_may(host, keys=keys, open_to_all=open_to_all)
    for origin in allowed_origins:
        refuse_malformed_origin(origin)
    shows_docs = _is_loopback(host) if docs is None else docs
    if num_replicas < 1:
        raise OptionError(f"--replicas: {num_replicas}; at least 1 is needed")
    lineup = read_lineup(Path(model), also)
    told = queue.SimpleQueue[int]()  # signals, which a handler may add while one is being read
    # A SIGHUP waits until the service answers: the model may have been switched after it was loaded.
    starting = {signal.SIGHUP: lambda number, _frame: told.put(number), signal.SIGTERM: unwind}
    with (
        held(host, port),
        handling(starting),
        _scratch_folder() as scratch,
        request_log.printed(Path(scratch), say) as pipe,
        none_left_over(),
        cleaned_up(scratch),
    ):
        os.environ.update(_environment(scratch) | _session_environment(scratch, store=store, keys=session_keys))
        os.environ.update(_database_environment(scratch, database=database, keys=session_keys, uploads=uploads))
        trusted_keys = None if require_signature is None else tuple(key.resolve() for key in require_signature)
        outcome = begin_check(
            lineup.model,
            also=lineup.also,
            device=device,
            require_sandbox=require_sandbox,
            trusted_keys=trusted_keys,
        )
        current = Current(Path(scratch) / "models", lineup)  # what a replica that starts later on is to load
        from serving import (
            app,
            arguments,
            rollout,
            steer,
        )  # read the environment above, and take a while as the child does
        from serving.jobs.settings import JobSettings, WebhookSettings
        from serving.web_settings import WebSettings

        print(outcome(), file=sys.stderr, flush=True)
        args = arguments.ServiceArgs(
            model=str(current.model),
            also=(str(current.also),),
            device=device,
            keys=None if keys is None else keys.absolute(),
            open=keys is None,
            require_sandbox=require_sandbox,
            require_signature=trusted_keys,
            limits=Limits(min_share_seen=min_share_seen),
            log=arguments.RequestLog(form=log, pipe=pipe),
            web=WebSettings(docs=shows_docs, allowed_origins=frozenset(allowed_origins)),
            jobs=JobSettings(webhooks=WebhookSettings(allow_private=private_webhooks)),
        )
        try:
            app.start(args, host=host, port=port, num_replicas=num_replicas, temp_dir=Path(scratch))
            url = await_ready(host, port, timeout_seconds=READY_TIMEOUT_SECONDS)
            announce(f"ready on {url}{' (docs at /docs)' if shows_docs else ''}, {access}")
            for number in _signals(told):
                if number != signal.SIGHUP:
                    break
                rollout.roll_out(Path(model), also, current=current, announce=announce)
            ignore_signals()
            notice_seconds = NOTICE_SECONDS if number == signal.SIGTERM else 0.0  # nobody balances loads to a terminal
            steer.drain(notice_seconds=notice_seconds, limit_seconds=drain_seconds)
        finally:
            ignore_signals()
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


def refuse_malformed_origin(origin: str) -> None:
    """Raises OptionError: no page is of this origin."""
    from serving.origins import checked_origin  # brings starlette

    try:
        checked_origin(origin)
    except ValueError as error:
        raise OptionError(f"--allow-origin: {error}") from None


def _is_loopback(host: str) -> bool:
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return all(ip_address(address[0]).is_loopback for *_, address in found)


def read_lineup(model: Path, also: Sequence[Path]) -> Lineup:
    """Which models are to be served. Raises OptionError: one of `also` is neither a model nor a folder of models."""
    for place in also:
        if not place.is_dir():
            raise OptionError(f"--also: {place} is neither a model's folder nor a folder of models")
    return Lineup.of(model, also)


def begin_check(
    folder: Path,
    *,
    device: str,
    require_sandbox: bool,
    also: Sequence[Path] = (),
    trusted_keys: Sequence[Path] | None = None,
) -> Callable[[], str]:
    """Read whole models in a child, as a replica will; call what is returned for the outcome.

    That is what confines the decoders of videos here, in words, and what else is worth saying.

    Raises:
        CheckpointError: not a model that can be used, or not one that is trusted.
        OptionError: not a device that can be used, or not the sandbox that is required; or one of `also` cannot share a
            look at videos with the first.
    """
    child = subprocess.Popen(
        [
            *(sys.executable, "-P", "-m", "serving.check", folder, f"--device={device}"),
            *(f"--also={place}" for place in also),
            *["--require-sandbox"] * require_sandbox,
            *(f"--require-signature={key}" for key in trusted_keys or ()),
        ],
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
        "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": "serving.front:layers",
        "RAY_worker_niceness": "0",  # Ray's own is 15: everything else on the machine would come before the service
        # A replica whose model is stuck can finish nothing: Serve would wait for it, and keep its CPUs from the next.
        "RAY_SERVE_FORCE_STOP_UNHEALTHY_REPLICAS": "1",
        # Ray's own figures: any free port, where its fixed ones are those of every other Ray on the machine, too.
        "AUTOSCALER_METRIC_PORT": "0",
        "DASHBOARD_METRIC_PORT": "0",
        **ENVIRONMENT,
    }


def _session_environment(scratch: str, *, store: str | None, keys: Path | None) -> dict[str, str]:
    """Where replicas keep sessions, and with which keys. What is wrong with either is said before anything starts."""
    url = store or f"sqlite:///{scratch}/sessions.db"
    words = new_key() if keys is None else _read_keys(keys)
    open_store(url, lifetimes=Lifetimes(), keys=load_keys(words)).close()
    return {"VIDSEQ_SESSION_STORE": url, "VIDSEQ_SESSION_KEYS": words}


def _database_environment(
    scratch: str, *, database: str | None, keys: Path | None, uploads: Path | None
) -> dict[str, str]:
    """Where replicas keep what outlives them. Its tables and folder are made now, and what is wrong is said first."""
    if database is not None and keys is None:
        raise OptionError(
            "what is kept in --database outlives the service, and so must the keys that seal it: name a file of them "
            "with --session-keys"
        )
    url = database or f"sqlite:///{scratch}/vidseq.db"
    with closing(Database(url)) as opened:
        try:
            opened.prepare()
        except DatabaseDown as error:
            raise OptionError(f"{opened.name} cannot be used now: {error.reason}") from None
        folder = uploads_folder(opened, named=uploads)
        if folder is not None:
            open_folder(opened, folder, UploadSettings())
    return {DATABASE: url, UPLOADS: "" if folder is None else str(folder)}


def _read_keys(path: Path) -> str:
    load_keys(path)  # says what is wrong with it
    return path.read_text()


def _scratch_folder() -> "tempfile.TemporaryDirectory[str]":
    """For Ray's logs and sockets. The name of a socket may have 107 bytes, of which Ray takes some 75."""
    folder = tempfile.gettempdir()
    return tempfile.TemporaryDirectory(prefix="vidseq-", dir=folder if len(folder) <= MAX_TEMP_NAME else "/tmp")


def _signals(told: "queue.SimpleQueue[int]") -> Iterator[int]:
    """Signals as they come, one after the other, and before them those that have come already."""
    for number in (signal.SIGHUP, *STOP_SIGNALS):
        signal.signal(number, lambda number, _frame: told.put(number))  # Ray has put its own on SIGTERM
    while True:
        yield told.get()
