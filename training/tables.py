"""An evaluation, or a comparison, as tables for a terminal of 80 columns. Knows nothing of how figures are measured.

What a person asks first stands first: how good, better than a mean of frames? does it use time? are its scores to be
believed? how soon? and at last, label by label.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from string import ascii_lowercase

from rich import box
from rich.console import RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from training.measure.figures import (
    Arrangement,
    CalibrationResults,
    Change,
    ClassFigures,
    ClipMetrics,
    Comparison,
    Cost,
    Earliness,
    Evaluation,
    FrameMetrics,
    Honesty,
    Interval,
    Paired,
    SegmentMetrics,
)

MAX_CONFUSED = 10  # with more labels than this a matrix is no longer read
MAX_LABELS = 20
_Measured = ClipMetrics | FrameMetrics | SegmentMetrics


def evaluation_tables(found: Evaluation, *, title: str) -> Iterator[RenderableType]:
    """What `vidseq evaluate` prints, the most important first; parts that say nothing are left out."""
    groups = "" if found.num_groups is None else f" ({found.num_groups} groups)"
    yield _heading(f"{title}{groups}")
    yield from _main_tables(found)
    if found.honesty is not None and found.honesty.sentences:
        yield from _honesty(found.honesty)
    if found.calibration is not None:
        yield from _calibration(found.calibration)
    if found.earliness is not None:
        yield from _earliness(found.earliness)
    for unit, metrics in (("clips", found.clips), ("frames", found.frames)):
        if metrics is not None:
            yield from _labels(metrics, unit)


def comparison_tables(found: Comparison) -> Iterator[RenderableType]:
    """What `vidseq compare` prints: both models, the second's lead, what changed, and what each costs."""
    first, second = (model.name for model in found.models)
    if first == second:
        first, second = f"{first} (first)", f"{second} (second)"
    yield _heading(f"{second} against {first} ({found.num_groups} groups)")
    kinds = (("clips", found.clips), ("frames", found.frames), ("segments", found.segments))
    for unit, pair in kinds:
        if pair is not None:
            paired = [one.model_copy(update={"against": first}) for one in _of(found.paired, unit)]
            digits = 1 if isinstance(pair[0], SegmentMetrics) else 3
            yield _compared(f"{unit}: {_num(pair[0])}", {second: pair[1], first: pair[0]}, paired, digits=digits)
    yield _costs(found.costs[::-1], (second, first))
    yield from _changed("wrong to right", found.wrong_to_right, (first, second))
    yield from _changed("right to wrong", found.right_to_wrong, (first, second))


def figure(value: float | None, interval: Interval | None = None, *, signed: bool = False, digits: int = 3) -> str:
    """`0.813 [0.75, 0.87]`; an interval has a digit less, and `-` stands where there is nothing."""
    if value is None:
        return "-"
    told = f"{value:{'+' if signed else ''}.{digits}f}"
    if interval is None:
        return told
    low, high = (f"{round(end, digits - 1) + 0.0:.{digits - 1}f}" for end in interval)  # + 0.0: there is no -0.00
    return f"{told} [{low}, {high}]"


def table(*columns: str, gap: int = 2) -> Table:
    """Words to the left in the first column, figures in the others."""
    made = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, gap, 0, 0), header_style="bold")
    made.add_column(Text(columns[0]), overflow="fold", min_width=13)
    for column in columns[1:]:
        made.add_column(Text(column), overflow="fold")
    return made


def _heading(title: str) -> Text:
    return Text(f"\n{title}", style="bold")


def _sentence(words: str) -> RenderableType:
    """Under a table, a little to the right."""
    return Padding(Text(words), (0, 0, 0, 1))


# How good -----------------------------------------------------------------------------------------


def _main_tables(found: Evaluation) -> Iterator[RenderableType]:
    """Clips, frames and segments: the model, and what stands beside it."""
    for unit, model in (("clips", found.clips), ("frames", found.frames), ("segments", found.segments)):
        if model is not None:
            columns = {"model": model, "mean pool": model.baseline, "frame alone": model.frame_alone}
            known = {name: one for name, one in columns.items() if one is not None}
            digits = 1 if isinstance(model, SegmentMetrics) else 3
            yield _compared(f"{unit}: {_num(model)}", known, _of(found.paired, unit), digits=digits)


def _compared(title: str, columns: Mapping[str, _Measured], paired: Sequence[Paired], *, digits: int) -> Table:
    """A row for each figure, a column for each model; under a figure how far the first leads, where it was tested."""
    made = table(title, *columns, gap=0)  # so that three leads of negative figures fit
    for name, words in _figures(next(iter(columns.values()))).items():
        cells = (figure(getattr(one, name), one.intervals.get(name), digits=digits) for one in columns.values())
        made.add_row(words, *cells)
        leads = {pair.against: pair for pair in paired if pair.figure == name}
        if leads:
            made.add_row("  lead", *(_lead(leads.get(column)) for column in columns), style="dim")
            made.add_row("  p", *(_p(leads.get(column)) for column in columns), style="dim")
    return made


def _figures(metrics: _Measured) -> Mapping[str, str]:
    """The fields that say something, and their names for a person."""
    if isinstance(metrics, SegmentMetrics):
        return {"edit": "edit", "f1_at_10": "F1@10", "f1_at_25": "F1@25", "f1_at_50": "F1@50"}
    several = isinstance(metrics, ClipMetrics) and not metrics.confusion
    names = {
        "accuracy": "all right" if several else "accuracy",
        "accuracy_foreground": "  foreground",
        "share_answered": "  answered",
        "accuracy_answered": "  of these",
        "top5": "top 5",
        "mean_class_accuracy": "mean by class",
        "macro_f1": "macro F1",
        "mean_average_precision": "mean AP",
    }
    dull = {"top5"} if len(metrics.labels) <= 5 else set[str]()  # then the truth is always among the five best
    if isinstance(metrics, FrameMetrics) and metrics.accuracy_foreground == metrics.accuracy:
        dull.add("accuracy_foreground")
    return {
        name: words for name, words in names.items() if name not in dull and getattr(metrics, name, None) is not None
    }


def _num(metrics: _Measured) -> int:
    return metrics.num_true if isinstance(metrics, SegmentMetrics) else metrics.num


def _of(paired: Sequence[Paired], unit: str) -> list[Paired]:
    return [pair for pair in paired if pair.unit == unit]


def _lead(pair: Paired | None) -> str:
    return "" if pair is None else figure(pair.difference, pair.interval, signed=True)


def _p(pair: Paired | None) -> str:
    return "" if pair is None or pair.p is None else f"{pair.p:.3f}"


# Does it use time, can its scores be believed, how soon --------------------------------------------


def _honesty(honesty: Honesty) -> Iterator[RenderableType]:
    made = table("does it use time?", *(f"{unit}  and what it costs" for unit, rows in _kinds(honesty) if rows))
    for rows in zip(*(rows for _, rows in _kinds(honesty) if rows), strict=True):
        cells = (f"{row.accuracy:.3f}  {figure(row.drop, row.interval)}" for row in rows)
        made.add_row(rows[0].name, *cells)
    yield made
    for sentence in honesty.sentences:
        yield _sentence(sentence)


def _kinds(honesty: Honesty) -> tuple[tuple[str, tuple[Arrangement, ...]], ...]:
    return ("clips", honesty.clips), ("frames", honesty.frames)


def _calibration(found: CalibrationResults) -> Iterator[RenderableType]:
    columns = {"as it is": found.before} if found.after is None else {"before": found.before, "after": found.after}
    made = table("can its scores be believed?", *columns)
    for name, words in (("nll", "NLL"), ("brier", "Brier"), ("ece", "ECE")):
        made.add_row(words, *(figure(getattr(one, name), one.intervals.get(name)) for one in columns.values()))
    bands = (figure(one.band.mean, (one.band.low, one.band.high)) for one in columns.values())
    made.add_row("ECE by chance", *bands, style="dim")
    yield made
    last = found.after or found.before
    verdict = "no more than chance makes of" if last.ece <= last.band.high else "more than chance makes of"
    if found.temperature is not None:
        yield _sentence(f"after: at a temperature of {found.temperature:.2f}, found on {found.found_on}")
    yield _sentence(f"the calibration error (ECE) is {verdict} {found.num} clips")


def _earliness(found: Earliness) -> Iterator[RenderableType]:
    if found.accuracy_seen:
        made = table("how soon?", *(f"{row.share_seen:.0%} seen" for row in found.accuracy_seen))
        made.add_row("accuracy", *(figure(row.accuracy) for row in found.accuracy_seen))
        made.add_row("", *(_ends(row.interval) for row in found.accuracy_seen), style="dim")
        yield made
    if found.seconds_to_detect is not None and found.share_detected is not None:
        seconds = figure(found.seconds_to_detect, found.intervals.get("seconds_to_detect"), digits=2)
        yield _sentence(f"right for good after {seconds} s, in {found.share_detected:.0%} of the clips")
    changes = {
        "the action": found.action_flips_per_minute,
        "frame labels": found.frame_flips_per_minute,
        "true labels": found.true_frame_flips_per_minute,
    }
    told = ", ".join(f"{words} {rate:.1f}" for words, rate in changes.items() if rate is not None)
    if told:
        yield _sentence(f"changes a minute: {told}")


def _ends(interval: Interval | None) -> str:
    return "" if interval is None else f"[{interval[0]:.2f}, {interval[1]:.2f}]"


# Label by label -----------------------------------------------------------------------------------


def _labels(metrics: ClipMetrics | FrameMetrics, unit: str) -> Iterator[RenderableType]:
    """Every label, or those with the lowest F1; and what was taken for what."""
    rows = [row for row in metrics.classes if row.support or row.precision is not None]
    if len(rows) > MAX_LABELS:
        rows = sorted(rows, key=lambda row: -1.0 if row.f1 is None else row.f1)[:MAX_LABELS]
    made = table("label", unit, "precision", "recall", "F1")
    for row in rows:
        made.add_row(Text(row.label), str(row.support), *_class_cells(row))
    yield made
    if len(rows) < len(metrics.classes):
        yield _sentence(f"{len(rows)} of {len(metrics.classes)} labels: the others are in --json, or never occur")
    if metrics.confusion:
        yield _confusion(metrics) if len(metrics.labels) <= MAX_CONFUSED else _confused(metrics)


def _class_cells(row: ClassFigures) -> list[str]:
    return [figure(getattr(row, name), row.intervals.get(name), digits=2) for name in ("precision", "recall", "f1")]


def _confusion(metrics: ClipMetrics | FrameMetrics) -> Table:
    """A letter for each label, so that there is room for all of them."""
    letters = ascii_lowercase[: len(metrics.labels)]
    made = table("true, and called", *letters)
    for letter, label, row in zip(letters, metrics.labels, metrics.confusion, strict=True):
        made.add_row(Text(f"{letter} {label}"), *map(str, row))
    return made


def _confused(metrics: ClipMetrics | FrameMetrics) -> Table:
    """The pairs that are taken for one another most often."""
    pairs = [
        (num, true, called)
        for true, row in zip(metrics.labels, metrics.confusion, strict=True)
        for called, num in zip(metrics.labels, row, strict=True)
        if num and called != true
    ]
    made = table("true", "called", "times")
    for num, true, called in sorted(pairs, key=lambda pair: -pair[0])[:MAX_CONFUSED]:
        made.add_row(Text(true), Text(called), str(num))
    return made


# Two models ----------------------------------------------------------------------------------------------------------


def _costs(costs: Sequence[Cost], names: Sequence[str]) -> Table:
    """Beside the CNN, which costs a hundred times as much."""
    made = table("cost", *names)
    made.add_row("parameters", *(f"{cost.num_parameters:,}" for cost in costs))
    made.add_row("CPU-ms a frame", *(f"{cost.cpu_ms_a_frame:.4f}" for cost in costs))
    made.add_row("bytes of state", *("-" if cost.state_bytes is None else f"{cost.state_bytes:,}" for cost in costs))
    return made


def _changed(title: str, changes: Sequence[Change], names: tuple[str, str]) -> Iterator[RenderableType]:
    if not changes:
        yield _sentence(f"{title}: no clip")
        return
    made = table(f"{title}: {len(changes)}", "truth", *names)
    for change in changes[:MAX_LABELS]:
        made.add_row(
            Text("/".join(Path(change.path).parts[-2:])), *map(Text, (change.truth, change.first, change.second))
        )
    yield made
    if len(changes) > MAX_LABELS:
        yield _sentence(f"{MAX_LABELS} of {len(changes)}: the others are in --json")
