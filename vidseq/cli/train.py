"""`vidseq train`: labelled clips in, a model out."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from pydantic import ValidationError

from training.settings import ClassBalance, Long
from vidseq.cli.app import app
from vidseq.cli.arguments import ClipsFolder, OnBad, torch_device
from vidseq.config import BetweenLayers, CellName, Fit, MotionSign, Normalisation, Readout, first_mistake
from vidseq.errors import OptionError

if TYPE_CHECKING:
    from training.options import Options

RecipeName = Literal["default", "motion", "segments"]
Precision = Literal["float32", "bfloat16"]
AnyCell = Literal[CellName, "none"]

DATA, PICTURES, MODEL, LEARNING = "Clips", "Frames and their features", "Sequence model", "Training"
BACKBONE = "Training the backbone"


def _in(panel: str, help: str, *names: str) -> Any:
    """An option that `--help` shows in this panel."""
    return typer.Option(*names, help=help, rich_help_panel=panel)


@app.command()
def train(
    context: typer.Context,
    clips: ClipsFolder,
    out: Annotated[Path, typer.Option(help="The folder that will hold the model.")],
    recipe: Annotated[
        RecipeName,
        typer.Option(
            help="What to start from; your other options come on top. motion: actions that a single frame does not "
            "tell. segments: a label for every frame of whole files."
        ),
    ] = "default",
    group_by: Annotated[
        str | None, _in(DATA, "A column of clips.csv: clips that share it stay on one side of a split.")
    ] = None,
    background: Annotated[
        str | None, _in(DATA, "The frame label of nothing of interest; gaps between segments get it too.")
    ] = None,
    several: Annotated[
        bool, _in(DATA, "A clip may show several actions: clips.csv parts them by |, and a lone | is none.")
    ] = False,
    on_bad: Annotated[OnBad, _in(DATA, "What to do with a clip that cannot be decoded.")] = "stop",
    folds: Annotated[int | None, _in(DATA, "Cross-validate with this many folds, then train on all.")] = None,
    frames_per_second: Annotated[str, _in(PICTURES, "Sampling rate, or native for every frame.")] = "8",
    max_frames: Annotated[int | None, _in(PICTURES, "At most this many of a clip, by halving the rate.")] = None,
    size: Annotated[int, _in(PICTURES, "Side of the square that the backbone sees, in pixels.")] = 224,
    fit: Annotated[
        Fit, _in(PICTURES, "How a frame becomes it: its middle, all of it between bars, or all of it without.")
    ] = "crop",
    motion: Annotated[
        str, _in(PICTURES, "Also see what changed since the frame before, in any of last,middle (maps),pooled.")
    ] = "",
    motion_sign: Annotated[MotionSign, _in(PICTURES, "What is taken of a change.")] = "absolute",
    motion_channels: Annotated[int, _in(PICTURES, "Channels of a map that a stream remembers.")] = 128,
    backbone: Annotated[
        str, _in(PICTURES, "efficientnet-lite0 (packaged), a torchvision model, or timm:NAME.")
    ] = "efficientnet-lite0",
    weights: Annotated[str, _in(PICTURES, "default, none, or a file of weights for the backbone.")] = "default",
    precision: Annotated[Precision, _in(PICTURES, "What the backbone computes in.")] = "float32",
    features: Annotated[
        Path | None,
        _in(PICTURES, "A store (`vidseq features`): clips whose features are there are not decoded, others are added."),
    ] = None,
    device: Annotated[str, _in(PICTURES, "Where the backbone runs: cpu, cuda, cuda:1 ...")] = "cpu",
    cell: Annotated[
        AnyCell,
        _in(MODEL, "What reads frames in order: a recurrent cell, one that sees a window of the past, or none."),
    ] = "gru",
    num_layers: Annotated[int, _in(MODEL, "Layers of it, 1 to 4.")] = 1,
    between_layers: Annotated[
        BetweenLayers, _in(MODEL, "How a layer's input goes on beside its output; highway learns how much.")
    ] = "plain",
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
    ] = "layer",
    readout: Annotated[
        Readout, _in(MODEL, "How the action is read from the hidden states; statistics: their mean and spread.")
    ] = "mean",
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
    stop_early: Annotated[
        bool, _in(LEARNING, "Hold out some clips to say when; else learn from all, for all epochs.")
    ] = True,
    batch_size: Annotated[int, _in(LEARNING, "Clips a step.")] = 16,
    learning_rate: Annotated[float, _in(LEARNING, "Its highest value.")] = 2e-3,
    label_smoothing: Annotated[
        float, _in(LEARNING, "Share of each target that is spread over all labels, so that nothing is learnt by rote.")
    ] = 0.1,
    class_balance: Annotated[
        ClassBalance,
        _in(LEARNING, "For rare labels: weigh their loss, draw their clips more often, or shift logits by how rare."),
    ] = "none",
    mixup: Annotated[
        float, _in(LEARNING, "Lay two clips over each other in shares from Beta(mixup, mixup); 0 does not.")
    ] = 0.0,
    augment_time: Annotated[
        str,
        _in(LEARNING, "Change clips in time, any of crop,drop,speed,reverse; reverse if labels mean the same then."),
    ] = "",
    augment_frames: Annotated[
        str,
        _in(
            LEARNING,
            "Change frames, any of wide,crop,colour,grey,flip. wide: one view has the whole frame; flip if left and "
            "right mean the same.",
        ),
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
    ] = "whole",
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
            options=options_of(context, recipe),
            group_by=group_by,
            background=background,
            num_folds=folds,
            on_bad=on_bad,
            features=features,
            device=torch_device(device),
            report_thumbnails=report_thumbnails,
            num_workers=workers,
            show=show,
        )
    show.say(f"the model is in {out}, with its report.html; try: vidseq predict {out} CLIP")


def options_of(context: typer.Context, recipe: RecipeName) -> "Options":
    """Those of the recipe, but for what was typed; a mistake is told by the option's name."""
    from training.options import Options
    from training.recipes import RECIPES

    sources = {name: context.get_parameter_source(name) for name in context.params}
    typed = {
        name: context.params[name]
        for name, source in sources.items()
        if name in Options.model_fields and source is not None and source.name != "DEFAULT"
    }
    _check_words(typed)
    try:
        return Options.model_validate({**RECIPES[recipe]().model_dump(), **typed})
    except ValidationError as error:
        field, mistake = first_mistake(error)
        field = field.partition(".")[0]  # of a list, its option, not the number of what is wrong in it
        name = {"patience_epochs": "patience", "num_views": "views"}.get(field, field)
        raise OptionError(f"--{name.replace('_', '-')}: {mistake}") from None


def _check_words(typed: dict[str, Any]) -> None:
    """Where a number or a word may stand, a sentence of both says more than one for each."""
    unfreeze, rate = typed.get("unfreeze", "none"), typed.get("frames_per_second", "native")
    if unfreeze not in ("none", "all") and not (unfreeze.isdecimal() and int(unfreeze)):
        raise OptionError(f"--unfreeze: {unfreeze!r} is neither none, all nor a number of blocks")
    try:
        float("8" if rate == "native" else rate)
    except ValueError:
        raise OptionError(f"--frames-per-second: {rate!r} is neither a number nor native") from None


@contextmanager
def _workers(num_workers: int) -> Iterator[None]:
    """A Ray to share the work on, where one process is not enough."""
    if num_workers == 1:
        yield
        return
    from serving.local_ray import local_ray

    with local_ray():
        yield
