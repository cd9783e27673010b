"""`vidseq keys`: who may ask a service. Knows a file of keys, and no service."""

import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vidseq.cli.app import app
from vidseq.cli.arguments import seconds_of

if TYPE_CHECKING:
    from serving.keys import Key

keys = typer.Typer(help="Make, list and revoke the API keys of a service.", no_args_is_help=True)
app.add_typer(keys, name="keys")

KeysFile = Annotated[
    Path | None,
    typer.Option(
        "--keys",
        envvar="VIDSEQ_KEYS",
        metavar="FILE",
        help="The file of keys, which `vidseq serve --keys` reads.",
        show_default="keys.db in your folder of data, ~/.local/share/vidseq on Linux",
    ),
]


@keys.command()
def create(
    name: Annotated[str, typer.Option(help="Whose key it is: two of one name may be live, the old and the new one.")],
    scopes: Annotated[
        str, typer.Option(help="What it is good for: classify (videos), stream (sessions), admin.")
    ] = "classify,stream",
    expires_in: Annotated[
        str | None, typer.Option(metavar="TIME", help="For how long: 45s, 30m, 12h, 30d or 8w; else until revoked.")
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME", help="Let it ask the model of this name alone, or those that are named; else all."
        ),
    ] = None,
    file: KeysFile = None,
) -> None:
    """Print a new key, this once."""
    from serving.keys import create_key

    lifetime_seconds = None if expires_in is None else seconds_of(expires_in, option="--expires-in")
    path = file or _default_file(make_folder=True)
    wanted = [word for word in re.split(r"[,\s]+", scopes) if word]
    print(create_key(path, name=name, scopes=wanted, lifetime_seconds=lifetime_seconds, models=model))
    typer.echo(f"This key is shown once: keep it where secrets are kept. Its hash is in {path}.", err=True)


@keys.command("list")
def list_(file: KeysFile = None) -> None:
    """Show all keys of a file, and no secret."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from serving.keys import list_keys

    found = list_keys(file or _default_file())
    table = Table("id", "name", "scopes", "models", "created", "expires", "state")
    for key in found:
        expires = "never" if key.expires_seconds is None else _date(key.expires_seconds)
        asks = "all" if key.models is None else ", ".join(sorted(key.models))
        about = (key.key_id, key.name, ", ".join(sorted(key.scopes)), asks)
        words = (*about, _date(key.created_seconds), expires, _state(key))
        table.add_row(*map(escape, words))
    Console(highlight=False).print(table)


@keys.command()
def revoke(
    key_id: Annotated[str, typer.Argument(metavar="ID", help="The key's id, as `vidseq keys list` tells it.")],
    file: KeysFile = None,
) -> None:
    """Let a key open nothing any more, within a second."""
    from serving.keys import revoke_key

    key = revoke_key(file or _default_file(), key_id)
    typer.echo(f"key {key.key_id} of {key.name} is {_state(key)}")


def _default_file(*, make_folder: bool = False) -> Path:
    from platformdirs import user_data_path

    folder = user_data_path("vidseq")
    if make_folder:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder / "keys.db"


def _date(unix_seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(unix_seconds))


def _state(key: "Key") -> str:
    since = "" if key.revoked_seconds is None else f" {_date(key.revoked_seconds)}"
    return key.state(time.time()) + since
