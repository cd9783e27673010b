"""A real server that speaks S3 over a folder, whose folders are its buckets: rclone, for tests."""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.running import free_port, status

RCLONE = Path(sys.executable).with_name("rclone")
START_SECONDS = 60.0


@contextmanager
def running_s3(folder: Path) -> Iterator[dict[str, str]]:
    """Yields what a process must have in its environment to find it."""
    port = free_port()
    command = [RCLONE, "serve", "s3", str(folder), "--addr", f"127.0.0.1:{port}", "--config", "/dev/null"]
    # What a test puts into the folder is there at once. Not 0s: a timer of rclone's then never rests, on every CPU.
    command += ["--dir-cache-time", "1ms", "--copy-links"]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + START_SECONDS
        while status(port, "/") is None:
            assert process.poll() is None and time.monotonic() < deadline, "rclone does not serve"
            time.sleep(0.05)
        yield {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
            "AWS_ACCESS_KEY_ID": "anybody",
            "AWS_SECRET_ACCESS_KEY": "anything",
            "AWS_REGION": "us-east-1",
            "AWS_REQUEST_CHECKSUM_CALCULATION": "when_required",  # uploads without a length are AWS's own
        }
    finally:
        process.terminate()
        process.wait()
