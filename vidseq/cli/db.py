"""`vidseq db`: the database of a service, brought up to date and copied. Knows no service."""

from pathlib import Path
from typing import Annotated

import typer

from vidseq.cli.app import app

db = typer.Typer(help="Bring the database of a service up to date, and copy it.", no_args_is_help=True)
app.add_typer(db, name="db")

Url = Annotated[
    str,
    typer.Argument(
        metavar="URL",
        envvar="VIDSEQ_DATABASE",
        show_envvar=True,
        help="sqlite:///path, or postgresql://user@host/name.",
    ),
]


@db.command()
def upgrade(url: Url) -> None:
    """Make the tables, or change old ones to what this vidseq needs; a service that starts does the same by itself."""
    from contextlib import closing

    from serving.database.core import Database
    from serving.database.schema import newest_version

    with closing(Database(url)) as database:
        database.prepare()
        typer.echo(f"the tables of {database.name} have version {newest_version()}")


@db.command()
def backup(
    url: Annotated[str, typer.Argument(metavar="URL", help="sqlite:///path; for PostgreSQL the command is told.")],
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The copy, a file that is not there yet.")],
) -> None:
    """Copy a SQLite database while services use it."""
    from serving.database.backup import backup as copy

    copy(url, file)
    typer.echo(f"copied to {file}")
