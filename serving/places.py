"""Where a node keeps what it keeps: its environment says so, as both URLs and keys are secrets. Knows no Ray."""

import logging
import os
from contextlib import suppress
from typing import TYPE_CHECKING

from serving.database.core import Database
from serving.database.errors import DatabaseDown
from serving.database.urls import DATABASE, is_file
from serving.jobs.background import Background
from serving.jobs.dispatcher import Execute
from serving.jobs.jobs import Jobs
from serving.jobs.settings import JobSettings
from serving.once.kept import Kept, OnceSettings
from serving.once.once import Once
from serving.sealing import Tokens, Vault, load_keys
from serving.sessions import Sessions, SessionSettings
from serving.store import open_store
from serving.uploads.places import UPLOADS, open_folder, uploads_folder
from serving.uploads.table import UploadSettings
from serving.uploads.uploads import Uploads
from serving.usage.used import Charge
from vidseq.errors import OptionError

if TYPE_CHECKING:  # with it comes torch
    from vidseq.live import Live

logger = logging.getLogger("ray.serve")  # where a replica's log goes

STORE, KEYS = "VIDSEQ_SESSION_STORE", "VIDSEQ_SESSION_KEYS"  # in the environment of every node


def open_sessions(live: "Live", settings: SessionSettings, *, charge: Charge, num_nodes: int) -> Sessions:
    """Sessions as the environment of this node says.

    Raises:
        OptionError: it says nothing or something wrong, or names one machine's file for a cluster of several.
    """
    url, keys = (os.environ.get(name, "") for name in (STORE, KEYS))
    if not url or not keys:
        raise OptionError(f"{STORE} and {KEYS} are needed in the environment of every node: see deploy/")
    if url.startswith("sqlite"):
        _refuse_several(num_nodes, STORE, instead="a Redis")
    sealing = load_keys(keys)
    store = open_store(url, lifetimes=settings.lifetimes, keys=sealing)
    return Sessions(live, store=store, tokens=Tokens(sealing), settings=settings, charge=charge)


def open_database(*, num_nodes: int) -> Database:
    """Where the environment of this node says.

    A database that does not answer now is no reason not to label: it is asked again when somebody sends a key.

    Raises:
        OptionError: as open_sessions does; or what is there cannot be used, as it is of a newer vidseq.
    """
    url = os.environ.get(DATABASE, "")
    if not url:
        raise OptionError(f"{DATABASE} is needed in the environment of every node: see deploy/")
    if is_file(url):
        _refuse_several(num_nodes, DATABASE, instead="a PostgreSQL")
    database = Database(url)
    with suppress(DatabaseDown):  # which is in the log
        database.prepare()
    return database


def open_once(database: Database, settings: OnceSettings) -> Once:
    """Answers to requests with a key. Raises OptionError: the environment of this node has no keys to seal them."""
    return Once(Kept(database, open_vault(), settings))


def open_uploads(database: Database, settings: UploadSettings) -> Uploads | None:
    """In the folder that the environment of this node names, else beside the file of a SQLite.

    None where there is neither, as with a PostgreSQL, which several nodes may share: nobody is to send a file to one of
    them and look for it on another. A folder that is named must be the same for all of them.

    Raises:
        OptionError: the folder cannot be used.
    """
    folder = uploads_folder(database, named=os.environ.get(UPLOADS))
    if folder is None:
        logger.warning("no uploads are taken: %s is needed in the environment, a folder that all nodes share", UPLOADS)
        return None
    return open_folder(database, folder, settings)


def open_jobs(database: Database, uploads: Uploads | None, settings: JobSettings) -> Jobs | None:
    """None where there are no uploads, of which jobs are made. Raises OptionError, as open_once does."""
    return None if uploads is None else Jobs(database, open_vault(), uploads, settings)


def open_background(database: Database, execute: Execute, settings: JobSettings) -> Background:
    """What is done for the jobs of the same database. Raises OptionError, as open_once does."""
    return Background(database, open_vault(), execute, settings)


def open_vault() -> Vault:
    """What seals. Raises OptionError: the environment of this node has no keys for it."""
    keys = os.environ.get(KEYS, "")
    if not keys:
        raise OptionError(f"{KEYS} is needed in the environment of every node: see deploy/")
    return Vault(load_keys(keys))


def _refuse_several(num_nodes: int, variable: str, *, instead: str) -> None:
    if num_nodes > 1:
        raise OptionError(f"{variable} is a file of one machine, and this cluster has several: name {instead}")
