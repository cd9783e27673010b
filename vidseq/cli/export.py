"""`vidseq export`: labels in the forms of other tools."""

from pathlib import Path
from typing import Annotated

import typer

from vidseq.cli.app import app
from vidseq.export.forms import Form

_NEXT = {
    "csv": "`vidseq train` reads the tables if this folder holds the clips",
    "webvtt": "give a player the clip and its .vtt",
    "elan": "open a file in ELAN",
    "fiftyone": "fo.Dataset.from_dir({folder!r}, fo.types.FiftyOneTemporalDetectionDataset, data_path='data.json', "
    "compute_metadata=True)",
}


@app.command()
def export(
    results: Annotated[
        Path,
        typer.Argument(
            metavar="RESULTS", help="A table or folder of `vidseq score`, or what `vidseq predict --json` has printed."
        ),
    ],
    to: Annotated[Form, typer.Option(help="csv tables, webvtt captions, ELAN's .eaf, or a dataset of FiftyOne.")],
    out: Annotated[Path, typer.Option(help="The folder to write to.")],
    clip: Annotated[str | None, typer.Option(help="The clip of a Prediction, which does not know its name.")] = None,
    model: Annotated[
        str | None, typer.Option(metavar="NAME", help="Whose labels, if several have labelled (`score --also`).")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Also over files that are there already.")] = False,
) -> None:
    """Write labels for other tools; clips that failed are left out."""
    from vidseq.export.forms import export as run
    from vidseq.export.labelled import read_labelled

    num_clips = run(read_labelled(results, clip=clip, model=model), to, out, overwrite=overwrite)
    typer.echo(f"{num_clips:,} clips in {out}; {_NEXT[to].format(folder=str(out))}")
