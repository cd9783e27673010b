"""report.html: one file that needs no other, shows what was found, and takes no stranger's text for markup."""

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from tests.toy_models import ACTIONS, FRAMES, toy_config
from training.loop.progress import Epoch
from training.measure.figures import (
    AccuracySeen,
    Arrangement,
    Band,
    CalibrationResults,
    ClassFigures,
    ClipMetrics,
    ClipResults,
    ClipRow,
    Earliness,
    Evaluation,
    FrameMetrics,
    FrameResults,
    Honesty,
    Paired,
    Reliability,
    ReliabilityBin,
    SegmentMetrics,
    SegmentResults,
)
from training.measure.gradient_health import Fade, GradientHealth
from training.report.findings import Findings
from training.report.page import write_report
from training.report.timelines import Ribbon, Run, Timeline
from training.settings import FitConfig

CLASSES = tuple(
    ClassFigures(label=label, support=9, precision=0.9, recall=0.8, f1=0.85, intervals={"f1": (0.7, 0.95)})
    for label in ACTIONS
)
CLIPS = ClipMetrics(
    num=27,
    accuracy=0.778,
    top5=1.0,
    macro_f1=0.771,
    labels=ACTIONS,
    confusion=((7, 1, 1), (0, 8, 1), (2, 1, 6)),
    classes=CLASSES,
    intervals={"accuracy": (0.63, 0.9)},
)
FRAME_FIGURES = FrameMetrics(num=2160, accuracy=0.8125, accuracy_foreground=0.7, macro_f1=0.61)
SEGMENTS = SegmentMetrics(
    num_clips=27, num_true=60, num_called=75, edit=71.2, f1_at_10=81.0, f1_at_25=75.5, f1_at_50=60.1
)
BINS = tuple(
    ReliabilityBin(low=low / 5, high=(low + 1) / 5, num=5, mean_score=low / 5 + 0.1, share_right=low / 5)
    for low in range(5)
)
UNSURE = Reliability(nll=0.9, brier=0.4, ece=0.1, band=Band(low=0.02, mean=0.05, high=0.09), bins=BINS)
EVALUATION = Evaluation(
    num_groups=9,
    clips=ClipResults(**CLIPS.model_dump(), baseline=CLIPS, frame_alone=CLIPS),
    frames=FrameResults(**FRAME_FIGURES.model_dump(), baseline=FRAME_FIGURES),
    segments=SegmentResults(**SEGMENTS.model_dump(), baseline=SEGMENTS),
    paired=(
        Paired(unit="clips", figure="accuracy", against="mean pool", difference=0.07, interval=(0.01, 0.15), p=0.03),
    ),
    calibration=CalibrationResults(
        num=27,
        before=UNSURE,
        after=UNSURE.model_copy(update={"ece": 0.06}),
        temperature=1.4,
        found_on="the other groups",
    ),
    earliness=Earliness(
        accuracy_seen=(AccuracySeen(share_seen=0.1, accuracy=0.5, interval=(0.3, 0.7)),),
        share_detected=0.78,
        seconds_to_detect=1.25,
        frame_flips_per_minute=14.0,
        true_frame_flips_per_minute=9.0,
    ),
    honesty=Honesty(
        clips=(Arrangement(name="shuffled", accuracy=0.7, drop=0.078, interval=(0.01, 0.15)),),
        sentences=("clips: shuffling the frames costs 0.078",),
    ),
    failed=("broken.mp4: the file is empty",),
)
HEALTH = GradientHealth(
    cell="elman",
    readout="last",
    frames_per_second=8.0,
    num_clips=16,
    clip_steps=64,
    after=Fade(gradient_norm_LK=(tuple(0.7**back for back in range(64)),)),
    singular_value_L=(0.83,),
    clipped_share=0.31,
)
RIBBONS = (
    Ribbon("truth", FRAMES, (Run(0.0, 1.0, 0, False), Run(1.0, 4.0, 1, False))),
    Ribbon("frames", FRAMES, (Run(0.0, 1.5, 0, False), Run(1.5, 4.0, 2, True))),
)


def a_row(**changes: Any) -> ClipRow:
    fields = {"path": "grow/a.mp4", "group": "x", "truth": "grow", "called": "turn", "score": 0.5, "right": False}
    return ClipRow.model_validate(fields | {"num_frames": 32, "frame_accuracy": 0.4} | changes)


def a_timeline(**changes: Any) -> Timeline:
    fields = {"why": "worst", "path": Path("clips/grow/a.mp4"), "row": a_row(), "truth_score": 0.21, "ribbons": RIBBONS}
    return Timeline(**fields | changes)


def findings(**changes: Any) -> Findings:
    history = [Epoch(number, 1 / number, 1.1 / number, number, 0.5, 0.1, 1e-3) for number in range(1, 6)]
    fields = {
        "name": "toy",
        "num_clips": 90,
        "measured_on": "27 clips held out",
        "config": toy_config(),
        "settings": FitConfig(seed=5),
        "evaluation": EVALUATION,
        "gradient": HEALTH,
        "history_by_name": {"gru": history, "mean-pool": history},
        "timelines": (a_timeline(),),
        "problems": ("'turn' has only 1 group(s)",),
    }
    return Findings(**fields | changes)


@pytest.fixture(scope="module")
def whole() -> str:
    """A page on which everything is known."""
    return write_report(findings())


class Page(HTMLParser):
    """The headings, the text, and every tag with its attributes; a tag left open fails."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text: list[str] = []
        self.headings: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] == ["h2"]:
            self.headings.append(data)
        if "style" not in self.open:
            self.text.append(data)


def words(page: str) -> str:
    return " ".join(" ".join(Page(page).text).split())


PARTS = [
    "Clips",
    "Frames",
    "Segments",
    "Does it use time?",
    "Can its scores be believed?",
    "How soon is it right?",
    "Clips over time",
    "Learning curves",
    "Gradient health",
    "Doubts about the data",
    "Settings",
]


def test_a_page_has_every_part_that_something_is_known_of(whole: str) -> None:
    assert Page(whole).headings == PARTS


def test_what_is_not_known_is_left_out() -> None:
    little = {
        "evaluation": Evaluation(clips=None, frames=None),
        "gradient": "cell 'conv' has no recurrent path",
        "history_by_name": {},
        "timelines": (),
        "problems": (),
    }
    page = write_report(findings(**little))
    assert Page(page).headings == ["Gradient health", "Settings"]
    assert "cell 'conv' has no recurrent path." in words(page)


@pytest.mark.parametrize("num_labels", [5, 6])
def test_the_five_best_are_told_where_there_are_more(num_labels: int) -> None:
    labels = tuple(f"label {number}" for number in range(num_labels))
    clips = ClipResults.model_validate(dict(CLIPS) | {"labels": labels, "confusion": (), "classes": ()})
    page = write_report(findings(evaluation=Evaluation(clips=clips, frames=None)))
    assert ("top 5" in words(page)) == (num_labels > 5)


@pytest.mark.parametrize(
    "sentence",
    [
        "A recurrence (gru, 1 x 16) on timm:test_efficientnet features, 8 frames a second at 32 px.",
        "It says one of 3 actions for a clip and one of 3 labels for every frame.",
        "It is right in 77.8% of 27 clips (95 % interval 63.0% to 90.0%); macro F1 0.771.",
        "Measured: 27 clips held out.",
        "Of clips, +0.070 in accuracy (95 % interval +0.010 to +0.150, p = 0.03): yes.",
        "Clips: shuffling the frames costs 0.078.",
        "Scores are off by 0.060 on average after temperature scaling (ECE), inside 0.020 to 0.090",
        "this elman cannot learn what your clips of 8 s need; try --cell gru",
        "31% of the updates were clipped.",
        "'turn' has only 1 group(s)",
        "right to the end from 1.25 s on, in the median of the 78% of clips where it ends right",
        "worst: grow/a.mp4",
        "grow, called turn",
        "training.seed 5",
    ],
)
def test_what_was_found_is_said(whole: str, sentence: str) -> None:
    assert sentence in words(whole)


def test_the_page_needs_nothing_and_runs_nothing() -> None:
    """No address outside it, no script, no event; and a policy that would stop them, were there any."""
    text = write_report(findings(thumbnails_by_path={Path("clips/grow/a.mp4"): ["data:image/jpeg;base64,AAAA"]}))
    page = Page(text)
    policies = [tag["content"] for name, tag in page.tags if tag.get("http-equiv") == "Content-Security-Policy"]
    assert policies == ["default-src 'none'; style-src 'unsafe-inline'; img-src data:"]
    assert not re.search(r"//\w|@import|url\((?!#)", text)
    assert {name for name, _ in page.tags}.isdisjoint({"script", "link", "iframe", "object", "embed", "base", "form"})
    addresses = [tag[key] or "" for _, tag in page.tags for key in ("src", "href", "xlink:href") if key in tag]
    assert {address[:5] for address in addresses if not address.startswith("#")} == {"data:"}
    assert not any(key.startswith("on") for _, tag in page.tags for key in tag)


HOSTILE = """</style><script>alert(1)</script>"><img src=x onerror=alert(1)> $\\frac{1}{ {{7*7}}"""


def test_names_of_strangers_are_text() -> None:
    clips = CLIPS.model_copy(
        update={
            "labels": (HOSTILE, "b", "c"),
            "classes": (ClassFigures(label=HOSTILE, support=1, precision=1, recall=1, f1=1),),
        }
    )
    ribbon = Ribbon(HOSTILE, (HOSTILE, "b", "c"), (Run(0.0, 1.0, 0, False),))
    timeline = a_timeline(
        path=Path("clips/grow") / HOSTILE.replace("/", ""), row=a_row(truth=HOSTILE), ribbons=(ribbon,)
    )
    page = write_report(
        findings(
            name=HOSTILE,
            evaluation=Evaluation(clips=ClipResults(**clips.model_dump()), frames=None),
            timelines=(timeline,),
            problems=(HOSTILE,),
            history_by_name={HOSTILE: findings().history_by_name["gru"]},
        )
    )
    found = Page(page)
    assert {name for name, _ in found.tags}.isdisjoint({"script", "img"})
    assert "".join(found.text).count(HOSTILE) >= 8


def test_a_wrong_stretch_is_marked_and_a_stretch_of_no_label_is_empty() -> None:
    unsaid = Ribbon("truth", FRAMES, (Run(0.0, 1.0, -1, False),))
    tags = Page(write_report(findings(timelines=(a_timeline(ribbons=(*RIBBONS, unsaid)),)))).tags
    kinds = [tag["class"] for name, tag in tags if name == "i"]
    assert kinds == ["rest", "label", "rest", "label wrong", "unsaid"]


def test_the_same_findings_make_the_same_page(whole: str) -> None:
    assert write_report(findings()) == whole
