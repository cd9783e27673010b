"""`vidseq evaluate` and `vidseq compare`: how good a model is on labelled clips."""

from pathlib import Path
from typing import Annotated

import typer

from vidseq.cli.app import app
from vidseq.cli.arguments import (
    Bad,
    ClipsFolder,
    Device,
    DrawnTogether,
    FiguresFile,
    ModelFolder,
    RequireSignature,
    check_writable,
    torch_device,
)


@app.command()
def evaluate(
    model: ModelFolder,
    clips: ClipsFolder,
    json: FiguresFile = None,
    group_by: DrawnTogether = None,
    on_bad: Bad = "stop",
    require_signature: RequireSignature = None,
    device: Device = "cpu",
) -> None:
    """Measure a model on labelled clips, beside a mean of frames and a frame alone; say whether it uses time."""
    check_writable(json)
    from training.evaluation import evaluate_model
    from training.show import Show

    show = Show()
    evaluation = evaluate_model(
        model,
        clips,
        group_by=group_by,
        on_bad=on_bad,
        device=torch_device(device),
        show=show,
        trusted_keys=require_signature,
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
    on_bad: Bad = "stop",
    require_signature: RequireSignature = None,
    device: Device = "cpu",
) -> None:
    """Compare two models on the same labelled clips: differences in pairs, what changed, and what each costs."""
    check_writable(json)
    from training.evaluation import compare_models
    from training.show import Show

    show = Show()
    comparison = compare_models(
        model_a,
        model_b,
        clips,
        group_by=group_by,
        on_bad=on_bad,
        device=torch_device(device),
        show=show,
        trusted_keys=require_signature,
    )
    show.comparison(comparison)
    if json is not None:
        json.write_text(comparison.model_dump_json(indent=2) + "\n")
