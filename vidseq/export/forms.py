"""Labels written for other tools. Knows nothing of where they come from.

csv        clips.csv and segments.csv, which `vidseq train` reads, too
webvtt     captions, a file for each clip: players show the label of the moment
elan       an .eaf for each clip, with a tier of actions and one of segments
fiftyone   a FiftyOneTemporalDetectionDataset: data.json and labels.json
"""

import csv
import html
import json
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Literal, get_args

from vidseq.export.labelled import Labelled
from vidseq.export.names import names_of
from vidseq.schemas import Segment

Form = Literal["csv", "webvtt", "elan", "fiftyone"]
FORMS: tuple[Form, ...] = get_args(Form)

_SHORTEST_MILLISECONDS = 1  # neither captions nor ELAN know a moment


def export(clips: Iterable[Labelled], form: Form, folder: Path) -> int:
    """Write clips into a folder; how many there were."""
    every = list(clips)
    folder.mkdir(parents=True, exist_ok=True)
    _WRITERS[form](every, folder)
    return len(every)


def _csv(clips: Sequence[Labelled], folder: Path) -> None:
    """Paths count from the folder, as training reads them. A table of nothing would be a mistake there."""
    paths = [clip.path if "://" in clip.path else os.path.relpath(clip.path, folder) for clip in clips]
    with (folder / "clips.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["path", "label", "score"])
        for path, clip in zip(paths, clips, strict=True):
            labels, scores = [said.label for said in clip.actions], [_digits(said.score) for said in clip.actions]
            table.writerow([path, "|".join(labels), "|".join(scores)])
    if not any(clip.segments for clip in clips):
        (folder / "segments.csv").unlink(missing_ok=True)
        return
    with (folder / "segments.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["path", "start_seconds", "end_seconds", "label", "score"])
        for path, clip in zip(paths, clips, strict=True):
            for segment in clip.segments:
                times = [_digits(segment.start_seconds), _digits(segment.end_seconds)]
                table.writerow([path, *times, segment.label, _digits(segment.score)])


def _webvtt(clips: Sequence[Labelled], folder: Path) -> None:
    from webvtt import Caption, WebVTT

    for clip, file in _files(clips, folder, ".vtt"):
        captions = [
            Caption(_clock(start), _clock(end), html.escape(f"{span.label} {span.score:.2f}", quote=False))
            for span in clip.spans
            for start, end in [_milliseconds(span)]
        ]
        file.write_text(WebVTT(captions=captions).content)


def _elan(clips: Sequence[Labelled], folder: Path) -> None:
    from pympi.Elan import Eaf, to_string

    for clip, file in _files(clips, folder, ".eaf"):
        eaf = Eaf(author="vidseq")
        eaf.remove_tier("default")
        url = clip.path if "://" in clip.path else Path(os.path.abspath(clip.path)).as_uri()
        eaf.add_linked_file(url, mimetype="video/mp4")
        whole = {"start_seconds": 0.0, "end_seconds": clip.end_seconds}
        actions = [Segment(**whole, label=said.label, score=said.score) for said in clip.actions[:1]]
        for tier, spans in (("action", actions), ("segments", clip.segments)):
            eaf.add_tier(tier)
            for span in spans:
                eaf.add_annotation(tier, *_milliseconds(span), value=span.label)
        file.write_text(to_string(eaf))


def _fiftyone(clips: Sequence[Labelled], folder: Path) -> None:
    paths, labels = {}, {}
    for clip, name in zip(clips, names_of([clip.path for clip in clips]), strict=True):
        paths[name] = clip.path if "://" in clip.path else os.path.abspath(clip.path)
        labels[name] = [
            {"label": span.label, "timestamps": [span.start_seconds, span.end_seconds], "confidence": span.score}
            for span in clip.spans
        ]
    # FiftyOne looks a name up without its suffix: `data.json` may have one, `labels.json` may not.
    (folder / "data.json").write_text(json.dumps({f"{name}.mp4": path for name, path in paths.items()}, indent=2))
    (folder / "labels.json").write_text(json.dumps({"classes": None, "labels": labels}, indent=2))


_WRITERS: dict[Form, Callable[[Sequence[Labelled], Path], None]] = {
    "csv": _csv,
    "webvtt": _webvtt,
    "elan": _elan,
    "fiftyone": _fiftyone,
}


def _files(clips: Sequence[Labelled], folder: Path, suffix: str) -> Iterable[tuple[Labelled, Path]]:
    for clip, name in zip(clips, names_of([clip.path for clip in clips]), strict=True):
        file = folder / f"{name}{suffix}"
        file.parent.mkdir(parents=True, exist_ok=True)
        yield clip, file


def _milliseconds(span: Segment) -> tuple[int, int]:
    start = max(0, round(1000 * span.start_seconds))
    return start, max(start + _SHORTEST_MILLISECONDS, round(1000 * span.end_seconds))


def _clock(milliseconds: int) -> str:
    seconds, thousandths = divmod(milliseconds, 1000)
    return f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}.{thousandths:03}"


def _digits(number: float) -> str:
    return f"{number:.6g}"
