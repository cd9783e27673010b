"""`vidseq predict`, `watch` and `score`: labels for a clip, a camera or many clips, on this machine."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from pydantic import ValidationError

from vidseq.cli.app import app
from vidseq.cli.arguments import MIN_SHARE_SEEN, Device, MinShareSeen, ModelFolder, RequireSignature, torch_device
from vidseq.config import Limits, first_mistake
from vidseq.errors import OptionError

if TYPE_CHECKING:
    from vidseq.early import EarlyExit


@app.command()
def predict(
    model: ModelFolder,
    clip: Annotated[Path, typer.Argument(help="A video file.")],
    start: Annotated[float, typer.Option(help="Look from here, in seconds.")] = 0.0,
    end: Annotated[float | None, typer.Option(help="Look up to here, in seconds.")] = None,
    top_k: Annotated[int, typer.Option(min=1, help="How many actions to name.")] = 5,
    json: Annotated[bool, typer.Option("--json", help="Print one Prediction as JSON and nothing else.")] = False,
    picture: Annotated[Path | None, typer.Option(help="Also draw the timeline into this PNG, SVG or PDF.")] = None,
    annotated: Annotated[
        Path | None, typer.Option("--annotate", help="Also write a copy of the clip with its labels: .mp4 or .mkv.")
    ] = None,
    early_exit: Annotated[
        float | None, typer.Option(help="Stop once the action's calibrated score is at least this, 0.5 to 1 ...")
    ] = None,
    early_hold: Annotated[
        float | None, typer.Option(help="... and has been for so many seconds; 1 if not given.")
    ] = None,
    sandbox: Annotated[bool, typer.Option(help="Decode in a confined process, or in this one.")] = True,
    require_signature: RequireSignature = None,
    min_share_seen: MinShareSeen = MIN_SHARE_SEEN,
    device: Device = "cpu",
) -> None:
    """Label one clip on this machine."""
    from contextlib import nullcontext

    from vidseq.annotate import annotate
    from vidseq.classifier import Classifier
    from vidseq.drawing import refuse_place
    from vidseq.sandbox.box import Sandbox
    from vidseq.timeline import draw, show

    if annotated is not None:
        refuse_place(annotated, source=clip)
    limits = Limits(min_share_seen=min_share_seen)
    with Sandbox() if sandbox else nullcontext() as box:
        where = torch_device(device)
        classifier = Classifier.load(model, device=where, limits=limits, sandbox=box, trusted_keys=require_signature)
        prediction = classifier.classify(
            clip, start_seconds=start, end_seconds=end, top_k=top_k, early_exit=_early_exit(early_exit, early_hold)
        )
        if annotated is not None:
            annotate(clip, prediction, annotated, limits=limits, sandbox=box)
    if picture is not None:
        draw(prediction, picture, title=clip.name)
    if json:
        typer.echo(prediction.model_dump_json())
    else:
        show(prediction, title=clip.name)


@app.command()
def watch(
    model: ModelFolder,
    source: Annotated[str, typer.Argument(help="The number of a camera (0), an rtsp:// URL, or a video file.")],
    json: Annotated[bool, typer.Option("--json", help="Print each message as a line of JSON.")] = False,
    annotate: Annotated[Path | None, typer.Option(help="Write the pictures with their labels to .mp4 or .mkv.")] = None,
    window: Annotated[bool, typer.Option("--window", help="Show the pictures with their labels; q ends it.")] = False,
    require_signature: RequireSignature = None,
    device: Device = "cpu",
) -> None:
    """Label a camera, a stream or a file as it plays, on this machine, until it ends or is interrupted."""
    from rich.console import Console

    from vidseq.watch import watch as run

    console = Console(highlight=False)
    run(
        model,
        source,
        device=torch_device(device),
        json=json,
        annotate=annotate,
        window=window,
        console=console,
        trusted_keys=require_signature,
    )


@app.command()
def score(
    model: ModelFolder,
    inputs: Annotated[
        list[str],
        typer.Argument(
            help="Files, folders, quoted patterns such as 'clips/**/*.mp4', URLs such as s3://bucket/clips, or "
            "manifests: .csv, .jsonl or .parquet with a column `path`, whose other columns are carried through."
        ),
    ],
    out: Annotated[
        str, typer.Option(help="The table to write: .parquet or .jsonl, or a folder of Parquet files; also a URL.")
    ],
    also: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="MODEL",
            help="Also label with this model, on the same look at each clip: it shares backbone, pictures and rate.",
        ),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with this very job where it was killed; without one, begin it.")
    ] = False,
    partition_by: Annotated[
        str | None, typer.Option(help="A column of the manifests by whose values the folder is divided.")
    ] = None,
    frames: Annotated[bool, typer.Option("--frames", help="Also keep the label of every sampled frame.")] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 1 if any clip failed.")] = False,
    features: Annotated[
        Path | None,
        typer.Option(help="A store: clips whose features are there are not decoded, others are added to it."),
    ] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Parallel workers; as many as fit by default.")] = None,
    require_signature: RequireSignature = None,
    min_share_seen: MinShareSeen = MIN_SHARE_SEEN,
) -> None:
    """Label many clips: one row for every input, failures included."""
    from rich.console import Console

    from serving.batch.score import score as run

    limits = Limits(min_share_seen=min_share_seen)
    console = Console(stderr=True)
    summary = run(
        model,
        inputs,
        out,
        console=console,
        also=also or (),
        resume=resume,
        partition_by=partition_by,
        features=features,
        frames=frames,
        num_workers=workers,
        limits=limits,
        trusted_keys=require_signature,
    )
    if strict and summary.num_failed:
        raise typer.Exit(1)


def _early_exit(score: float | None, hold_seconds: float | None) -> "EarlyExit | None":
    """What was typed, checked; None where nothing was."""
    from vidseq.early import EarlyExit

    if score is None:
        if hold_seconds is not None:
            raise OptionError("--early-hold says how long to wait with --early-exit, which is not given")
        return None
    given = {"score": score} if hold_seconds is None else {"score": score, "hold_seconds": hold_seconds}
    try:
        return EarlyExit.model_validate(given)
    except ValidationError as error:
        field, mistake = first_mistake(error)
        raise OptionError(f"--early-{'exit' if field == 'score' else 'hold'}: {mistake}") from None
