"""`vidseq serve` and `vidseq models`: a model for others, and which there are."""

from collections.abc import Mapping
from itertools import zip_longest
from pathlib import Path
from typing import Annotated, Literal

import typer

from vidseq.cli.app import app
from vidseq.cli.arguments import MIN_SHARE_SEEN, Device, MinShareSeen, ModelFolder, RequireSignature
from vidseq.errors import OptionError

RequestLogForm = Literal["text", "json", "off"]


@app.command()
def serve(
    model: ModelFolder,
    also: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="MODEL",
            help="Also answer with this model, on the same look at each video: it shares backbone, pictures and rate; "
            "or with those of a folder of models. May be repeated.",
        ),
    ] = None,
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="The port to listen on.")] = 8000,
    device: Device = "cpu",
    replicas: Annotated[int, typer.Option(min=1, help="Copies of the model that share this machine.")] = 1,
    store: Annotated[
        str | None,
        typer.Option(help="Where live sessions are kept: sqlite:///path or redis://host; else only while it runs."),
    ] = None,
    database: Annotated[
        str | None,
        typer.Option(
            envvar="VIDSEQ_DATABASE",
            help="Where answers to requests with a key, and what else outlives a replica, are kept: sqlite:///path or "
            "postgresql://user:password@host/name; else only while it runs.",
        ),
    ] = None,
    uploads: Annotated[
        Path | None,
        typer.Option(
            envvar="VIDSEQ_UPLOADS",
            help="The folder of files that come in pieces, for one --database; else one beside a SQLite.",
        ),
    ] = None,
    private_webhooks: Annotated[
        bool,
        typer.Option("--private-webhooks", help="Let jobs send messages to private addresses too, and over http."),
    ] = False,
    session_keys: Annotated[
        Path | None, typer.Option(help="A file with the keys that seal sessions and answers; else made for this run.")
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
    require_signature: RequireSignature = None,
    min_share_seen: MinShareSeen = MIN_SHARE_SEEN,
    docs: Annotated[
        bool | None,
        typer.Option("--docs/--no-docs", help="Show the page of the API, /docs. Left out: on the loopback only."),
    ] = None,
    allow_origin: Annotated[
        list[str] | None,
        typer.Option(help="Let pages of this origin, such as https://example.org, ask and read. May be repeated."),
    ] = None,
    log: Annotated[
        RequestLogForm, typer.Option(help="A line for each request that is over: text, one JSON object a line, or off.")
    ] = "text",
    drain_seconds: Annotated[
        float, typer.Option(min=0, help="How long requests may go on when the service is told to stop.")
    ] = 30.0,
) -> None:
    """Serve a model over HTTP on this machine until interrupted; SIGHUP reads the folders of models again."""
    from serving.launch import say, say_aside
    from serving.launch import serve as run

    run(
        model,
        also=also or (),
        host=host,
        port=port,
        device=device,
        num_replicas=replicas,
        store=store,
        database=database,
        uploads=uploads,
        private_webhooks=private_webhooks,
        session_keys=session_keys,
        keys=keys,
        open_to_all=open_to_all,
        require_sandbox=require_sandbox,
        require_signature=require_signature,
        min_share_seen=min_share_seen,
        docs=docs,
        allowed_origins=allow_origin or (),
        log=log,
        drain_seconds=drain_seconds,
        announce=say_aside if log == "json" else say,
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
        from vidseq.checkpoint import read_info, read_signers

        manifests = sorted([*folder.glob("manifest.json"), *folder.glob("*/manifest.json")])
        found = tuple(read_info(manifest.parent) for manifest in manifests)
        signers = [_in_words(read_signers(manifest.parent)) for manifest in manifests]
    else:
        from vidseq.client import Client

        with Client(url) as client:
            found = client.models()
        signers = []  # whether its models must be signed is the service's affair
    if not found:
        raise OptionError(f"there is no model {f'in {folder}' if url is None else f'at {url}'}")
    table = Table()
    for name in ("name", "version", "sha256", "actions", "frame labels", *["signed by"] * bool(signers)):
        table.add_column(name, overflow="fold")  # a label that is cut off is another one
    for info, signed_by in zip_longest(found, signers):
        labels = (", ".join(info.action_labels), ", ".join(info.frame_labels))
        more = [signed_by] if signers else []
        table.add_row(*map(escape, (info.name, info.version, info.sha256[:12], *labels, *more)))
    Console(highlight=False).print(table)


def _in_words(signers: Mapping[str, bool]) -> str:
    words = [key_id if fits else f"{key_id}, and it does not fit" for key_id, fits in signers.items()]
    return "; ".join(words) or "nobody"
