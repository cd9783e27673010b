"""What is in a store, whether it is whole, and what of it may go. Knows nothing of how features are made or used."""

import json
import shutil
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vidseq.errors import OptionError
from vidseq.features.row_files import is_whole
from vidseq.features.store import RECIPE, SUFFIX, FeatureStore

LEFTOVER_SECONDS = 86_400.0  # nobody writes a file for so long


@dataclass(frozen=True)
class Contents:
    """What is kept of one recipe."""

    recipe: str
    described: dict[str, Any]
    num_files: int
    num_bytes: int
    newest_seconds: float  # since the epoch


def contents(folder: Path) -> list[Contents]:
    """Of every recipe in a store, the newest last.

    Raises:
        OptionError: there is no store.
    """
    found = []
    for recipe in _recipes(folder):
        stats = [file.stat() for file in _files(recipe)]
        found.append(
            Contents(
                recipe=recipe.name,
                described=_described(recipe),
                num_files=len(stats),
                num_bytes=sum(stat.st_size for stat in stats),
                newest_seconds=max((stat.st_mtime for stat in stats), default=0.0),
            )
        )
    return sorted(found, key=lambda each: each.newest_seconds)


def damaged(folder: Path) -> Iterator[Path | None]:
    """Each file in turn: its path if it is damaged, None if it is whole. They are read to their ends.

    Raises:
        OptionError: there is no store.
    """
    for recipe in _recipes(folder):
        for file in _files(recipe):
            yield None if is_whole(file) else file


def prune(
    folder: Path,
    *,
    recipes: Collection[str] = (),
    clips: Collection[str] = (),
    older_than_seconds: float | None = None,
) -> tuple[int, int]:
    """Remove what is of one of these recipes or clips (SHA-256 in hexadecimal), or was kept longer ago than that.

    Returns:
        how many files went, and their bytes.

    Raises:
        OptionError: there is no store, or no such recipe in it.
    """
    present = {recipe.name: recipe for recipe in _recipes(folder)}
    if unknown := sorted(set(recipes) - present.keys()):
        raise OptionError(f"there are no features of {unknown[0]} in {str(folder)!r}, but of {', '.join(present)}")
    oldest_seconds = -1.0 if older_than_seconds is None else time.time() - older_than_seconds
    num_files = num_bytes = 0
    for name, recipe in present.items():
        for file in _files(recipe):
            stat = file.stat()
            if name in recipes or file.stem.partition("-")[0] in clips or stat.st_mtime < oldest_seconds:
                file.unlink()
                num_files, num_bytes = num_files + 1, num_bytes + stat.st_size
        if name in recipes:
            shutil.rmtree(recipe)
        else:
            _remove_leftovers(recipe)
    return num_files, num_bytes


def _remove_leftovers(recipe: Path) -> None:
    """What a writer left behind that was killed: the halves of files, under names of their own."""
    for half in recipe.glob(f"??/.*{SUFFIX}.*"):
        if half.stat().st_mtime < time.time() - LEFTOVER_SECONDS:
            half.unlink()


def _described(recipe: Path) -> dict[str, Any]:
    """Nothing, where a recipe was pruned while somebody wrote."""
    try:
        described: dict[str, Any] = json.loads((recipe / RECIPE).read_bytes())
        return described
    except FileNotFoundError:
        return {}


def _recipes(folder: Path) -> list[Path]:
    FeatureStore(folder)
    if not folder.is_dir():
        raise OptionError(f"there is no store of features at {str(folder)!r}")
    return sorted(recipe for recipe in folder.iterdir() if (recipe / RECIPE).exists() or _files(recipe))


def _files(recipe: Path) -> list[Path]:
    return sorted(recipe.glob(f"??/*{SUFFIX}"))
