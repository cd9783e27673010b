"""A web server in a process of its own, for tests that kill it or stop it while it executes."""

import time
from pathlib import Path
from typing import Any, BinaryIO

import uvicorn

from serving.database.core import Database
from serving.once.kept import Kept, OnceSettings
from serving.once.once import Once
from serving.sealing import Vault, load_keys
from tests.web_server import count_bytes, toy_app
from vidseq.schemas import Prediction


def serve_at(port: int, url: str, keys: str, gate: Path) -> None:
    """It says where it has begun to execute, and waits until `gate` is there. Its answer tells who it is."""

    def classify(video: BinaryIO, **options: Any) -> Prediction:
        gate.with_suffix(".entered").touch()
        while not gate.exists():
            time.sleep(0.01)
        prediction = count_bytes(video, **options)
        timings = prediction.timings.model_copy(update={"total_ms": float(port)})
        return prediction.model_copy(update={"timings": timings})

    once = Once(Kept(Database(url), Vault(load_keys(keys)), OnceSettings(lease_seconds=2.0)))
    uvicorn.run(toy_app(classify, once=once), host="127.0.0.1", port=port, log_config=None)
