"""Labels written for other tools. Knows nothing of where they come from.

csv        clips.csv and segments.csv, which `vidseq train` reads, too
webvtt     captions, a file for each clip: players show the label of the moment
elan       an .eaf for each clip, with a tier of actions and one of segments
fiftyone   a FiftyOneTemporalDetectionDataset: data.json and labels.json
"""

import csv
import html
import io
import json
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Literal, get_args

from vidseq.errors import OptionError
from vidseq.export.labelled import Labelled
from vidseq.export.names import names_of
from vidseq.schemas import Segment

Form = Literal["csv", "webvtt", "elan", "fiftyone"]
FORMS: tuple[Form, ...] = get_args(Form)

_SHORTEST_MILLISECONDS = 1  # neither captions nor ELAN know a moment


def export(clips: Iterable[Labelled], form: Form, folder: Path, *, overwrite: bool = False) -> int:
    """Write clips into a folder; how many there were.

    Raises:
        OptionError: something that would be written is there already, and nothing is written; not with `overwrite`.
    """
    every, files = list(clips), _WRITERS[form]
    if not overwrite and (there := [name for name, _ in files(every, folder) if (folder / name).exists()]):
        more = f", and {len(there) - 1:,} more" if there[1:] else ""
        raise OptionError(f"{str(folder / there[0])!r} is there already{more}: --overwrite takes its place")
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files(every, folder):  # made again: of a million clips they would not lie in memory together
        if text is None:
            (folder / name).unlink(missing_ok=True)
        else:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text)
    return len(every)


Files = Iterable[tuple[str, str | None]]
"""Names in the folder, and what is to be in each; None: it is not to be there."""


def _csv(clips: Sequence[Labelled], folder: Path) -> Files:
    """Paths count from the folder, as training reads them. A table of nothing would be a mistake there."""
    paths = [clip.path if "://" in clip.path else os.path.relpath(clip.path, folder) for clip in clips]
    actions, segments = [["path", "label", "score"]], [["path", "start_seconds", "end_seconds", "label", "score"]]
    for path, clip in zip(paths, clips, strict=True):
        labels, scores = [said.label for said in clip.actions], [_digits(said.score) for said in clip.actions]
        actions.append([path, "|".join(labels), "|".join(scores)])
        for segment in clip.segments:
            times = [_digits(segment.start_seconds), _digits(segment.end_seconds)]
            segments.append([path, *times, segment.label, _digits(segment.score)])
    yield "clips.csv", _table(actions)
    yield "segments.csv", _table(segments) if segments[1:] else None


def _webvtt(clips: Sequence[Labelled], folder: Path) -> Files:
    from webvtt import Caption, WebVTT

    for clip, name in _named(clips):
        captions = [
            Caption(_clock(start), _clock(end), html.escape(f"{span.label} {span.score:.2f}", quote=False))
            for span in clip.spans
            for start, end in [_milliseconds(span)]
        ]
        yield f"{name}.vtt", WebVTT(captions=captions).content


def _elan(clips: Sequence[Labelled], folder: Path) -> Files:
    from pympi.Elan import Eaf, to_string

    for clip, name in _named(clips):
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
        yield f"{name}.eaf", to_string(eaf)


def _fiftyone(clips: Sequence[Labelled], folder: Path) -> Files:
    paths, labels = {}, {}
    for clip, name in _named(clips):
        paths[name] = clip.path if "://" in clip.path else os.path.abspath(clip.path)
        labels[name] = [
            {"label": span.label, "timestamps": [span.start_seconds, span.end_seconds], "confidence": span.score}
            for span in clip.spans
        ]
    # FiftyOne looks a name up without its suffix: `data.json` may have one, `labels.json` may not.
    yield "data.json", json.dumps({f"{name}.mp4": path for name, path in paths.items()}, indent=2)
    yield "labels.json", json.dumps({"classes": None, "labels": labels}, indent=2)


_WRITERS: dict[Form, Callable[[Sequence[Labelled], Path], Files]] = {
    "csv": _csv,
    "webvtt": _webvtt,
    "elan": _elan,
    "fiftyone": _fiftyone,
}


def _named(clips: Sequence[Labelled]) -> Iterable[tuple[Labelled, str]]:
    return zip(clips, names_of([clip.path for clip in clips]), strict=True)


def _table(rows: Iterable[Sequence[str]]) -> str:
    text = io.StringIO(newline="")
    csv.writer(text).writerows(rows)
    return text.getvalue()


def _milliseconds(span: Segment) -> tuple[int, int]:
    start = max(0, round(1000 * span.start_seconds))
    return start, max(start + _SHORTEST_MILLISECONDS, round(1000 * span.end_seconds))


def _clock(milliseconds: int) -> str:
    seconds, thousandths = divmod(milliseconds, 1000)
    return f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}.{thousandths:03}"


def _digits(number: float) -> str:
    return f"{number:.6g}"
