"""The version of the tables, and the steps from any to the newest. Knows no table by name.

Steps are alembic's, in migrations/versions; each runs once, all of them in one transaction that others wait for.
"""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, inspect, text

from vidseq.errors import OptionError

VERSION_TABLE = "vidseq_schema"
FOLDER = Path(__file__).with_name("migrations")
_LOCK = int.from_bytes(b"vidseq")  # PostgreSQL's advisory locks are numbers; another program would not take this one


def upgrade(connection: Connection, *, name: str) -> None:
    """Inside a transaction of the caller's: the tables are the newest ones, made from whatever was there.

    Raises:
        OptionError: they are newer than this code, or somebody else's. `name` tells the database to a person.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(text("SET LOCAL statement_timeout = 0"))  # a step may take a while, and so may who waits
        connection.execute(text("SELECT pg_advisory_xact_lock(:number)"), {"number": _LOCK})
    script = ScriptDirectory(str(FOLDER))
    current = current_version(connection)
    known = [revision.revision for revision in script.walk_revisions()]
    if current is None and connection.dialect.name == "sqlite" and inspect(connection).get_table_names():
        raise OptionError(f"{name} cannot be the database: it is something else")
    if current is not None and current not in known:
        raise OptionError(
            f"the tables of {name} have version {current[:50]!r}, and this vidseq knows none after {known[0]!r}: "
            "a newer vidseq has changed them; use that one, or a backup of before"
        )
    if current != known[0]:
        config = Config()
        config.set_main_option("script_location", str(FOLDER).replace("%", "%%"))
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def current_version(connection: Connection) -> str | None:
    """Of the tables; None where there are none."""
    return MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE}).get_current_revision()


def newest_version() -> str:
    version = ScriptDirectory(str(FOLDER)).get_current_head()
    assert version is not None, "there is no migration"
    return version
