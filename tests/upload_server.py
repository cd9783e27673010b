"""A web server with uploads in a process of its own, for tests that kill it while it takes one."""

from pathlib import Path

import uvicorn

from serving.database.core import Database
from serving.uploads.places import open_folder
from serving.uploads.table import UploadSettings
from tests.web_server import toy_app


def serve_at(port: int, url: str, folder: Path) -> None:
    uploads = open_folder(Database(url), folder, UploadSettings(min_free_bytes=1))
    uvicorn.run(toy_app(uploads=uploads), host="127.0.0.1", port=port, log_config=None)
