"""The command line: the door for a person. Each command imports what it needs when it runs, and nothing before."""

from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from pydantic import ValidationError
from typer.core import TyperGroup

from vidseq.config import first_mistake
from vidseq.errors import OptionError

if TYPE_CHECKING:
    from training.recipes import Options
    from vidseq.early import EarlyExit


class Commands(TyperGroup):
    """Says a word when interrupted, which Typer does not."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            resumes = ctx.invoked_subcommand == "train"
            hint = "; the same command continues from the last epoch" if resumes else ""
            typer.echo(f"vidseq: interrupted{hint}", err=True)
            raise typer.Exit(130) from None


app = typer.Typer(
    cls=Commands,
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
    cho = "cho"
    mut1 = "mut1"
    mut2 = "mut2"
    mut3 = "mut3"
    mingru = "mingru"
    conv = "conv"
    attention = "attention"


class BetweenLayers(StrEnum):
    plain = "plain"
    residual = "residual"
    highway = "highway"


class Normalisation(StrEnum):
    layer = "layer"
    standard = "standard"


class Readout(StrEnum):
    last = "last"
    mean = "mean"
    statistics = "statistics"
    attention = "attention"


class MotionSign(StrEnum):
    absolute = "absolute"
    signed = "signed"
    both = "both"


class Precision(StrEnum):
    float32 = "float32"
    bfloat16 = "bfloat16"


class Fit(StrEnum):
    crop = "crop"
    letterbox = "letterbox"


class ClassBalance(StrEnum):
    none = "none"
    weights = "weights"
    sampling = "sampling"
    logits = "logits"


class Long(StrEnum):
    whole = "whole"
    truncated = "truncated"
    window = "window"


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
FiguresFile = Annotated[Path | None, typer.Option(help="Also write the figures to this file.")]
DrawnTogether = Annotated[
    str | None, typer.Option(help="A column of clips.csv: for intervals, clips that share it count as one witness.")
]
Bad = Annotated[OnBad, typer.Option("--on-bad", help="What to do with a clip that cannot be decoded.")]
Device = Annotated[str, typer.Option(help="Where the model runs: cpu, cuda, cuda:1 ...")]


def _in(panel: str, help: str, *names: str) -> Any:
    """An option that `--help` shows in this panel."""
    return typer.Option(*names, help=help, rich_help_panel=panel)


DATA, PICTURES, MODEL, LEARNING = "Clips", "Frames and their features", "Sequence model", "Training"
BACKBONE = "Training the backbone"


@app.command()
def train(
    clips: ClipsFolder,
    out: Annotated[Path, typer.Option(help="The folder that will hold the model.")],
    group_by: Annotated[
        str | None, _in(DATA, "A column of clips.csv: clips that share it stay on one side of a split.")
    ] = None,
    background: Annotated[
        str | None, _in(DATA, "The frame label of nothing of interest; gaps between segments get it too.")
    ] = None,
    several: Annotated[
        bool, _in(DATA, "A clip may show several actions: clips.csv parts them by |, and a lone | is none.")
    ] = False,
    on_bad: Annotated[OnBad, _in(DATA, "What to do with a clip that cannot be decoded.")] = OnBad.stop,
    folds: Annotated[int | None, _in(DATA, "Cross-validate with this many folds, then train on all.")] = None,
    frames_per_second: Annotated[str, _in(PICTURES, "Sampling rate, or native for every frame.")] = "8",
    max_frames: Annotated[int | None, _in(PICTURES, "At most this many of a clip, by halving the rate.")] = None,
    size: Annotated[int, _in(PICTURES, "Side of the square that the backbone sees, in pixels.")] = 224,
    fit: Annotated[Fit, _in(PICTURES, "How a frame becomes that square.")] = Fit.crop,
    motion: Annotated[
        str, _in(PICTURES, "Also see what changed since the frame before, in any of last,middle (maps),pooled.")
    ] = "",
    motion_sign: Annotated[MotionSign, _in(PICTURES, "What is taken of a change.")] = MotionSign.absolute,
    motion_channels: Annotated[int, _in(PICTURES, "Channels of a map that a stream remembers.")] = 128,
    backbone: Annotated[
        str, _in(PICTURES, "efficientnet-lite0 (packaged), a torchvision model, or timm:NAME.")
    ] = "efficientnet-lite0",
    weights: Annotated[str, _in(PICTURES, "default, none, or a file of weights for the backbone.")] = "default",
    precision: Annotated[Precision, _in(PICTURES, "What the backbone computes in.")] = Precision.float32,
    device: Annotated[str, _in(PICTURES, "Where the backbone runs: cpu, cuda, cuda:1 ...")] = "cpu",
    cell: Annotated[
        Cell, _in(MODEL, "What reads the frames in order: a recurrent cell, or one that sees a window of the past.")
    ] = Cell.gru,
    num_layers: Annotated[int, _in(MODEL, "Layers of it, 1 to 4.")] = 1,
    between_layers: Annotated[
        BetweenLayers, _in(MODEL, "How a layer's input goes on beside its output; highway learns how much.")
    ] = BetweenLayers.plain,
    hidden_size: Annotated[int, _in(MODEL, "Size of the hidden state.")] = 64,
    bidirectional: Annotated[bool, _in(MODEL, "Read each video from both ends: offline only.")] = False,
    learned_start: Annotated[
        bool, _in(MODEL, "Learn the hidden state before the first frame, instead of zeros.", "--learned-start")
    ] = False,
    window_frames: Annotated[
        int, _in(MODEL, "How many sampled frames attention sees, the present one among them: 2 to 128.")
    ] = 32,
    normalisation: Annotated[
        Normalisation, _in(MODEL, "Normalise features frame by frame, or each by its mean and spread in all clips.")
    ] = Normalisation.layer,
    readout: Annotated[
        Readout, _in(MODEL, "How the action is read from the hidden states; statistics: their mean and spread.")
    ] = Readout.mean,
    lookahead_seconds: Annotated[
        float, _in(MODEL, "Name each frame so much later, once the model has seen what follows it.")
    ] = 0.0,
    unknown_below: Annotated[float | None, _in(MODEL, "Call the action unknown below this score ...")] = None,
    unknown_precision: Annotated[
        float | None, _in(MODEL, "... or below the one from which this share of answers is right on clips held out.")
    ] = None,
    dropout: Annotated[float, _in(MODEL, "Share of features dropped while training.")] = 0.5,
    epochs: Annotated[int, _in(LEARNING, "At most this many.")] = 60,
    patience_epochs: Annotated[int, _in(LEARNING, "Stop after so many without a better one.", "--patience")] = 20,
    batch_size: Annotated[int, _in(LEARNING, "Clips a step.")] = 16,
    learning_rate: Annotated[float, _in(LEARNING, "Its highest value.")] = 2e-3,
    label_smoothing: Annotated[
        float, _in(LEARNING, "Share of each target that is spread over all labels, so that nothing is learnt by rote.")
    ] = 0.1,
    class_balance: Annotated[
        ClassBalance,
        _in(LEARNING, "For rare labels: weigh their loss, draw their clips more often, or shift logits by how rare."),
    ] = ClassBalance.none,
    mixup: Annotated[
        float, _in(LEARNING, "Lay two clips over each other in shares from Beta(mixup, mixup); 0 does not.")
    ] = 0.0,
    augment_time: Annotated[
        str,
        _in(LEARNING, "Change clips in time, any of crop,drop,speed,reverse; reverse if labels mean the same then."),
    ] = "",
    augment_frames: Annotated[
        str,
        _in(LEARNING, "Change frames, any of crop,colour,grey,flip; flip if left and right mean the same."),
    ] = "",
    num_views: Annotated[
        int, _in(LEARNING, "Sets of features of each clip, all but one with frames changed so.", "--views")
    ] = 1,
    unfreeze: Annotated[
        str, _in(BACKBONE, "Train the backbone too: none, its last N blocks, or all. Starts from trained features.")
    ] = "none",
    backbone_learning_rate: Annotated[float, _in(BACKBONE, "Learning rate of its last block.")] = 1e-4,
    layer_decay: Annotated[float, _in(BACKBONE, "Each block before it learns at this share of the next.")] = 0.8,
    clip_frames: Annotated[int, _in(BACKBONE, "Sampled frames of a clip that one step looks at.")] = 32,
    checkpoint_gradients: Annotated[
        bool,
        _in(BACKBONE, "Compute activations twice instead of keeping them: less memory.", "--checkpoint-gradients"),
    ] = False,
    workers: Annotated[
        int,
        typer.Option(
            min=1, help="Processes that share the backbone's training, one a core or a GPU.", rich_help_panel=BACKBONE
        ),
    ] = 1,
    average_decay: Annotated[
        float, _in(LEARNING, "Keep a running mean of the weights; 0.99 looks back 100 steps, 0 keeps the last.")
    ] = 0.0,
    long: Annotated[
        Long,
        _in(
            LEARNING,
            "Learn from whole clips; from chunks with the state carried on (flat memory); or from windows, by their "
            "last frame.",
        ),
    ] = Long.whole,
    chunk_frames: Annotated[int, _in(LEARNING, "Sampled frames of such a chunk or window.")] = 128,
    seed: Annotated[int, _in(LEARNING, "The same seed gives the same model.")] = 0,
    report_thumbnails: Annotated[
        bool, _in(DATA, "Show small pictures of some clips in the model's report.html.", "--report-thumbnails")
    ] = False,
) -> None:
    """Train a model on labelled clips. Interrupted, the same command continues where it stopped."""
    from training.run import train as run
    from training.show import Show

    show = Show()
    with _workers(workers):
        run(
            clips,
            out,
            options=_recipe_options(
                frames_per_second=frames_per_second,
                max_frames=max_frames,
                size=size,
                fit=fit,
                backbone=backbone,
                weights=weights,
                precision=precision,
                cell=cell,
                num_layers=num_layers,
                between_layers=between_layers,
                hidden_size=hidden_size,
                bidirectional=bidirectional,
                learned_start=learned_start,
                window_frames=window_frames,
                normalisation=normalisation,
                readout=readout,
                lookahead_seconds=lookahead_seconds,
                several=several,
                unknown_below=unknown_below,
                unknown_precision=unknown_precision,
                dropout=dropout,
                epochs=epochs,
                patience_epochs=patience_epochs,
                batch_size=batch_size,
                learning_rate=learning_rate,
                label_smoothing=label_smoothing,
                class_balance=class_balance,
                mixup=mixup,
                motion=[part.strip() for part in motion.split(",") if part.strip()],
                motion_sign=motion_sign,
                motion_channels=motion_channels,
                augment_time=[change.strip() for change in augment_time.split(",") if change.strip()],
                augment_frames=[change.strip() for change in augment_frames.split(",") if change.strip()],
                num_views=num_views,
                unfreeze=unfreeze,
                backbone_learning_rate=backbone_learning_rate,
                layer_decay=layer_decay,
                clip_frames=clip_frames,
                checkpoint_gradients=checkpoint_gradients,
                average_decay=average_decay,
                long=long,
                chunk_frames=chunk_frames,
                seed=seed,
            ),
            group_by=group_by,
            background=background,
            num_folds=folds,
            on_bad=on_bad.value,
            device=torch_device(device),
            report_thumbnails=report_thumbnails,
            num_workers=workers,
            show=show,
        )
    show.say(f"the model is in {out}, with its report.html; try: vidseq predict {out} CLIP")


@app.command()
def evaluate(
    model: ModelFolder,
    clips: ClipsFolder,
    json: FiguresFile = None,
    group_by: DrawnTogether = None,
    on_bad: Bad = OnBad.stop,
    device: Device = "cpu",
) -> None:
    """Measure a model on labelled clips, beside a mean of frames and a frame alone; say whether it uses time."""
    check_writable(json)
    from training.measure import evaluate_model
    from training.show import Show

    show = Show()
    evaluation = evaluate_model(
        model, clips, group_by=group_by, on_bad=on_bad.value, device=torch_device(device), show=show
    )
    show.evaluation(evaluation, title=f"{model} on {clips}")
    if json is not None:
        json.write_text(evaluation.model_dump_json(indent=2) + "\n")


@app.command()
def compare(
    model_a: Annotated[Path, typer.Argument(help="A model's folder.", metavar="MODEL_A")],
    model_b: Annotated[Path, typer.Argument(help="The one that may be better.", metavar="MODEL_B")],
    clips: ClipsFolder,
    json: FiguresFile = None,
    group_by: DrawnTogether = None,
    on_bad: Bad = OnBad.stop,
    device: Device = "cpu",
) -> None:
    """Compare two models on the same labelled clips: differences in pairs, what changed, and what each costs."""
    check_writable(json)
    from training.measure import compare_models
    from training.show import Show

    show = Show()
    comparison = compare_models(
        model_a, model_b, clips, group_by=group_by, on_bad=on_bad.value, device=torch_device(device), show=show
    )
    show.comparison(comparison)
    if json is not None:
        json.write_text(comparison.model_dump_json(indent=2) + "\n")


@app.command()
def predict(
    model: ModelFolder,
    clip: Annotated[Path, typer.Argument(help="A video file.")],
    start: Annotated[float, typer.Option(help="Look from here, in seconds.")] = 0.0,
    end: Annotated[float | None, typer.Option(help="Look up to here, in seconds.")] = None,
    top_k: Annotated[int, typer.Option(min=1, help="How many actions to name.")] = 5,
    json: Annotated[bool, typer.Option("--json", help="Print one Prediction as JSON and nothing else.")] = False,
    picture: Annotated[Path | None, typer.Option(help="Also draw the timeline into this PNG, SVG or PDF.")] = None,
    early_exit: Annotated[
        float | None, typer.Option(help="Stop once the action's calibrated score is at least this, 0.5 to 1 ...")
    ] = None,
    early_hold: Annotated[
        float | None, typer.Option(help="... and has been for so many seconds; 1 if not given.")
    ] = None,
    device: Device = "cpu",
) -> None:
    """Label one clip on this machine."""
    from vidseq.classifier import Classifier
    from vidseq.timeline import draw, show

    classifier = Classifier.load(model, device=torch_device(device))
    prediction = classifier.classify(
        clip, start_seconds=start, end_seconds=end, top_k=top_k, early_exit=_early_exit(early_exit, early_hold)
    )
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
    device: Device = "cpu",
) -> None:
    """Label a camera, a stream or a file as it plays, on this machine, until it ends or is interrupted."""
    from rich.console import Console

    from vidseq.watch import watch as run

    console = Console(highlight=False)
    run(model, source, device=torch_device(device), json=json, annotate=annotate, window=window, console=console)


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
    keys: Annotated[
        Path | None, typer.Option(help="A file with the keys that seal sessions; else made for this run.")
    ] = None,
) -> None:
    """Serve a model over HTTP on this machine until interrupted."""
    from serving.launch import serve as run

    run(model, host=host, port=port, device=device, num_replicas=replicas, store=store, keys=keys)


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


@contextmanager
def _workers(num_workers: int) -> Iterator[None]:
    """A Ray to share the work on, where one process is not enough."""
    if num_workers == 1:
        yield
        return
    from serving.local_ray import local_ray

    with local_ray():
        yield


def _recipe_options(*, frames_per_second: str, unfreeze: str, **settings: Any) -> "Options":
    """What was typed, checked by the recipe; the sentence names the option."""
    from training.recipes import Options

    if unfreeze not in ("none", "all") and not (unfreeze.isdecimal() and int(unfreeze)):
        raise OptionError(f"--unfreeze: {unfreeze!r} is neither none, all nor a number of blocks")

    try:
        rate = "native" if frames_per_second == "native" else float(frames_per_second)
    except ValueError:
        raise OptionError(f"--frames-per-second: {frames_per_second!r} is neither a number nor native") from None
    try:
        return Options.model_validate({"frames_per_second": rate, "unfreeze": unfreeze, **settings})
    except ValidationError as error:
        field, mistake = first_mistake(error)
        name = {"patience_epochs": "patience", "num_views": "views"}.get(field, field)
        raise OptionError(f"--{name.replace('_', '-')}: {mistake}") from None


def check_writable(json: Path | None) -> None:
    """Asked before the work whose figures go there.

    Raises:
        OptionError: no file can be written at `json`.
    """
    if json is not None and (json.is_dir() or not json.parent.is_dir()):
        raise OptionError(f"--json: no file can be written at {json}")


def torch_device(name: str) -> str:
    """The name of a device, once a tensor has been there and back.

    Raises:
        OptionError: torch knows no such device, or cannot reach it.
    """
    import torch

    try:
        torch.zeros(1, device=name).cpu()
    except (RuntimeError, AssertionError) as error:  # torch without CUDA asserts
        raise OptionError(f"--device: {name!r} cannot be used: {str(error).splitlines()[0]}") from None
    return name
