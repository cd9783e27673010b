"""The service without Ray: the same application, model and sandbox behind uvicorn, in one process of its own.

    python -m benchmarks.bare MODEL PORT

For benchmarks of the doors themselves (`--bare`): what Serve's proxy costs is not in their figures.
"""

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import uvicorn
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from tests.running import START_SECONDS, Service, free_port, status


def main() -> None:
    model, port = Path(sys.argv[1]), int(sys.argv[2])
    uvicorn.run(beside_health(application(model)), host="127.0.0.1", port=port, log_level="warning")


def application(model: Path) -> ASGIApp:
    import functools

    from serving.boxes import Boxes
    from serving.database.core import Database
    from serving.decoding import decode
    from serving.labeller import Labeller
    from serving.service_routes import Parts
    from serving.uploads.places import open_folder
    from serving.uploads.table import UploadSettings
    from serving.web import create_app
    from serving.web_settings import WebSettings
    from vidseq.config import Limits
    from vidseq.sandbox.box import Sandbox

    limits, sandbox = Limits(), Sandbox(required=False)
    boxes = Boxes(sandbox, limits)
    labeller = Labeller(model, name=None, device="cpu", limits=limits, sandbox=sandbox)
    labeller.answer_canary()
    live = labeller.live
    assert live is not None
    parts = Parts(
        classify=labeller.classify,
        models=lambda: labeller.models,
        decode=functools.partial(decode, picture=labeller.picture, limits=limits, sandbox=sandbox),
        sessions=PassingOnly(live),  # type: ignore[arg-type]
        uploads=open_folder(Database(f"sqlite://{model.parent}/vidseq.db"), model.parent / "uploads", UploadSettings()),
    )
    return create_app(parts, ready=boxes.why_not, metrics=None, keys=None, settings=WebSettings())


class PassingOnly:
    """Sessions of which nothing is kept: labels line by line need no more."""

    def __init__(self, live: object) -> None:
        self.live = live


def beside_health(app: ASGIApp) -> ASGIApp:
    """With /-/healthz, which Serve's proxy answers and the edge asks."""

    async def node(scope: Scope, receive: Receive, send: Send) -> None:
        if scope.get("path") == "/-/healthz":
            await PlainTextResponse("success")(scope, receive, send)
        else:
            await app(scope, receive, send)

    return node


@contextmanager
def running_bare(model: Path) -> Iterator[Service]:
    port = free_port()
    with tempfile.TemporaryFile() as output, tempfile.TemporaryDirectory() as scratch:
        command = [sys.executable, "-m", "benchmarks.bare", str(model), str(port)]
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT)
        service = Service(port, process, output, Path(scratch))
        try:
            deadline = time.monotonic() + START_SECONDS
            while status(port, "/readyz") != 200:
                assert process.poll() is None, service.said()
                assert time.monotonic() < deadline, service.said()
                time.sleep(0.1)
            yield service
        finally:
            process.terminate()
            process.wait(60)


if __name__ == "__main__":
    main()
