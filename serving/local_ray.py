"""A Ray to work on: the one there is, or a quiet one of our own that leaves nothing behind. Knows nothing of models."""

import functools
import logging
import os
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

import ray

_OBJECT_STORE_BYTES = 256 * 2**20  # neither clips nor frames pass through it


@contextmanager
def local_ray(*, num_cpus: int | None = None) -> Iterator[None]:
    """Ray, connected: the one this process already has, else the cluster of `RAY_ADDRESS`, else a fresh local one.

    The fresh one has no dashboard, asks for a token (some of its ports listen on every interface, whatever it is
    told), and its processes and files are gone at the end, whichever way that comes.

    Args:
        num_cpus: CPUs that the fresh Ray may hand out; None for all of this machine.
    """
    if ray.is_initialized():
        yield
        return
    quiet = {"logging_level": logging.ERROR, "log_to_driver": False}
    if address := os.environ.get("RAY_ADDRESS"):
        ray.init(address, **quiet)
        yield from _until_shutdown()
        return
    # Ray keeps the first token it reads for as long as the process lives, so both stay in the environment.
    os.environ.setdefault("RAY_AUTH_TOKEN", _token())
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    with tempfile.TemporaryDirectory(prefix="vidseq-ray-", dir=_short_folder()) as folder:
        ray.init(
            "local",
            num_cpus=num_cpus,
            include_dashboard=False,
            object_store_memory=_OBJECT_STORE_BYTES,
            _temp_dir=folder,
            **quiet,
        )
        yield from _until_shutdown()


def _until_shutdown() -> Iterator[None]:
    try:
        yield
    finally:
        ray.shutdown()


@functools.cache
def _token() -> str:
    return secrets.token_hex(32)


def _short_folder() -> str:
    """Where temporary folders go; /tmp if that is too deep for Ray's sockets, whose names may have 107 bytes."""
    folder = tempfile.gettempdir()
    return folder if len(folder) <= 30 else "/tmp"
