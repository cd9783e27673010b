"""A folder of labelled clips, read and checked. Knows nothing of pixels: what cannot be decoded shows later.

    clips.csv       path, label, any group column, split         or   CLIPS/LABEL/clip.mp4
    segments.csv    path, start_seconds, end_seconds, label      or   CLIPS/train/LABEL/clip.mp4, CLIPS/val/LABEL/...

A folder of pictures counts as a clip. All mistakes are reported together, each with its file and line.

Shape letters: T sampled frames.
"""

import csv
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from training.fit import IGNORED
from vidseq.errors import DatasetError
from vidseq.pictures import picture_paths

SPLITS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
VIDEO_SUFFIXES = frozenset({".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".ts", ".m2ts", ".mts"})


@dataclass(frozen=True)
class LabelledSegment:
    """[start_seconds, end_seconds) of one frame label."""

    start_seconds: float
    end_seconds: float
    label: str


@dataclass(frozen=True)
class LabelledClip:
    """One clip. `label` is its action, None where only its frames are labelled; `segments` are in order, apart."""

    path: Path
    label: str | None
    group: str | None
    split: str | None
    segments: tuple[LabelledSegment, ...] = ()


@dataclass(frozen=True)
class ClipFolder:
    """What was read: labels are sorted; `background` is one of the frame labels, or None."""

    root: Path
    clips: tuple[LabelledClip, ...]
    action_labels: tuple[str, ...]
    frame_labels: tuple[str, ...]
    background: str | None
    warnings: tuple[str, ...]


def read_clips(folder: Path, *, group_by: str | None = None, background: str | None = None) -> ClipFolder:
    """Read a folder in any of the forms above.

    Args:
        group_by: a column of clips.csv; clips that share its value never lie on both sides of a split.
        background: the frame label of nothing in particular. Time between segments is given it as well; without one
            that time has no label.

    Raises:
        DatasetError: every mistake in it.
    """
    if not folder.is_dir():
        raise DatasetError([f"{folder}: there is no such folder"])
    problems: list[str] = []
    if (folder / "clips.csv").is_file():
        clips = _from_table(folder, group_by, problems)
        clips = _with_segments(folder, clips, problems)
    else:
        if group_by is not None:
            problems.append(f"{folder}: --group-by {group_by} needs a clips.csv with that column")
        clips = list(_from_folders(folder))
    if not clips and not problems:
        problems.append(f"{folder}: there are no clips, neither in a clips.csv nor in one folder per class")
    frame_labels = sorted({segment.label for clip in clips for segment in clip.segments})
    if background is not None and not frame_labels:
        problems.append(f"{folder}: a background needs frame labels, and there is no segments.csv")
    if problems:
        raise DatasetError(problems)
    if background is not None and background not in frame_labels:
        frame_labels = sorted([*frame_labels, background])
    return ClipFolder(
        root=folder,
        clips=tuple(clips),
        action_labels=tuple(sorted({clip.label for clip in clips if clip.label is not None})),
        frame_labels=tuple(frame_labels),
        background=background,
        warnings=_warnings(clips),
    )


def frame_targets(
    clip: LabelledClip, seconds_T: NDArray[np.float64], frame_labels: Sequence[str], background: str | None
) -> NDArray[np.int64]:
    """The index of each sampled frame's label, int64[T]; `IGNORED` where it has none."""
    unlabelled = frame_labels.index(background) if background is not None and clip.segments else IGNORED
    target_T = np.full(len(seconds_T), unlabelled, dtype=np.int64)
    for segment in clip.segments:
        inside_T = (seconds_T >= segment.start_seconds) & (seconds_T < segment.end_seconds)
        target_T[inside_T] = frame_labels.index(segment.label) if segment.label in frame_labels else IGNORED
    return target_T


def too_small_warnings(clips: Sequence[LabelledClip], num_folds: int) -> list[str]:
    """A sentence for every class with fewer clips, or fewer groups, than folds."""
    warnings = []
    for label in sorted({clip.label for clip in clips if clip.label is not None}):
        members = [clip for clip in clips if clip.label == label]
        groups = {clip.group or str(clip.path) for clip in members}
        if len(groups) < num_folds:
            kind = "groups" if any(clip.group for clip in members) else "clips"
            warnings.append(f"{label!r} has only {len(groups)} {kind}: too few for {num_folds} folds")
    return warnings


def _from_table(folder: Path, group_by: str | None, problems: list[str]) -> list[LabelledClip]:
    wanted = ["path", "label", *([group_by] if group_by is not None else [])]
    clips: list[LabelledClip] = []
    seen: dict[Path, int] = {}
    for line, row in _rows(folder / "clips.csv", wanted, problems):
        where = f"clips.csv:{line}"
        path = _inside(folder, row["path"], where, problems)
        split = row.get("split") or None
        if split is not None and split not in SPLITS:
            problems.append(f"{where}: the split {split!r} is not one of {', '.join(SPLITS)}")
        if path is None:
            continue
        if path in seen:
            problems.append(f"{where}: {row['path']} is already on line {seen[path]}")
        seen[path] = line
        group = row[group_by] or None if group_by is not None else None
        clips.append(LabelledClip(path, row["label"] or None, group, SPLITS.get(split or "")))
    return clips


def _with_segments(folder: Path, clips: list[LabelledClip], problems: list[str]) -> list[LabelledClip]:
    """The clips with the segments of segments.csv, if there is one."""
    table = folder / "segments.csv"
    if not table.is_file():
        return clips
    known = {clip.path for clip in clips}
    found: dict[Path, list[tuple[int, LabelledSegment]]] = {}
    for line, row in _rows(table, ["path", "start_seconds", "end_seconds", "label"], problems):
        where = f"segments.csv:{line}"
        segment = _segment(row, where, problems)
        path = folder / row["path"]
        if path not in known:
            problems.append(f"{where}: {row['path']!r} is not in clips.csv")
        elif segment is not None:
            found.setdefault(path, []).append((line, segment))
    for path, segments in found.items():
        segments.sort(key=lambda item: item[1].start_seconds)
        for (line, left), (other, right) in pairwise(segments):
            if right.start_seconds < left.end_seconds:
                problems.append(f"segments.csv:{other}: overlaps the segment on line {line} of {path.name}")
    return [replace(clip, segments=tuple(s for _, s in found.get(clip.path, ()))) for clip in clips]


def _segment(row: dict[str, str], where: str, problems: list[str]) -> LabelledSegment | None:
    try:
        start_seconds, end_seconds = float(row["start_seconds"]), float(row["end_seconds"])
    except ValueError:
        problems.append(f"{where}: start_seconds and end_seconds must be numbers")
        return None
    if not (math.isfinite(end_seconds) and 0 <= start_seconds < end_seconds):
        problems.append(f"{where}: [{start_seconds:g}, {end_seconds:g}) is not an interval of time")
        return None
    if not row["label"]:
        problems.append(f"{where}: the label is missing")
        return None
    return LabelledSegment(start_seconds, end_seconds, row["label"])


def _rows(table: Path, wanted: Sequence[str], problems: list[str]) -> Iterator[tuple[int, dict[str, str]]]:
    """Line number and cells of every row that has all wanted columns; what is wrong goes to `problems`."""
    try:
        text = table.read_text(encoding="utf-8-sig")
        reader = csv.DictReader(text.splitlines(), strict=True)
        missing = [column for column in wanted if column not in (reader.fieldnames or ())]
        if missing:
            problems.append(f"{table.name}:1: there is no column {', '.join(map(repr, missing))}")
            return
        for row in reader:
            cells = {name: (value or "").strip() for name, value in row.items() if isinstance(name, str)}
            if None in row or any(row[column] is None for column in wanted):
                problems.append(f"{table.name}:{reader.line_num}: the number of cells is not that of the header")
            else:
                yield reader.line_num, cells
    except UnicodeDecodeError:
        problems.append(f"{table.name}: is not UTF-8 text")
    except csv.Error as error:
        problems.append(f"{table.name}: is not CSV: {error}")


def _inside(folder: Path, name: str, where: str, problems: list[str]) -> Path | None:
    """The clip's path if it is a file, or a folder of pictures, inside `folder`."""
    path = folder / name
    if not name or not path.resolve().is_relative_to(folder.resolve()):
        problems.append(f"{where}: {name!r} is not a path inside {folder}")
        return None
    if not path.is_file() and not _is_pictures(path):
        problems.append(f"{where}: there is no clip {name}")
        return None
    return path


def _from_folders(folder: Path) -> Iterator[LabelledClip]:
    """One folder per class; above them, perhaps, one per split."""
    splits = {child.name: child for child in _folders(folder) if child.name in SPLITS}
    if "train" in splits and not any(_clip_paths(child) for child in splits.values()):
        roots: list[tuple[str | None, Path]] = [(SPLITS[name], child) for name, child in splits.items()]
    else:
        roots = [(None, folder)]
    for split, root in roots:
        for child in _folders(root):
            for path in _clip_paths(child):
                yield LabelledClip(path, child.name, None, split)


def _folders(folder: Path) -> list[Path]:
    return sorted(child for child in folder.iterdir() if child.is_dir() and not child.name.startswith("."))


def _clip_paths(folder: Path) -> list[Path]:
    videos = [path for path in folder.iterdir() if path.is_file() and path.suffix.lower() in VIDEO_SUFFIXES]
    return sorted(videos + [path for path in _folders(folder) if _is_pictures(path)])


def _is_pictures(path: Path) -> bool:
    return path.is_dir() and bool(picture_paths(path))


def _warnings(clips: Sequence[LabelledClip]) -> tuple[str, ...]:
    counts = Counter(clip.label for clip in clips if clip.label is not None)
    alone = sorted(label for label, count in counts.items() if count == 1)
    warnings = [f"{label!r} has one clip only: it cannot be both learnt and tested" for label in alone]
    if len(counts) == 1:
        warnings.append(f"all clips have the label {next(iter(counts))!r}: there is nothing to tell apart")
    return tuple(warnings)
