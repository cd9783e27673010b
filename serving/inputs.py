"""Files, folders and globs become a list of clips, before any work is done. Knows nothing of what is in them."""

import glob
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from vidseq.errors import OptionError

VIDEO_SUFFIXES = (".avi", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mts", ".ts", ".webm")


def find_clips(inputs: Sequence[str]) -> list[str]:
    """The paths that the inputs stand for, sorted, each file once.

    A folder stands for the videos in it at any depth, by their suffix; a file, and what a glob finds, for itself.

    Raises:
        OptionError: one of the inputs stands for nothing.
    """
    if not inputs:
        raise OptionError("name at least one clip, folder or glob to score")
    paths = sorted(path for item in inputs for path in _expand(item))
    return list({os.path.abspath(path): path for path in reversed(paths)}.values())[::-1]


def check_output(out: Path, *, suffixes: Sequence[str], clips: Sequence[str]) -> None:
    """Raises OptionError for an output that could not be written in the end, or would take the place of a clip."""
    if out.suffix not in suffixes:
        raise OptionError(f"{str(out)!r} must end in {' or '.join(suffixes)}: that is how the format is chosen")
    if out.is_dir():
        raise OptionError(f"{str(out)!r} is a folder")
    if not out.parent.is_dir():
        raise OptionError(f"there is no folder {str(out.parent)!r} to write {out.name!r} to")
    if not os.access(out.parent, os.W_OK | os.X_OK):
        raise OptionError(f"the folder {str(out.parent)!r} cannot be written to")
    if out.exists() and any(os.path.samefile(out, clip) for clip in clips if os.path.exists(clip)):
        raise OptionError(f"{str(out)!r} is one of the clips, and would be overwritten")


def _expand(item: str) -> list[str]:
    if os.path.isdir(item):
        if found := list(_videos(item)):
            return found
        raise OptionError(f"there are no videos in {item!r} ({' '.join(VIDEO_SUFFIXES)})")
    if os.path.lexists(item):
        return [item]
    if found := [path for path in glob.iglob(item, recursive=True) if not os.path.isdir(path)]:
        return found
    raise OptionError(f"nothing matches {item!r}")


def _videos(folder: str) -> Iterator[str]:
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            if name.lower().endswith(VIDEO_SUFFIXES) and not name.startswith("."):
                yield os.path.join(parent, name)
