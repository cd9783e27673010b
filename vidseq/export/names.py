"""A name for each of many clips, below one folder: no two the same, and none that leads out. Knows no files."""

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import PurePosixPath


def names_of(paths: Sequence[str]) -> list[str]:
    """For each path or URL, itself below the folder that all share, without its suffix.

    Those that differ in their suffix alone keep it; those that are still the same get a number.
    """
    every = [PurePosixPath(os.path.normpath(path.partition("://")[2] or path)) for path in paths]
    alike = len({path.is_absolute() for path in every}) == 1
    shared = os.path.commonpath({str(path.parent) for path in every}) if every and alike else ""
    inside = [_inside(path, shared) for path in every]
    stems = [str(path.with_suffix("")) for path in inside]
    num_stems = Counter(stems)
    plain = [stem if num_stems[stem] == 1 else str(path) for stem, path in zip(stems, inside, strict=True)]
    taken, named = set(plain), Counter[str]()
    names = []
    for name in plain:
        named[name] += 1
        fresh, number = name, named[name]
        while number > 1 and (fresh := f"{name}-{number}") in taken:
            number += 1
        named[name] = number
        taken.add(fresh)
        names.append(fresh)
    return names


def _inside(path: PurePosixPath, shared: str) -> PurePosixPath:
    below = path.relative_to(shared) if shared and path.is_relative_to(shared) else path
    parts = [part for part in below.parts if part not in ("/", "//", "..")]
    return PurePosixPath(*parts or ["clip"])
