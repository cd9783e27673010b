"""Where the files of uploads lie: in a folder that somebody has named, or beside a SQLite. Knows no environment."""

from pathlib import Path

from serving.database.core import Database
from serving.database.urls import file_of
from serving.uploads.errors import StorageDown
from serving.uploads.table import UploadSettings
from serving.uploads.uploads import Uploads
from vidseq.errors import OptionError

UPLOADS = "VIDSEQ_UPLOADS"  # of the environment: a folder, the same for all nodes


def uploads_folder(database: Database, *, named: Path | str | None) -> Path | None:
    """Of the uploads that `database` knows; None where nobody has said so, as with a PostgreSQL."""
    if named:
        return Path(named).absolute()
    path = file_of(database.url)
    return None if path is None else path.with_name(f"{path.stem}-uploads")


def open_folder(database: Database, folder: Path, settings: UploadSettings) -> Uploads:
    """Raises OptionError: it cannot be made, or not be written to."""
    uploads = Uploads(database, folder, settings)
    try:
        uploads.prepare()
    except StorageDown as error:
        raise OptionError(f"{folder} cannot be the folder of uploads: {error.reason}") from None
    return uploads
