"""`vidseq store`: a store of features, shown, checked and made smaller. Knows no model and no video."""

import re
from pathlib import Path
from typing import Annotated, Any

import typer

from vidseq.cli.app import app
from vidseq.cli.arguments import seconds_of
from vidseq.errors import OptionError

store = typer.Typer(help="Show, check and prune a store of features (`vidseq features`).", no_args_is_help=True)
app.add_typer(store, name="store")

_DIGEST = re.compile("[0-9a-f]{64}")

Folder = Annotated[Path, typer.Argument(metavar="STORE", help="The folder, as of `vidseq features --out`.")]


@store.command()
def show(folder: Folder) -> None:
    """List what features there are: of which backbone, rate and pictures, of how many clips, how many bytes."""
    from datetime import UTC, datetime

    from rich.console import Console
    from rich.filesize import decimal
    from rich.table import Table

    from vidseq.features.store import FeatureStore
    from vidseq.features.upkeep import contents

    table = Table("recipe", "of", "clips", "size", "newest", box=None)
    for column in (0, 3, 4):
        table.columns[column].no_wrap = True
    for found in contents(folder):
        newest = datetime.fromtimestamp(found.newest_seconds, UTC)
        table.add_row(
            found.recipe,
            _in_words(found.described),
            f"{found.num_files:,}",
            decimal(found.num_bytes),
            f"{newest:%Y-%m-%d}" if found.num_files else "",
        )
    Console().print(table)
    typer.echo(f"features are kept as {FeatureStore(folder).kind}")


@store.command()
def verify(
    folder: Folder,
    remove: Annotated[bool, typer.Option("--remove", help="Remove what is damaged; it will be made again.")] = False,
) -> None:
    """Read every file against its sums; exit with 1 if one is damaged."""
    from vidseq.features.upkeep import damaged

    num_files, found = 0, []
    for file in damaged(folder):
        num_files += 1
        if file is not None:
            found.append(file)
            typer.echo(f"damaged{', removed' if remove else ''}: {file}")
            if remove:
                file.unlink()
    typer.echo(f"{num_files - len(found):,} of {num_files:,} files are whole")
    if found:
        raise typer.Exit(1)


@store.command()
def prune(
    folder: Folder,
    recipe: Annotated[
        list[str] | None, typer.Option(help="All features of this recipe, as `vidseq store show` names it.")
    ] = None,
    clip: Annotated[
        list[str] | None, typer.Option(help="All features of this clip: a file, or the SHA-256 of one that is gone.")
    ] = None,
    older_than: Annotated[
        str | None, typer.Option(metavar="TIME", help="All that was kept longer ago: 12h, 30d or 8w.")
    ] = None,
) -> None:
    """Remove features: of a backbone that is gone, of a clip that must be forgotten, or old ones."""
    from rich.filesize import decimal

    from vidseq.features.hashes import content_hash
    from vidseq.features.upkeep import prune as run

    if not (recipe or clip or older_than):
        raise OptionError("say what is to go: --recipe, --clip or --older-than")
    num_files, num_bytes = run(
        folder,
        recipes=recipe or (),
        clips=[each if _DIGEST.fullmatch(each) else content_hash(Path(each)).hex() for each in clip or ()],
        older_than_seconds=None if older_than is None else seconds_of(older_than, option="--older-than"),
    )
    if clip and not num_files:
        raise OptionError(f"there are no features of {', '.join(clip)} in {str(folder)!r}")
    typer.echo(f"removed {num_files:,} files, {decimal(num_bytes)}")


def _in_words(described: dict[str, Any]) -> str:
    if not described:
        return "nobody knows: it has no recipe.json"
    encoder, picture, sampling = (described[name] for name in ("encoder", "picture", "sampling"))
    rate = sampling["frames_per_second"]
    words = [encoder["backbone"], f"{picture['size']} {picture['fit']}"]
    words.append("every frame" if rate == "native" else f"{rate:g} a second")
    if encoder["motion"]:
        words.append("motion")
    return ", ".join(words)
