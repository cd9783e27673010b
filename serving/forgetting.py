"""Forget the videos of a key, and all that was derived from them, where no service runs. Knows no HTTP."""

from contextlib import closing
from pathlib import Path

from serving.database.core import Database
from serving.files import refuse_missing
from serving.jobs.deleting import forget_jobs
from serving.keys import checked_id
from serving.once.kept import Kept, OnceSettings
from serving.sealing import Vault, load_keys, new_key
from serving.store import Lifetimes, open_store
from serving.uploads.places import uploads_folder
from serving.uploads.table import UploadSettings, UploadTable
from serving.uploads.uploads import Uploads
from vidseq.errors import OptionError
from vidseq.schemas import Forgotten


def forget(key_id: str, *, database: str | None, store: str | None, uploads: Path | None = None) -> Forgotten:
    """What is sealed need not be opened for that: nobody's sealing keys are needed.

    `uploads` is the folder of the uploads that `database` knows; None: it is beside the file of a SQLite.

    Raises:
        OptionError: not the id of a key; a URL or a folder that cannot be used, or of a file that is not there; or
            the key has uploads, and nobody has said where.
        StoreDown, DatabaseDown: ask again; what was deleted is.
    """
    checked_id(key_id)
    for url in filter(None, (database, store)):
        refuse_missing(url)
    num_sessions = num_answers = num_uploads = num_jobs = 0
    if store is not None:
        with closing(open_store(store, lifetimes=Lifetimes(), keys=())) as sessions:
            num_sessions = sessions.forget_all(key_id)
    if database is not None:
        with closing(Database(database)) as opened:
            num_jobs = forget_jobs(opened, key_id)
            num_uploads = _forget_uploads(opened, key_id, uploads)
            num_answers = Kept(opened, Vault(load_keys(new_key())), OnceSettings()).forget(key_id)
    return Forgotten(sessions=num_sessions, answers=num_answers, uploads=num_uploads, jobs=num_jobs)


def _forget_uploads(database: Database, key_id: str, named: Path | None) -> int:
    folder = uploads_folder(database, named=named)
    if folder is not None:
        return Uploads(database, folder).forget(key_id)
    if UploadTable(database, UploadSettings()).has_any(key_id):
        raise OptionError("this key has uploads, and nobody has said in which folder: name it with --uploads")
    return 0
