"""Forget all that was derived from the videos of a key, where no service runs. Knows no HTTP."""

from contextlib import closing

from serving.database.core import Database
from serving.files import refuse_missing
from serving.keys import checked_id
from serving.once.kept import Kept, OnceSettings
from serving.sealing import Vault, load_keys, new_key
from serving.store import Lifetimes, open_store
from vidseq.schemas import Forgotten


def forget(key_id: str, *, database: str | None, store: str | None) -> Forgotten:
    """What is sealed need not be opened for that: nobody's sealing keys are needed.

    Raises:
        OptionError: not the id of a key; a URL that cannot be used, or of a file that is not there.
        StoreDown, DatabaseDown: ask again; what was deleted is.
    """
    checked_id(key_id)
    for url in filter(None, (database, store)):
        refuse_missing(url)
    num_sessions = num_answers = 0
    if store is not None:
        with closing(open_store(store, lifetimes=Lifetimes(), keys=())) as sessions:
            num_sessions = sessions.forget_all(key_id)
    if database is not None:
        with closing(Database(database)) as opened:
            num_answers = Kept(opened, Vault(load_keys(new_key())), OnceSettings()).forget(key_id)
    return Forgotten(sessions=num_sessions, answers=num_answers)
