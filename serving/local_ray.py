"""A Ray to work on: the one there is, or a quiet one of our own that leaves nothing behind. Knows nothing of models.

Ray reads much of its environment as it is imported, so it is imported here, not above.
"""

import logging
import os
import secrets
import signal
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Any

from serving.aftermath import clean_up, cleaned_up, end_all
from serving.stopping import handling, ignore_signals, unwind
from vidseq import memory
from vidseq.errors import VidseqError

# With it a SIGTERM prints a stack, and aborts this process after three seconds, whatever it is at.
_WITHOUT_FAILURE_HANDLER = {"RAY_DISABLE_FAILURE_SIGNAL_HANDLER": "1"}

ENVIRONMENT: Mapping[str, str] = {
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # on Linux, too, this means: the node's address is the loopback's
    **_WITHOUT_FAILURE_HANDLER,
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # else a warning about the future
    **memory.ENVIRONMENT,
}
"""What every process of a Ray of our own is told."""

_OBJECT_STORE_BYTES = 256 * 2**20  # neither clips nor frames pass through it


class RayNotStarted(VidseqError):
    code = "ray/not-started"


@contextmanager
def local_ray(*, num_cpus: int | None = None) -> Iterator[None]:
    """Ray, connected: the one this process already has, else the cluster of `RAY_ADDRESS`, else a fresh local one.

    The fresh one asks for a token, listens on the loopback alone (if nobody has imported Ray before) and has no
    dashboard. Its processes and files are gone at the end, whichever way that comes; a SIGTERM raises SystemExit.

    Args:
        num_cpus: CPUs that the fresh Ray may hand out; None for all of this machine.

    Raises:
        RayNotStarted: this machine is too busy to start it.
    """
    if "ray" in sys.modules and sys.modules["ray"].is_initialized():
        yield
        return
    with handling({signal.SIGTERM: unwind}), ExitStack() as stack:
        _prepare_environment(_WITHOUT_FAILURE_HANDLER)
        options: dict[str, Any] = {"address": os.environ.get("RAY_ADDRESS")}
        if options["address"] is None:
            _prepare_environment(_own_ray())
            folder = tempfile.mkdtemp(prefix="vidseq-ray-", dir=_short_folder())
            stack.enter_context(cleaned_up(folder))
            stack.callback(clean_up, folder)  # a worker that was still starting would make its folders again
            options = {"address": "local", "num_cpus": num_cpus, "include_dashboard": False, "_temp_dir": folder}
            options["object_store_memory"] = _OBJECT_STORE_BYTES
        import ray

        stack.callback(ray.shutdown)
        start_ray(**options, hushed=True, logging_level=logging.ERROR, log_to_driver=False)
        signal.signal(signal.SIGTERM, unwind)  # Ray's own would end its processes before what uses them has unwound
        stack.callback(ignore_signals)
        yield


def start_ray(*, hushed: bool = False, **options: Any) -> None:
    """`ray.init(**options)`; one of our own is begun a second time where it needs longer than the 30 s that Ray waits.

    Args:
        hushed: what Ray writes on standard error meanwhile is dropped.

    Raises:
        RayNotStarted: this machine is too busy.
    """
    if _has_started(options, hushed=hushed):
        return
    if (folder := options.get("_temp_dir")) is not None:
        print(f"vidseq: {_too_slow()}; it is begun once more", file=sys.stderr, flush=True)
        end_all(folder)
        if _has_started(options, hushed=hushed):
            return
    raise RayNotStarted(f"{_too_slow()}; try again when there is less of it")


def _has_started(options: Mapping[str, Any], *, hushed: bool) -> bool:
    import ray

    try:
        with _hushed() if hushed else nullcontext():
            ray.init(**options)
    except Exception as error:
        if type(error) is not Exception:  # Ray has no name for this one (Node.__init__ of Ray 2.60)
            raise
        return False
    return True


def _too_slow() -> str:
    load, num_cpus = os.getloadavg()[0], os.cpu_count()
    return f"Ray did not start within its 30 seconds: {num_cpus} CPUs have work for {load:.0f} (the load average) here"


def _prepare_environment(variables: Mapping[str, str]) -> None:
    """What Ray is told, now and for as long as this process lives: Ray keeps the first token it reads."""
    for name, value in variables.items():
        os.environ.setdefault(name, value)


def _own_ray() -> dict[str, str]:
    return {
        "RAY_AUTH_TOKEN": secrets.token_hex(32),  # else Ray makes one in the home folder, and keeps it
        "RAY_BACKEND_LOG_LEVEL": "fatal",  # Ray Data's own use of actors makes Ray's core complain (ray issue 57733)
        **ENVIRONMENT,
    }


@contextmanager
def _hushed() -> Iterator[None]:
    """What C++ writes on standard error is dropped: Ray's core says there which log level it was given."""
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def _short_folder() -> str:
    """Where temporary folders go; /tmp if that is too deep for Ray's sockets, whose names may have 107 bytes."""
    folder = tempfile.gettempdir()
    return folder if len(folder) <= 30 else "/tmp"
