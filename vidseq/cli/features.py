"""`vidseq features`: what a backbone says of clips, computed once and kept for the heads of later."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from vidseq.cli.app import app
from vidseq.cli.arguments import MIN_SHARE_SEEN, MinShareSeen, RequireSignature
from vidseq.cli.train import Precision, RecipeName, options_of
from vidseq.config import Fit, Limits, MotionSign
from vidseq.errors import OptionError

LOOK = "How clips are looked at, without a model; as of `vidseq train`"


@app.command()
def features(
    context: typer.Context,
    inputs: Annotated[list[str], typer.Argument(help="Clips, as of `vidseq score`.")],
    out: Annotated[Path, typer.Option(help="The store: a folder that all workers can write to.")],
    model: Annotated[
        Path | None, typer.Option(help="Use this model's backbone, as it was trained, with its pictures and rate.")
    ] = None,
    half: Annotated[
        bool, typer.Option("--half", help="Keep features in half precision: half the bytes, nearly the same labels.")
    ] = False,
    table: Annotated[str | None, typer.Option(help="Also write a row for each clip: .parquet or .jsonl.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with this very job where it was killed.")] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 1 if any clip failed.")] = False,
    workers: Annotated[int | None, typer.Option(min=1, help="Parallel workers; as many as fit by default.")] = None,
    recipe: Annotated[RecipeName, typer.Option(help="What to start from.", rich_help_panel=LOOK)] = "default",
    frames_per_second: Annotated[str, typer.Option(rich_help_panel=LOOK)] = "8",
    max_frames: Annotated[int | None, typer.Option(rich_help_panel=LOOK)] = None,
    size: Annotated[int, typer.Option(rich_help_panel=LOOK)] = 224,
    fit: Annotated[Fit, typer.Option(rich_help_panel=LOOK)] = "crop",
    motion: Annotated[str, typer.Option(rich_help_panel=LOOK)] = "",
    motion_sign: Annotated[MotionSign, typer.Option(rich_help_panel=LOOK)] = "absolute",
    motion_channels: Annotated[int, typer.Option(rich_help_panel=LOOK)] = 128,
    backbone: Annotated[str, typer.Option(rich_help_panel=LOOK)] = "efficientnet-lite0",
    weights: Annotated[str, typer.Option(rich_help_panel=LOOK)] = "default",
    precision: Annotated[Precision, typer.Option(rich_help_panel=LOOK)] = "float32",
    require_signature: RequireSignature = None,
    min_share_seen: MinShareSeen = MIN_SHARE_SEEN,
) -> None:
    """Decode and encode clips once, for `vidseq train --features` and `vidseq score --features`."""
    if model is not None:
        _refuse_looks(context)
    from rich.console import Console

    from serving.batch.features import make_features
    from training.options import look

    kind: Literal["float16"] | None = "float16" if half else None
    summary = make_features(
        look(options_of(context, recipe)) if model is None else model,
        inputs,
        out,
        table=table,
        kind=kind,
        resume=resume,
        num_workers=workers,
        limits=Limits(min_share_seen=min_share_seen),
        trusted_keys=require_signature,
        console=Console(stderr=True),
    )
    if strict and summary.num_failed:
        raise typer.Exit(1)


def _refuse_looks(context: typer.Context) -> None:
    """A model looks as it was trained to.

    Raises:
        OptionError: another way was asked for.
    """
    for option in context.command.params:
        source = context.get_parameter_source(option.name or "")
        if getattr(option, "rich_help_panel", None) == LOOK and source is not None and source.name != "DEFAULT":
            raise OptionError(f"{option.opts[0]} is for features without a model; --model looks as it was trained to")
