"""The command line: the door for a person. Each command imports what it needs when it runs, and nothing before."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError

from vidseq.errors import OptionError

app = typer.Typer(
    help="Labels for video in time: one action for a clip, a label for every frame.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


class Cell(StrEnum):
    elman = "elman"
    lstm = "lstm"
    gru = "gru"


class Readout(StrEnum):
    last = "last"
    mean = "mean"
    attention = "attention"


class OnBad(StrEnum):
    stop = "stop"
    skip = "skip"


ModelFolder = Annotated[Path, typer.Argument(help="A model's folder, as `vidseq train` wrote it.", metavar="MODEL")]
ClipsFolder = Annotated[
    Path,
    typer.Argument(
        help="A folder per class, or a folder with clips.csv (path,label,...) and perhaps segments.csv "
        "(path,start_seconds,end_seconds,label).",
        metavar="CLIPS",
    ),
]
Background = Annotated[
    str | None, typer.Option(help="The frame label that means nothing of interest; gaps between segments get it too.")
]
Bad = Annotated[OnBad, typer.Option("--on-bad", help="What to do with a clip that cannot be decoded.")]
Device = Annotated[str, typer.Option(help="Where the model runs: cpu, cuda, cuda:1 ...")]


@app.command()
def train(
    clips: ClipsFolder,
    out: Annotated[Path, typer.Option(help="The folder that will hold the model.")],
    cell: Annotated[Cell, typer.Option(help="The recurrent cell.")] = Cell.gru,
    num_layers: Annotated[int, typer.Option(help="Recurrent layers, 1 to 4.")] = 1,
    hidden_size: Annotated[int, typer.Option(help="Size of the hidden state.")] = 64,
    bidirectional: Annotated[bool, typer.Option(help="Read each video from both ends: offline only.")] = False,
    readout: Annotated[Readout, typer.Option(help="How the action is read from the hidden states.")] = Readout.mean,
    backbone: Annotated[
        str, typer.Option(help="efficientnet-lite0 (packaged), a torchvision model, or timm:NAME.")
    ] = "efficientnet-lite0",
    weights: Annotated[str, typer.Option(help="default, none, or a file of weights for the backbone.")] = "default",
    frames_per_second: Annotated[str, typer.Option(help="Sampling rate, or native for every frame.")] = "8",
    size: Annotated[int, typer.Option(help="Side of the square picture that the backbone sees, in pixels.")] = 224,
    epochs: Annotated[int, typer.Option(help="At most this many.")] = 60,
    folds: Annotated[int | None, typer.Option(help="Cross-validate with this many folds, then train on all.")] = None,
    group_by: Annotated[
        str | None, typer.Option(help="A column of clips.csv: clips that share it stay on one side of a split.")
    ] = None,
    background: Background = None,
    on_bad: Bad = OnBad.stop,
    seed: Annotated[int, typer.Option(help="The same seed gives the same model.")] = 0,
) -> None:
    """Train a model on labelled clips. Interrupted, the same command continues where it stopped."""
    from training.recipes import Options
    from training.run import train as run
    from training.show import Show

    try:
        options = Options(
            cell=cell.value,
            num_layers=num_layers,
            hidden_size=hidden_size,
            bidirectional=bidirectional,
            readout=readout.value,
            backbone=backbone,
            weights=weights,
            frames_per_second="native" if frames_per_second == "native" else float(frames_per_second),
            size=size,
            epochs=epochs,
            seed=seed,
        )
    except ValidationError as error:
        first = error.errors()[0]
        raise OptionError(f"--{str(first['loc'][0]).replace('_', '-')}: {first['msg']}") from None
    except ValueError:
        raise OptionError(f"--frames-per-second: {frames_per_second!r} is neither a number nor native") from None
    show = Show()
    run(
        clips,
        out,
        options=options,
        group_by=group_by,
        background=background,
        num_folds=folds,
        on_bad=on_bad.value,
        show=show,
    )
    show.say(f"the model is in {out}; try: vidseq predict {out} CLIP")


@app.command()
def evaluate(
    model: ModelFolder,
    clips: ClipsFolder,
    json: Annotated[Path | None, typer.Option(help="Also write the figures to this file.")] = None,
    on_bad: Bad = OnBad.stop,
) -> None:
    """Measure a model, and the mean-pool baseline beside it, on labelled clips."""
    from training.run import evaluate_model
    from training.show import Show

    show = Show()
    evaluation = evaluate_model(model, clips, on_bad=on_bad.value, show=show)
    show.evaluation(evaluation, title=f"{model} on {clips}")
    if json is not None:
        json.write_text(evaluation.model_dump_json(indent=2) + "\n")


@app.command()
def predict(
    model: ModelFolder,
    clip: Annotated[Path, typer.Argument(help="A video file.")],
    start: Annotated[float, typer.Option(help="Look from here, in seconds.")] = 0.0,
    end: Annotated[float | None, typer.Option(help="Look up to here, in seconds.")] = None,
    top_k: Annotated[int, typer.Option(min=1, help="How many actions to name.")] = 5,
    json: Annotated[bool, typer.Option("--json", help="Print one Prediction as JSON and nothing else.")] = False,
    picture: Annotated[Path | None, typer.Option(help="Also draw the timeline into this PNG, SVG or PDF.")] = None,
    device: Device = "cpu",
) -> None:
    """Label one clip on this machine."""
    from vidseq.classifier import Classifier
    from vidseq.timeline import draw, show

    classifier = Classifier.load(model, device=device)
    prediction = classifier.classify(clip, start_seconds=start, end_seconds=end, top_k=top_k)
    if picture is not None:
        draw(prediction, picture, title=clip.name)
    if json:
        typer.echo(prediction.model_dump_json())
    else:
        show(prediction, title=clip.name)


@app.command()
def serve(
    model: ModelFolder,
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="The port to listen on.")] = 8000,
    device: Device = "cpu",
) -> None:
    """Serve a model over HTTP on this machine until interrupted."""
    from serving.launch import serve as run

    run(model, host=host, port=port, device=device)


@app.command()
def score(
    model: ModelFolder,
    inputs: Annotated[list[str], typer.Argument(help="Files, folders, or quoted patterns such as 'clips/**/*.mp4'.")],
    out: Annotated[Path, typer.Option(help="The table to write: .parquet or .jsonl.")],
    frames: Annotated[bool, typer.Option("--frames", help="Also keep the label of every sampled frame.")] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 1 if any clip failed.")] = False,
    workers: Annotated[int | None, typer.Option(min=1, help="Parallel workers; as many as fit by default.")] = None,
) -> None:
    """Label many clips: one row for every input, failures included."""
    from rich.console import Console

    from serving.batch import score as run

    summary = run(model, inputs, out, console=Console(stderr=True), frames=frames, num_workers=workers)
    if strict and summary.num_failed:
        raise typer.Exit(1)


@app.command()
def models(
    folder: Annotated[Path, typer.Argument(help="A folder of models, or one model.")] = Path(),
    url: Annotated[str | None, typer.Option(help="Ask the service at this address instead.")] = None,
) -> None:
    """List the models in a folder, or those that a service offers."""
    from rich.console import Console
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
        raise OptionError(f"there is no model in {folder}")
    table = Table("name", "version", "sha256", "actions", "frame labels")
    for info in found:
        table.add_row(
            info.name, info.version, info.sha256[:12], ", ".join(info.action_labels), ", ".join(info.frame_labels)
        )
    Console(highlight=False).print(table)
