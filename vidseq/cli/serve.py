"""`vidseq serve` and `vidseq models`: a model for others, and which there are."""

from pathlib import Path
from typing import Annotated

import typer

from vidseq.cli.app import app
from vidseq.cli.arguments import MIN_SHARE_SEEN, Device, MinShareSeen, ModelFolder
from vidseq.errors import OptionError


@app.command()
def serve(
    model: ModelFolder,
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="The port to listen on.")] = 8000,
    device: Device = "cpu",
    replicas: Annotated[int, typer.Option(min=1, help="Copies of the model that share this machine.")] = 1,
    store: Annotated[
        str | None,
        typer.Option(help="Where live sessions are kept: sqlite:///path or redis://host; else only while it runs."),
    ] = None,
    session_keys: Annotated[
        Path | None, typer.Option(help="A file with the keys that seal sessions; else made for this run.")
    ] = None,
    keys: Annotated[
        Path | None,
        typer.Option(
            envvar="VIDSEQ_KEYS",
            help="Answer those alone who show an API key of this file, which `vidseq keys create` makes; "
            "without it only this machine is answered.",
        ),
    ] = None,
    open_to_all: Annotated[
        bool, typer.Option("--open", help="Answer everybody who reaches --host, without keys.")
    ] = False,
    require_sandbox: Annotated[
        bool,
        typer.Option(
            "--require-sandbox", help="Refuse to start where the kernel cannot confine the decoder in every way."
        ),
    ] = False,
    min_share_seen: MinShareSeen = MIN_SHARE_SEEN,
) -> None:
    """Serve a model over HTTP on this machine until interrupted."""
    from serving.launch import serve as run

    run(
        model,
        host=host,
        port=port,
        device=device,
        num_replicas=replicas,
        store=store,
        session_keys=session_keys,
        keys=keys,
        open_to_all=open_to_all,
        require_sandbox=require_sandbox,
        min_share_seen=min_share_seen,
    )


@app.command()
def models(
    folder: Annotated[Path, typer.Argument(help="A folder of models, or one model.")] = Path(),
    url: Annotated[str | None, typer.Option(help="Ask the service at this address instead.")] = None,
) -> None:
    """List the models in a folder, or those that a service offers."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    if url is None:
        from vidseq.checkpoint import read_info

        manifests = sorted([*folder.glob("manifest.json"), *folder.glob("*/manifest.json")])
        found = tuple(read_info(manifest.parent) for manifest in manifests)
    else:
        from vidseq.client import Client

        with Client(url) as client:
            found = client.models()
    if not found:
        raise OptionError(f"there is no model {f'in {folder}' if url is None else f'at {url}'}")
    table = Table("name", "version", "sha256", "actions", "frame labels")
    for info in found:
        labels = (", ".join(info.action_labels), ", ".join(info.frame_labels))
        table.add_row(*map(escape, (info.name, info.version, info.sha256[:12], *labels)))
    Console(highlight=False).print(table)
