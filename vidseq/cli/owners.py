"""`vidseq usage` and `vidseq forget`: what keys have used, and to forget what is kept of one. Knows no service."""

import csv
import json
import sys
from dataclasses import asdict
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vidseq.cli.app import app
from vidseq.errors import OptionError

if TYPE_CHECKING:
    from serving.usage.table import Day

DEFAULT_DAYS = 31

DatabaseUrl = Annotated[
    str,
    typer.Argument(
        metavar="DATABASE",
        envvar="VIDSEQ_DATABASE",
        show_envvar=True,
        help="sqlite:///path, or postgresql://user@host/name: what `vidseq serve --database` was given.",
    ),
]


@app.command()
def usage(
    database: DatabaseUrl,
    since: Annotated[
        str | None, typer.Option(metavar="DATE", help="The first day, as 2026-11-01; a month ago.")
    ] = None,
    until: Annotated[str | None, typer.Option(metavar="DATE", help="The last day; today (UTC).")] = None,
    key: Annotated[str | None, typer.Option(metavar="ID", help="Of this key alone.")] = None,
    keys: Annotated[
        Path | None,
        typer.Option(envvar="VIDSEQ_KEYS", metavar="FILE", help="Tells names beside ids: the file of keys."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="A list of days of keys, and nothing else.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="The same as CSV.")] = False,
) -> None:
    """Show what each API key has used, day by day."""
    from contextlib import closing

    from serving.database.core import Database
    from serving.files import refuse_missing
    from serving.usage.table import UsageTable
    from serving.usage.used import NAMES

    if as_json and as_csv:
        raise OptionError("--json and --csv exclude each other")
    refuse_missing(database)
    last = _day(until, "--until") or datetime.now(UTC).date()
    first = _day(since, "--since") or last - timedelta(days=DEFAULT_DAYS - 1)
    with closing(Database(database)) as opened:
        days = UsageTable(opened).days(since=first, until=last, owner=key)
    names = None if keys is None else _names(keys)
    rows = [_row(day, names) for day in days]
    if as_json:
        print(json.dumps(rows, indent=1))
    elif as_csv:
        columns = ["day", "key", *["name"] * (names is not None), *NAMES]
        writer = csv.DictWriter(sys.stdout, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    else:
        _print_table(rows, first, last)


@app.command()
def forget(
    key_id: Annotated[str, typer.Argument(metavar="ID", help="The key's id, as `vidseq keys list` tells it.")],
    database: Annotated[
        str | None,
        typer.Option(envvar="VIDSEQ_DATABASE", metavar="URL", help="Where answers are kept: serve's --database."),
    ] = None,
    store: Annotated[
        str | None,
        typer.Option(envvar="VIDSEQ_SESSION_STORE", metavar="URL", help="Where sessions are kept: serve's --store."),
    ] = None,
    uploads: Annotated[
        Path | None,
        typer.Option(envvar="VIDSEQ_UPLOADS", metavar="FOLDER", help="Where uploads are kept: serve's --uploads."),
    ] = None,
) -> None:
    """Forget the videos of a key: its uploads, jobs, live sessions and kept answers. Its usage stays."""
    from serving.forgetting import forget as forget_in

    if database is None and store is None:
        raise OptionError("nothing to look into: --database, --store or both are needed")
    done = forget_in(key_id, database=database, store=store, uploads=uploads)
    counted = f"{done.sessions} sessions, {done.answers} answers, {done.uploads} uploads and {done.jobs} jobs"
    typer.echo(f"forgot {counted} of key {key_id}")


def _day(text: str | None, option: str) -> date | None:
    try:
        return None if text is None else date.fromisoformat(text)
    except ValueError:
        raise OptionError(f"{option}: {text!r} is no day; 2026-11-26 is") from None


def _names(keys: Path) -> dict[str, str]:
    from serving.keys import list_keys

    return {key.key_id: key.name for key in list_keys(keys)}


def _row(day: "Day", names: dict[str, str] | None) -> dict[str, str | int | float]:
    name = {} if names is None else {"name": names.get(day.owner, "")}
    return {"day": day.day, "key": day.owner} | name | asdict(day.used)


# Short enough for a terminal of 80 columns; a name stands under its key.
HEADINGS = ("day", "key", "requests", "failed", "received", "decoded", "labelled", "seconds")


def _print_table(rows: list[dict[str, str | int | float]], first: date, last: date) -> None:
    from rich.console import Console
    from rich.filesize import decimal
    from rich.markup import escape
    from rich.table import Table

    if not rows:
        typer.echo(f"nothing was used from {first} to {last}")
        return
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for number, heading in enumerate(HEADINGS):
        table.add_column(heading, justify="left" if number < 2 else "right", overflow="fold")
    for row in rows:
        who = "\n".join(str(row[name]) for name in ("key", "name") if row.get(name))
        received = decimal(int(row["received_bytes"]))
        counts = (f"{row[name]:,}" for name in ("requests", "failed"))
        frames = (f"{row[name]:,}" for name in ("frames_decoded", "frames_labelled"))
        table.add_row(str(row["day"]), escape(who), *counts, received, *frames, f"{row['compute_seconds']:,.1f}")
    Console(highlight=False).print(table)
