"""A folder of labelled clips, read and checked. Knows nothing of pixels: what cannot be decoded shows later.

    clips.csv       path,label[,split][,any group column]       or      LABEL/clip.mp4
    segments.csv    path,start_seconds,end_seconds,label        or      {train,val,test}/LABEL/clip.mp4

segments.csv may lie beside each of these forms. A folder of pictures counts as a clip. All mistakes are told together,
each with its file and line. A label is kept as it was given, slashes and all: `sport/tennis/serve`.

A clip without an action has an empty cell. Where clips may have several actions, the cell of clips.csv parts them:

    cry|laugh   both          cry   one          |   none of them          (empty)   nobody has said
"""

from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from training.data import checks
from training.data.checks import SEPARATOR, Findings, Mistake
from vidseq.errors import DatasetError
from vidseq.picture_folder import picture_paths

CLIPS_CSV, SEGMENTS_CSV = "clips.csv", "segments.csv"
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
    """One clip. `label` is its action, None where only its frames are labelled; `segments` are in order, apart.

    With `several` the label is a cell as above, its names in alphabetical order. Clips of one `group` (a recording, a
    person) belong on one side of any split.
    """

    path: Path
    label: str | None
    group: str | None
    split: str | None
    segments: tuple[LabelledSegment, ...] = ()
    several: bool = False

    @property
    def actions(self) -> tuple[str, ...] | None:
        """What it shows: one action, or any number with `several`; None where nobody has said."""
        if self.label is None:
            return None
        return tuple(filter(None, self.label.split(SEPARATOR))) if self.several else (self.label,)


@dataclass(frozen=True)
class ClipFolder:
    """What was read: labels are sorted; `background` is one of the frame labels, or None."""

    root: Path
    clips: tuple[LabelledClip, ...]
    action_labels: tuple[str, ...]
    frame_labels: tuple[str, ...]
    background: str | None
    warnings: tuple[str, ...]


def read_clips(
    folder: Path,
    *,
    group_by: str | None = None,
    background: str | None = None,
    several: bool = False,
    known_action_labels: Collection[str] | None = None,
    known_frame_labels: Collection[str] | None = None,
) -> ClipFolder:
    """Read a folder in any of the forms above. No clip is opened.

    Args:
        group_by: a column of clips.csv; clips that share its value never lie on both sides of a split.
        background: the frame label of nothing in particular. Time between segments is given it as well; without one
            that time has no label.
        several: a clip may have several actions; only clips.csv can say so.
        known_action_labels, known_frame_labels: if given (those of a model), any other label is a mistake.

    Raises:
        DatasetError: every mistake in it, as `file:line: what is wrong`.
    """
    if not folder.is_dir():
        raise DatasetError([f"{folder}: there is no such folder"])
    findings = Findings()
    if (folder / CLIPS_CSV).exists():
        listing = _read_clips_csv(
            folder, findings, group_by=group_by, several=several, known_labels=known_action_labels
        )
    else:
        listing = _walk_class_folders(folder, findings, known_labels=known_action_labels)
        if group_by is not None:
            findings.problems.append(f"{folder}: grouping by {group_by!r} needs a {CLIPS_CSV} with that column")
        if several:
            findings.problems.append(f"{folder}: several actions a clip need a {CLIPS_CSV} with labels such as a|b")
    segments: dict[Path, tuple[LabelledSegment, ...]] = {}
    if (folder / SEGMENTS_CSV).exists():
        segments = _read_segments_csv(folder, findings, listing=listing, known_labels=known_frame_labels)
    clips = tuple(replace(clip, segments=segments.get(key, ())) for key, (_, clip) in listing.items())
    frame_labels = {segment.label for clip in clips for segment in clip.segments}
    if background is not None:
        findings.ask(f"background {background!r}", _check_background, background, frame_labels, known_frame_labels)
        frame_labels.add(background)
    if not findings.problems:  # else what is missed here may be what could not be read
        for key, (where, clip) in listing.items():
            if clip.label is None and key not in segments:
                findings.problems.append(f"{where}: the clip has neither a label nor a segment")
    if findings.problems:
        raise DatasetError(findings.problems)
    return ClipFolder(
        root=folder,
        clips=clips,
        action_labels=_action_labels(clips),
        frame_labels=tuple(sorted(frame_labels)),
        background=background,
        warnings=(*findings.warnings, *_doubts(clips)),
    )


def too_small_warnings(clips: Sequence[LabelledClip], num_folds: int) -> list[str]:
    """A sentence for every class with fewer clips, or fewer groups, than folds; a train/val split counts as two."""
    warnings = []
    labels = _action_labels(clips)
    kind = "group(s)" if any(clip.group is not None for clip in clips) else "clip(s)"
    for label in labels:
        apart = {clip.group or str(clip.path) for clip in clips if label in (clip.actions or ())}
        if len(apart) < num_folds:
            warnings.append(f"{label!r} has only {len(apart)} {kind}: too few for {num_folds} folds")
    if len(labels) == 1 and not any(clip.several for clip in clips):
        warnings.append(f"all clips have the label {labels[0]!r}: there is nothing to tell apart")
    return warnings


def _action_labels(clips: Sequence[LabelledClip]) -> tuple[str, ...]:
    return tuple(sorted({action for clip in clips for action in clip.actions or ()}))


_Listing = dict[Path, tuple[str, LabelledClip]]  # by resolved path: the place that names the clip, and the clip


def _read_clips_csv(
    folder: Path, findings: Findings, *, group_by: str | None, several: bool, known_labels: Collection[str] | None
) -> _Listing:
    listing: _Listing = {}
    check = checks.check_labels if several else checks.check_label
    columns = ("path", "label") if group_by is None else ("path", "label", group_by)
    for where, row in checks.read_table(folder / CLIPS_CSV, findings, columns=columns):
        label = findings.ask(where, check, row["label"], known_labels) if row["label"] else None
        split = findings.ask(where, _check_split, row["split"]) if row.get("split") else None
        group = findings.ask(where, checks.check_name, row[group_by], group_by) if group_by is not None else None
        clip = LabelledClip(Path(row["path"]), label, group, split, several=several)
        findings.ask(where, _add, listing, folder, where, clip)
    unsplit = [where for where, clip in listing.values() if clip.split is None]
    if len(unsplit) < len(listing):
        findings.problems += [f"{where}: no split is given, but other clips have one" for where in unsplit]
    return listing


def _walk_class_folders(folder: Path, findings: Findings, *, known_labels: Collection[str] | None) -> _Listing:
    listing: _Listing = {}
    skipped: list[str] = []
    class_folders = list(_class_folders(folder, findings))
    for class_folder, split in class_folders:
        num_listed = len(listing)
        place = _shown(class_folder, folder)
        label = findings.ask(place, checks.check_label, class_folder.name, known_labels)
        for entry in findings.ask(place, checks.visible, class_folder) or ():
            where = _shown(entry, folder)
            if entry.suffix.lower() in VIDEO_SUFFIXES or entry.is_dir():
                clip = LabelledClip(entry.relative_to(folder), label, group=None, split=split)
                findings.ask(where, _add, listing, folder, where, clip)
            else:
                skipped.append(where)
        if len(listing) == num_listed:
            findings.problems.append(f"{place}: the class has no clips")
    if not class_folders:
        findings.problems.append(f"{folder}: there are no clips, neither in a {CLIPS_CSV} nor in one folder per class")
    if skipped:
        findings.warnings.append(f"{len(skipped)} file(s) skipped, no videos by their names: {', '.join(skipped[:3])}")
    return listing


def _class_folders(folder: Path, findings: Findings) -> Iterator[tuple[Path, str | None]]:
    """(folder of a class, split): those in `folder`, or those one deeper where `train` is not a class but a split."""

    def folders_in(parent: Path) -> list[Path]:
        entries = findings.ask(_shown(parent, folder), checks.visible, parent) or ()
        return [entry for entry in entries if entry.is_dir()]

    children = folders_in(folder)
    splits = [child for child in children if child.name in SPLITS]
    are_splits = any(child.name == "train" for child in splits) or len(splits) == len(children)
    if not are_splits or any(findings.ask(_shown(child, folder), _holds_clips, child) for child in splits):
        yield from ((child, None) for child in children)
        return
    for child in children:
        if child not in splits:
            findings.warnings.append(f"{_shown(child, folder)}: skipped, because it is not a split")
    for split in splits:
        yield from ((child, SPLITS[split.name]) for child in folders_in(split))


def _holds_clips(folder: Path) -> bool:
    return any(entry.suffix.lower() in VIDEO_SUFFIXES or _is_pictures(entry) for entry in checks.visible(folder))


def _is_pictures(path: Path) -> bool:
    try:
        return path.is_dir() and bool(picture_paths(path))
    except OSError as error:
        raise Mistake(f"{path.name!r} cannot be read: {error.strerror}") from error


def _add(listing: _Listing, folder: Path, where: str, clip: LabelledClip) -> None:
    """List the clip by its path in `folder`, even if nothing is there: its segments need not be refused as well."""
    key = checks.resolve(folder, str(clip.path))
    if key in listing:
        raise Mistake(f"the same clip as {listing[key][0]}")
    listing[key] = (where, replace(clip, path=folder / clip.path))
    try:
        if not key.exists():
            raise Mistake(f"there is no clip {str(clip.path)!r}")
        if key.is_dir() and not _is_pictures(key):
            raise Mistake(f"{str(clip.path)!r} is a folder without pictures")
        if not key.is_dir() and not key.is_file():  # a pipe would keep us waiting
            raise Mistake(f"{str(clip.path)!r} is neither a file nor a folder of pictures")
    except OSError as error:
        raise Mistake(f"{str(clip.path)!r} cannot be read: {error.strerror}") from error


def _read_segments_csv(
    folder: Path, findings: Findings, *, listing: _Listing, known_labels: Collection[str] | None
) -> dict[Path, tuple[LabelledSegment, ...]]:
    found: defaultdict[Path, list[tuple[str, LabelledSegment]]] = defaultdict(list)
    columns = ("path", "start_seconds", "end_seconds", "label")
    for where, row in checks.read_table(folder / SEGMENTS_CSV, findings, columns=columns):
        key = findings.ask(where, checks.resolve, folder, row["path"])
        if key is not None and key not in listing:
            findings.problems.append(f"{where}: {row['path']!r} is not one of the clips")
        segment = findings.ask(where, _check_segment, row, known_labels)
        if key is not None and segment is not None:
            found[key].append((where, segment))
    return {key: _in_order(segments, findings) for key, segments in found.items()}


def _in_order(found: Sequence[tuple[str, LabelledSegment]], findings: Findings) -> tuple[LabelledSegment, ...]:
    ordered = sorted(found, key=lambda item: item[1].start_seconds)
    last_where, last = ordered[0]
    for where, segment in ordered[1:]:
        if segment.start_seconds < last.end_seconds:
            findings.problems.append(f"{where}: overlaps the segment of {last_where}")
        if segment.end_seconds > last.end_seconds:
            last_where, last = where, segment
    return tuple(segment for _, segment in ordered)


def _check_segment(row: dict[str, str], known_labels: Collection[str] | None) -> LabelledSegment:
    start_seconds = checks.check_seconds(row["start_seconds"], "start_seconds")
    end_seconds = checks.check_seconds(row["end_seconds"], "end_seconds")
    if end_seconds <= start_seconds:
        raise Mistake(f"the segment ends at {end_seconds:g} s, not after its start, {start_seconds:g} s")
    return LabelledSegment(start_seconds, end_seconds, checks.check_label(row["label"], known_labels))


def _check_split(text: str) -> str:
    if text not in SPLITS:
        raise Mistake(f"the split {text!r} is not one of {', '.join(SPLITS)}")
    return SPLITS[text]


def _check_background(background: str, frame_labels: Collection[str], known_labels: Collection[str] | None) -> str:
    if not frame_labels:
        raise Mistake(f"a background needs segments, and there are none ({SEGMENTS_CSV})")
    return checks.check_label(background, known_labels)


def _shown(path: Path, folder: Path) -> str:
    name = path.relative_to(folder).as_posix()
    return name if name.isprintable() else repr(name)


def _doubts(clips: Sequence[LabelledClip]) -> Iterator[str]:
    """What is allowed, and yet may be a mistake."""
    num_unmarked = sum(not clip.segments for clip in clips)
    parted = [clip.label for clip in clips if clip.label and not clip.several and SEPARATOR in clip.label]
    if parted:
        yield f"{parted[0]!r} is taken as one label; where | parts several, train with --several"
    if 0 < num_unmarked < len(clips):
        yield f"{num_unmarked} of {len(clips)} clips have no segments: their frames have no labels"
    splits_by_group: defaultdict[str, set[str]] = defaultdict(set)
    for clip in clips:
        if clip.group is not None and clip.split is not None:
            splits_by_group[clip.group].add(clip.split)
    for group, splits in sorted(splits_by_group.items()):
        if len(splits) > 1:
            yield f"group {group!r} is on both sides of the given split: {', '.join(sorted(splits))}"
