"""`vidseq serve`: a service on this machine until it is told to stop, with nothing left behind. Knows no deployments.

check the port -> check the model (in a child) -> start a Ray of its own -> ready -> wait for a signal -> stop it all
"""

import http.client
import os
import secrets
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path

from vidseq.errors import OptionError

READY_TIMEOUT_SECONDS = 60.0
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def serve(
    model: str | Path,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    device: str = "cpu",
    announce: Callable[[str], None] = print,
) -> None:
    """Serve a model over HTTP; returns after SIGINT or SIGTERM, when every process it started is gone.

    `announce` is called with one line once the service answers. To be called in a process's main thread.

    Raises:
        OptionError: the address cannot be listened on, or the device cannot be used.
        CheckpointError: `model` is not a folder with a model that can be used.
    """
    refuse_taken(host, port)
    folder = Path(model).resolve()
    os.environ.update(_environment())
    with _signals_interrupt(), tempfile.TemporaryDirectory(prefix="vidseq-", ignore_cleanup_errors=True) as temp_dir:
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as child:
            checked = child.submit(check_model, folder, device=device)  # brings torch, which this process never needs
            from serving import app  # Ray reads the environment as it is imported; meanwhile the child is busy

            checked.result()
        args = app.ServiceArgs(model=str(folder), device=device)
        try:
            app.start(args, host=host, port=port, num_cpus=os.cpu_count() or 1, temp_dir=Path(temp_dir))
            url = await_ready(host, port, timeout_seconds=READY_TIMEOUT_SECONDS)
            announce(f"ready on {url} (docs at {url}/docs)")
            _wait_for_signal()
        finally:
            _ignore_signals()
            app.stop()
