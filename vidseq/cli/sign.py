"""`vidseq signing-key` and `vidseq sign`: vouch for a model, so that others can refuse what nobody has vouched for."""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from vidseq.cli.app import app
from vidseq.cli.arguments import ModelFolder
from vidseq.errors import OptionError

PASSPHRASE = "VIDSEQ_SIGNING_PASSPHRASE"


@app.command("signing-key")
def signing_key(
    name: Annotated[Path, typer.Argument(metavar="NAME", help="NAME.pem is what is made, and NAME.pub.pem.")],
    passphrase: Annotated[
        bool, typer.Option("--passphrase", help=f"Lock the key with a passphrase, asked for or in {PASSPHRASE}.")
    ] = False,
) -> None:
    """Make a pair of keys: a private one that signs models, and a public one, for --require-signature."""
    from vidseq.signing import write_key_pair

    if not name.name:
        raise OptionError(f"{name} is no name for a key")
    path = name.with_name(f"{name.name.removesuffix('.pem')}.pem")
    public_path, key_id = write_key_pair(path, passphrase=_new_passphrase() if passphrase else None)
    typer.echo(f"key {key_id}: {path} signs, and belongs where secrets are kept; {public_path} is for everybody")


@app.command()
def sign(
    model: ModelFolder,
    key: Annotated[Path, typer.Option(metavar="PRIVATE.pem", help="A key that `vidseq signing-key` made.")],
) -> None:
    """Sign a model: its signature covers every file of it, and stands beside those of other keys."""
    from vidseq.checkpoint import sign_checkpoint
    from vidseq.signing import is_locked, key_id, read_private_key

    private = read_private_key(key, passphrase=_passphrase(key) if is_locked(key) else None)
    sign_checkpoint(model, private)
    typer.echo(f"{model} is signed by key {key_id(private.public_key().public_bytes_raw())}")


def _new_passphrase() -> bytes:
    told = os.environ.get(PASSPHRASE)
    words = typer.prompt("Passphrase", hide_input=True, confirmation_prompt=True) if told is None else told
    if not words:
        raise OptionError(f"the passphrase is empty: give one, or leave --passphrase out ({PASSPHRASE})")
    return str(words).encode()


def _passphrase(key: Path) -> bytes:
    told = os.environ.get(PASSPHRASE)
    if told is None:
        if not sys.stdin.isatty():
            raise OptionError(f"{key} is locked with a passphrase, and nobody can be asked here: set {PASSPHRASE}")
        told = str(typer.prompt(f"Passphrase of {key}", hide_input=True))
    return told.encode()
